// SPDX-License-Identifier: MIT OR Apache-2.0

#include "path_stash.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mayfly {

namespace {

const std::string attribute = "mayfly.path";

// The attribute's value.
struct Kept {
    std::string path;
    RouteHit hit;
};

void keep_in_attributes(drogon::HttpRequest &request, RouteHit hit) {
    request.attributes()->insert(attribute, Kept{request.path(), hit});
}

// One thread's slot. Its thread writes to it while it has no owner. Then it is read by the thread that handles the
// owner; passing the owner from thread to thread orders the two accesses.
//
// Drogon reuses the memory of former requests for new ones, and a request may never reach its handler. So an owner is
// identified by its address and its creation time.
struct alignas(64) Slot {
    std::atomic<const drogon::HttpRequest *> owner = nullptr;
    std::int64_t created_us = 0;
    std::string path;
    RouteHit hit;

    bool put(const drogon::HttpRequest &request, RouteHit a_hit) {
        if (const auto *other = owner.load(std::memory_order_acquire); other != nullptr && other != &request) {
            return false;
        }
        path = request.path();
        hit = a_hit;
        created_us = request.creationDate().microSecondsSinceEpoch();
        owner.store(&request, std::memory_order_release);
        return true;
    }

    std::optional<RouteHit> take(drogon::HttpRequest &request) {
        if (owner.load(std::memory_order_acquire) != &request ||
            created_us != request.creationDate().microSecondsSinceEpoch()) {
            return std::nullopt;
        }
        request.setPath(path);
        const auto found = hit;
        owner.store(nullptr, std::memory_order_release);
        return found;
    }
};

// Slots of threads that have ended are not reused, so that a slot stays valid for ever. Threads beyond their number
// take the slow path.
std::array<Slot, 256> slots;
std::atomic<std::size_t> slots_used = 0;

Slot *this_threads_slot() noexcept {
    thread_local const std::size_t index = slots_used.fetch_add(1, std::memory_order_relaxed);
    return index < slots.size() ? &slots[index] : nullptr;
}

} // namespace

void PathStash::put(drogon::HttpRequest &request, const std::string &replacement, RouteHit hit) {
    if (auto *slot = this_threads_slot(); slot == nullptr || !slot->put(request, hit)) {
        keep_in_attributes(request, hit);
    }
    request.setPath(replacement);
}

void PathStash::keep(drogon::HttpRequest &request) { keep_in_attributes(request, {}); }

std::optional<RouteHit> PathStash::take(drogon::HttpRequest &request) {
    if (auto *slot = this_threads_slot(); slot != nullptr) {
        if (const auto hit = slot->take(request)) {
            return hit;
        }
    }
    if (const auto &kept = request.attributes()->get<Kept>(attribute); !kept.path.empty()) {
        request.setPath(kept.path);
        const auto hit = kept.hit;
        request.attributes()->erase(attribute);
        return hit;
    }
    for (auto &slot : slots) {
        if (const auto hit = slot.take(request)) {
            return hit;
        }
    }
    return std::nullopt;
}

} // namespace mayfly
