// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Callbacks for connections that open and close.

#pragma once

#include <functional>

#include <trantor/net/TcpConnection.h>

namespace mayfly {

using ConnectionHook = std::function<void(const trantor::TcpConnectionPtr &)>;

// Drogon has one callback for connections, passes it to its listeners before it creates its plugins, and does not
// report whether the application has set it. So a static initialiser sets it when the program starts, and it is shared:
// a connection's loop calls each hook when the connection opens and when it has ended.
//
// An application that sets the callback itself replaces it (set_connection_callback() in mayfly/plugin.hpp does not).
class ConnectionHooks {
  public:
    // Adds a hook, which is called after those added before. To be called before Drogon listens.
    static void add(ConnectionHook hook);

    // The application's own hook, which is called last; to be set once, before Drogon listens.
    static void set_application(ConnectionHook hook);
};

} // namespace mayfly
