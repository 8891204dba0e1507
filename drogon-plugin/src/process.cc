// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a server needs from its process before it starts.

#include <cstdint>

#include <drogon/HttpAppFramework.h>

#include "mayfly/plugin.hpp"
#include "mayfly/server.hpp"

namespace mayfly {

namespace {

// An event loop of Drogon opens an epoll set, an event and a timer; with a listener, a socket and a spare descriptor.
constexpr std::uint64_t per_loop = 5;
// The main loop, and descriptors that are open for a moment.
constexpr std::uint64_t beside = 8;

} // namespace

void require_limits() { require_descriptors(drogon::app().getThreadNum() * per_loop + beside); }

} // namespace mayfly
