// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's connections, and how they end when the server does.

#pragma once

#include <chrono>
#include <cstddef>

namespace mayfly {

// Every connection of the application, for tenants' routes and its own alike. During a graceful shutdown,
//
//   - the response to the newest request on a connection carries `connection: close`, and Drogon closes it afterwards
//   - a connection that is idle and stays silent is closed
//   - a connection with half a request stays open until the client completes it or the time is up
//
// Until then it costs each request one relaxed store.
class Connections {
  public:
    // Has Drogon tell of connections, requests and responses. To be called before run(), and before other advices are
    // registered: requests that an earlier one answers are not seen.
    static void watch();

    // From now on, the server ends.
    static void begin_end() noexcept;

    // Has every loop close what it can close, once, and waits for them for `patience` at most. Returns how many
    // connections there are still that the end should wait for. Not on a loop.
    static std::size_t sweep(std::chrono::milliseconds patience);

    // How many connections there are that Drogon has told of.
    static std::size_t count() noexcept;
};

} // namespace mayfly
