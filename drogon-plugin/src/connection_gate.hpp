// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A gate between each connection and Drogon's parser.

#pragma once

#include <drogon/HttpRequest.h>
#include <trantor/net/TcpConnection.h>

namespace mayfly {

// Drogon's parser takes messages that RFC 9112 refuses, and loses parts of others. trantor hands the bytes of a
// connection to a callback, which Drogon sets; the gate takes its place, and hands on what it passes:
//
//   socket ──> trantor ──> Receiver ── Gate::take ──> Drogon's callback ──> parser ──> routes
//
// All connections of the application have one: whose a request is, is not known before it is read. With that, a request
// is the same one for Drogon, for a tenant and for a proxy in front (docs/decisions/0230-a-gate-before-drogon.md).
class ConnectionGate {
  public:
    // Gives each connection that comes from now on a gate. To be called once, before Drogon listens.
    static void put_up();

    // Whether the request has come through a gate, or by no connection at all.
    [[nodiscard]] static bool is_behind(const drogon::HttpRequest &request) noexcept;

    // Whether it has bytes of the connection that Drogon has not taken: the beginning of a request. On its loop.
    [[nodiscard]] static bool holds_bytes(trantor::TcpConnection &connection) noexcept;

    // Whether a request that this thread is reading may have fields of the gate's own.
    [[nodiscard]] static bool may_have_fields() noexcept;
};

} // namespace mayfly
