// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Mayfly as a Drogon plugin. In Drogon's JSON:
//
//     "plugins": [{ "name": "mayfly::SandboxPlugin",
//                   "config": { "tenants": [{ "name": "hello", "program": "hello", "path": "/hello" }] } }]
//
// docs/plugin.md has every key, and how to link the plugin.

#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include <drogon/HttpAppFramework.h>
#include <drogon/plugins/Plugin.h>
#include <trantor/net/TcpConnection.h>

#include "mayfly/server.hpp"

namespace mayfly {

class TenantController;

// Boots the configured tenants while Drogon starts, and routes their requests from Drogon to them.
class SandboxPlugin final : public drogon::Plugin<SandboxPlugin> {
  public:
    SandboxPlugin() = default;

    // Throws mayfly::Error, which names the key or the path, if the configuration is refused. The exception leaves
    // drogon::app().run(), so that a server with a wrong configuration does not start.
    void initAndStart(const Json::Value &config) override;

    // The tenants, for reports and reloads. While Drogon runs, any thread may call
    //
    //     drogon::app().getPlugin<mayfly::SandboxPlugin>()->server()->report_json()
    //
    // Throws mayfly::Error if the plugin does not run.
    [[nodiscard]] std::shared_ptr<const Server> server() const;

    // Answers waiting requests. Drogon calls it while its loops still run.
    void shutdown() override;

  private:
    std::shared_ptr<TenantController> controller_;
};

// Gives Drogon's default handler to the plugin from the start, so that a reload may bring the first default tenant. As
// long as there is none, `handler`, if it is not empty, answers requests that have no route, no file and no tenant. To
// be called before drogon::app().run(), instead of drogon::app().setDefaultHandler().
//
// Without this call the plugin takes that handler only if there is a default tenant when it starts: Drogon has only
// one, and does not report whether the application has set it.
void set_default_handler(drogon::DefaultHandler handler = {});

// Sets a callback for connections that open and close, as drogon::app().setConnectionCallback() does, which must not be
// called: Drogon has only one such callback, and the plugin owns it from the program's start, because it checks the
// bytes of a connection before Drogon parses them. If an application replaces it, tenants' requests are answered 500.
// To be called before drogon::app().run().
void set_connection_callback(std::function<void(const trantor::TcpConnectionPtr &)> callback);

// Makes SIGTERM and SIGINT shut the server down gracefully, for the application's own routes as well as for tenants.
// The readiness check fails, listeners close, idle connections close, and requests that have arrived are answered with
// `connection: close`. drogon::app().quit() follows when all are answered (at once if there are none), or after
// `patience`; tenants' requests that still run then get a 503. A second signal ends the wait. Without this, Drogon
// closes all connections first.
//
// Call it once, at the start of main() and before any other thread exists: it blocks both signals in the calling
// thread, whose later threads inherit that, and waits for them on a thread of its own. Call it before the application
// registers its advices.
void end_on_signals(std::chrono::milliseconds patience = std::chrono::seconds(5));

// Ends the server as a signal does, instead of drogon::app().quit(), which closes all connections first. Any thread may
// call it while Drogon runs; it returns at once. end_on_signals() must have been called before.
void end(std::chrono::milliseconds patience = std::chrono::seconds(5)) noexcept;

// Raises the soft limit on descriptors to the hard one. Throws mayfly::Error if a limit is too low for Drogon as it is
// configured; the text says what is needed and what to do. To be called between loadConfigFile() and run(), in which
// Drogon would end the process without naming the cause. The plugin checks again when it starts.
void require_limits();

// Throws mayfly::Error if SandboxPlugin is not in this executable. To be called before drogon::app().run().
//
// Drogon finds a plugin only by its name, in a registry that static initialisers fill. So nothing refers to the class,
// and a linker may leave it out of a static library; Drogon then logs one line and serves without it. The link options
// of Mayfly::Plugin prevent that (CMakeLists.txt), and this check detects that they were not used.
void require_plugin();

} // namespace mayfly
