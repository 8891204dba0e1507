// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's connections, and how they end at shutdown.

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
// Before a shutdown, it costs each request one relaxed store.
class Connections {
  public:
    // Registers for connections, requests and responses with Drogon. To be called before run(), and before other
    // advices are registered: requests that an earlier advice answers are not seen.
    static void watch();

    // Begins the shutdown.
    static void begin_end() noexcept;

    // Makes every loop close what it can close, once, and waits for the loops for at most `patience`. Returns how many
    // connections remain that the shutdown should wait for. Not to be called on a loop.
    static std::size_t sweep(std::chrono::milliseconds patience);

    // How many open connections Drogon has reported.
    static std::size_t count() noexcept;
};

} // namespace mayfly
