// SPDX-License-Identifier: MIT OR Apache-2.0

#include "path_stash.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mayfly {

namespace {

const std::string attribute = "mayfly.path";

// One thread's place. Its thread writes to it while it has no owner, and then it is read by the one thread that has the
// owner in hand; that the owner was handed from thread to thread orders the two.
//
// Drogon uses the memory of former requests for new ones, and a request may never get to its handler. So an owner is
// known by its time, too.
struct alignas(64) Place {
    std::atomic<const drogon::HttpRequest *> owner = nullptr;
    std::int64_t created_us = 0;
    std::string path;

    bool put(const drogon::HttpRequest &request) {
        if (const auto *other = owner.load(std::memory_order_acquire); other != nullptr && other != &request) {
            return false;
        }
        path = request.path();
        created_us = request.creationDate().microSecondsSinceEpoch();
        owner.store(&request, std::memory_order_release);
        return true;
    }

    bool take(drogon::HttpRequest &request) {
        if (owner.load(std::memory_order_acquire) != &request ||
            created_us != request.creationDate().microSecondsSinceEpoch()) {
            return false;
        }
        request.setPath(path);
        owner.store(nullptr, std::memory_order_release);
        return true;
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

void PathStash::put(drogon::HttpRequest &request, const std::string &replacement) {
    if (auto *place = this_threads_place(); place == nullptr || !place->put(request)) {
        keep(request);
    }
    request.setPath(replacement);
}

void PathStash::keep(drogon::HttpRequest &request) { request.attributes()->insert(attribute, request.path()); }

bool PathStash::take(drogon::HttpRequest &request) {
    if (auto *place = this_threads_place(); place != nullptr && place->take(request)) {
        return true;
    }
    if (const auto &path = request.attributes()->get<std::string>(attribute); !path.empty()) {
        request.setPath(path);
        return true;
    }
    return std::ranges::any_of(places, [&](Place &place) { return place.take(request); });
}

} // namespace mayfly
