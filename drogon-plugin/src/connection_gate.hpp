// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A gate between each connection and Drogon's parser.

#pragma once

#include <drogon/HttpRequest.h>
#include <trantor/net/TcpConnection.h>

namespace mayfly {

// Drogon's parser accepts messages that RFC 9112 refuses, and loses parts of others. trantor passes the bytes of a
// connection to a callback, which Drogon sets. The gate replaces that callback, and calls it with what it passes:
//
//   socket ──> trantor ──> Receiver ── Gate::take ──> Drogon's callback ──> parser ──> routes
//
// All connections of the application have a gate: the receiver of a request is not known before the request is read. So
// Drogon, a tenant and a proxy in front see the same request (docs/decisions/0230-a-gate-before-drogon.md).
class ConnectionGate {
  public:
    // Gives each connection from now on a gate. To be called once, before Drogon listens.
    static void put_up();

    // Whether the request has passed a gate, or has no connection at all.
    [[nodiscard]] static bool is_behind(const drogon::HttpRequest &request) noexcept;

    // Whether the gate has bytes of the connection that Drogon has not taken: the beginning of a request. To be called
    // on the connection's loop.
    [[nodiscard]] static bool holds_bytes(trantor::TcpConnection &connection) noexcept;

    // Whether a request that this thread is reading may have fields that the gate has added.
    [[nodiscard]] static bool may_have_fields() noexcept;
};

} // namespace mayfly
