// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Where a request's path is while Drogon routes the request under another one.

#pragma once

#include <string>

#include <drogon/HttpRequest.h>

namespace mayfly {

// Keeps the paths of requests between two moments of their way through Drogon: before routing, and in the handler.
//
// A request of Drogon's has room for such things (its attributes), at the price of some allocations. Most requests come
// from the one moment to the other without a break, so each thread has one place of its own, whose buffer is used again
// and again. A request that finds the place taken, because an advice of the application's holds another one up, goes
// the dear way. Its handler may be called on another thread then: that one finds the path in this thread's place.
class PathStash {
  public:
    // Puts `request`'s path away and gives it `replacement`. With one of up to 15 characters nothing is allocated.
    static void put(drogon::HttpRequest &request, const std::string &replacement);

    // Puts `request`'s path away and leaves it, for a request whose way is longer.
    static void keep(drogon::HttpRequest &request);

    // Gives `request` back the path that was put away for it. Returns false if none was.
    static bool take(drogon::HttpRequest &request);
};

} // namespace mayfly
