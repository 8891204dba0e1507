// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's connections, and how they end when the server does.

#pragma once

#include <chrono>
#include <cstddef>

namespace mayfly {

// All of the application's connections, whoever answers their requests. While the server ends,
//
//   - the response to the newest request of a connection asks the client to close, and Drogon closes behind it
//   - a connection with nothing in work on which nothing comes is closed
//   - one with half a request is left to its client until the time is up
//
// What it costs a request before the end is one relaxed store.
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
