// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Callbacks for connections that open and close.

#pragma once

#include <functional>

#include <trantor/net/TcpConnection.h>

namespace mayfly {

using ConnectionHook = std::function<void(const trantor::TcpConnectionPtr &)>;

// Drogon has one callback for connections, hands it to its listeners before it makes its plugins, and does not tell who
// has set it. So it is set when the program starts, by a static initialiser, and shared: each hook is called by a
// connection's loop when the connection is there and when it has ended.
//
// An application that sets the callback itself takes it away (set_connection_callback() in mayfly/plugin.hpp does not).
class ConnectionHooks {
  public:
    // Adds a hook, which is called after those before it. To be called before Drogon listens.
    static void add(ConnectionHook hook);

    // The application's own hook, which is called last; to be set once, before Drogon listens.
    static void set_application(ConnectionHook hook);
};

} // namespace mayfly
