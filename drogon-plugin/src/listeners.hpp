// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's listening sockets, and how they end while its connections go on.

#pragma once

#include <chrono>

#include <dirent.h>

namespace mayfly {

// Drogon's quit() closes its listeners and all connections at once, and offers nothing in between. The listening
// sockets are found among the descriptors of the process by the addresses that Drogon tells, and end in two steps, so
// that a connection that the kernel has accepted for the server is served and not reset:
//
//   1. a socket filter drops what opens a connection; Drogon accepts what waits already
//   2. the descriptor becomes one of /dev/null. That closes the socket, which takes it out of Drogon's epoll set, too,
//      and leaves the number to Drogon, which closes it. shutdown() alone would have epoll report it for ever.
//
// A client that comes during the first step tries again by itself, after a second, and is refused.
class Listeners {
  public:
    // Opens what it takes to find them and to end them, so that it works without a free descriptor, too. After a fork.
    Listeners() noexcept;
    Listeners(const Listeners &) = delete;
    Listeners &operator=(const Listeners &) = delete;
    ~Listeners();

    // Ends them. Drogon's loops run. Returns how many there were; takes a few times `settle`, since handshakes that are
    // under way get that time.
    int stop(std::chrono::milliseconds settle) const;

    // Connections that clients have to them, as the kernel counts.
    [[nodiscard]] int connections() const;

  private:
    DIR *descriptors_; // Of /proc/self/fd.
    int null_;
};

} // namespace mayfly
