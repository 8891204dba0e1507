// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Where a request's path, and the tenant that was found for it, are while Drogon routes the request under another one.

#pragma once

#include <optional>
#include <string>

#include <drogon/HttpRequest.h>

#include "mayfly/server.hpp"

namespace mayfly {

// Keeps the paths of requests between two moments of their way through Drogon: before routing, and in the handler.
//
// A request of Drogon's has room for such things (its attributes), at the price of some allocations. Most requests come
// from the one moment to the other without a break, so each thread has one place of its own, whose buffer is used again
// and again. A request that finds the place taken, because an advice of the application's holds another one up, goes
// the dear way. Its handler may be called on another thread then: that one finds the path in this thread's place.
class PathStash {
  public:
    // Puts `request`'s path away, and `hit` with it, and gives the request `replacement`. With one of up to 15
    // characters nothing is allocated.
    static void put(drogon::HttpRequest &request, const std::string &replacement, RouteHit hit = {});

    // Puts `request`'s path away and leaves it, for a request whose way is longer.
    static void keep(drogon::HttpRequest &request);

    // Gives `request` back the path that was put away for it, and returns the hit that came with it. Returns nothing if
    // no path was put away.
    static std::optional<RouteHit> take(drogon::HttpRequest &request);
};

} // namespace mayfly
