// SPDX-License-Identifier: MIT OR Apache-2.0

#include "path_stash.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mayfly {

namespace {

const std::string attribute = "mayfly.path";

// What the attribute has.
struct Kept {
    std::string path;
    RouteHit hit;
};

void keep_in_attributes(drogon::HttpRequest &request, RouteHit hit) {
    request.attributes()->insert(attribute, Kept{request.path(), hit});
}

// One thread's place. Its thread writes to it while it has no owner, and then it is read by the one thread that has the
// owner in hand; that the owner was handed from thread to thread orders the two.
//
// Drogon uses the memory of former requests for new ones, and a request may never get to its handler. So an owner is
// known by its time, too.
struct alignas(64) Place {
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

// Places of threads that are gone are not used again, so that whoever has a place never has to ask whether it is still
// there. Threads beyond these go the dear way.
std::array<Place, 256> places;
std::atomic<std::size_t> places_given = 0;

Place *this_threads_place() noexcept {
    thread_local const std::size_t index = places_given.fetch_add(1, std::memory_order_relaxed);
    return index < places.size() ? &places[index] : nullptr;
}

} // namespace

void PathStash::put(drogon::HttpRequest &request, const std::string &replacement, RouteHit hit) {
    if (auto *place = this_threads_place(); place == nullptr || !place->put(request, hit)) {
        keep_in_attributes(request, hit);
    }
    request.setPath(replacement);
}

void PathStash::keep(drogon::HttpRequest &request) { keep_in_attributes(request, {}); }

std::optional<RouteHit> PathStash::take(drogon::HttpRequest &request) {
    if (auto *place = this_threads_place(); place != nullptr) {
        if (const auto hit = place->take(request)) {
            return hit;
        }
    }
    if (const auto &kept = request.attributes()->get<Kept>(attribute); !kept.path.empty()) {
        request.setPath(kept.path);
        return kept.hit;
    }
    for (auto &place : places) {
        if (const auto hit = place.take(request)) {
            return hit;
        }
    }
    return std::nullopt;
}

} // namespace mayfly
