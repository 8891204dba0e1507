// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a server needs of its process before it starts.

#include <array>
#include <cstdint>

#include <fcntl.h>
#include <unistd.h>

#include <drogon/HttpAppFramework.h>

#include "mayfly/plugin.hpp"
#include "mayfly/server.hpp"

namespace mayfly {

namespace {

// An event loop of Drogon's opens an epoll set, an event and a timer; with a listener, a socket and a spare one.
constexpr std::uint64_t per_loop = 5;
// The main loop, and what is open for a moment.
constexpr std::uint64_t beside = 8;

} // namespace

void open_standard_streams() noexcept {
    constexpr std::array modes{O_RDONLY, O_WRONLY, O_WRONLY};
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
        if (fcntl(stream, F_GETFD) < 0) {
            // The lowest free number is this one.
            (void)open("/dev/null", modes[static_cast<std::size_t>(stream)]);
        }
    }
}

void require_limits() { require_descriptors(drogon::app().getThreadNum() * per_loop + beside); }

} // namespace mayfly
