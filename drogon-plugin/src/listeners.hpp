// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's listening sockets, and how they close while its connections go on.

#pragma once

#include <chrono>

#include <dirent.h>

namespace mayfly {

// Drogon's quit() closes its listeners and all connections at once, without a step in between. This class finds the
// listening sockets among the descriptors of the process, by the addresses that Drogon reports, and closes them in two
// steps, so that a connection that the kernel has accepted for the server is served and not reset:
//
//   1. a socket filter drops the packets that open a connection; Drogon accepts the connections that wait already
//   2. the descriptor becomes one of /dev/null. That closes the socket, which also removes it from Drogon's epoll set,
//      and leaves the number to Drogon, which closes it. After shutdown() alone, epoll would report the socket for
//      ever.
//
// A client that connects during the first step retries by itself, after a second, and is refused.
class Listeners {
  public:
    // Opens the descriptors that stop() needs, so that it works without a free descriptor, too. To be called after a
    // fork.
    Listeners() noexcept;
    Listeners(const Listeners &) = delete;
    Listeners &operator=(const Listeners &) = delete;
    ~Listeners();

    // Closes the sockets, while Drogon's loops run. Returns how many there were. It takes a few times `settle`, the
    // time for handshakes in progress.
    int stop(std::chrono::milliseconds settle) const;

    // Counts the connections of clients to them, as the kernel reports.
    [[nodiscard]] int connections() const;

  private:
    DIR *descriptors_; // Of /proc/self/fd.
    int null_;
};

} // namespace mayfly
