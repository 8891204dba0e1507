// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Keeps a request's path, and the tenant that was found for it, while Drogon routes the request under another path.

#pragma once

#include <optional>
#include <string>

#include <drogon/HttpRequest.h>

#include "mayfly/server.hpp"

namespace mayfly {

// Keeps the paths of requests from before routing until the handler is called.
//
// Drogon's requests have attributes for that, at the price of some allocations. Most requests reach their handler
// without another request in between, so each thread has one slot, whose buffer is reused. If an advice of the
// application delays a request, the slot is occupied when the next one comes, which then takes the slow path: its
// attributes. The handler of the delayed request may be called on another thread, which finds the path in this thread's
// slot.
class PathStash {
  public:
    // Stores the path of `request`, with `hit`, and replaces it by `replacement`. Up to 15 characters of that need no
    // allocation.
    static void put(drogon::HttpRequest &request, const std::string &replacement, RouteHit hit = {});

    // Stores the path of `request` in its attributes, and leaves it unchanged: for a request that is routed on.
    static void keep(drogon::HttpRequest &request);

    // Restores the path of `request`, and returns the hit that was stored with it. Returns nothing if no path was
    // stored.
    static std::optional<RouteHit> take(drogon::HttpRequest &request);
};

} // namespace mayfly
