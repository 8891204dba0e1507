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

// Boots the configured tenants while Drogon starts, and has Drogon hand them their requests.
class SandboxPlugin final : public drogon::Plugin<SandboxPlugin> {
  public:
    SandboxPlugin() = default;

    // Throws mayfly::Error, which names the key or the path, when the configuration is refused. It leaves
    // drogon::app().run(), so that a server with a wrong configuration does not start.
    void initAndStart(const Json::Value &config) override;

    // The tenants, to look at and to reload. For pages of your own; while Drogon runs, any thread may ask
    //
    //     drogon::app().getPlugin<mayfly::SandboxPlugin>()->server()->report_json()
    //
    // Throws mayfly::Error when it does not run.
    [[nodiscard]] std::shared_ptr<const Server> server() const;

    // Answers what waits; called by Drogon while its loops still run.
    void shutdown() override;

  private:
    std::shared_ptr<TenantController> controller_;
};

// Lets the plugin have Drogon's default handler from the start, so that the first default tenant may come with a
// reload, and has `handler`, if it is not empty, answer while there is none: what has no route, no file and no tenant.
// To be called before drogon::app().run(), in the place of drogon::app().setDefaultHandler().
//
// Without this call the plugin takes that handler only if there is a default tenant when it starts: Drogon has but one,
// and does not tell whether the application has set it.
void set_default_handler(drogon::DefaultHandler handler = {});

// Has `callback` told of connections that come and go, as drogon::app().setConnectionCallback() does, which must not be
// called: Drogon has but one such callback, and the plugin has it since the program's start, because it checks what
// comes before Drogon parses it. Where an application takes it away, tenants' requests are answered 500. To be called
// before drogon::app().run().
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

// Ends the server as a signal does, in the place of drogon::app().quit(), which closes all connections first. Any
// thread may call it, while Drogon runs; it returns at once. end_on_signals() has to have been called.
void end(std::chrono::milliseconds patience = std::chrono::seconds(5)) noexcept;

// Raises the process's limit on descriptors to what it may have, and throws mayfly::Error, which says what is needed
// and what to do, if a limit is too low for Drogon as it is configured. To be called between loadConfigFile() and
// run(), in which Drogon ends the process without a word to the point. The plugin checks again when it starts.
void require_limits();

// Throws mayfly::Error if SandboxPlugin is not in this executable. To be called before drogon::app().run().
//
// Drogon finds a plugin by its name alone, in a registry that static initialisers fill. So nothing refers to
// the class, and a linker may leave it out of a static library; Drogon then logs one line and serves without
// it. Mayfly::Plugin's link options prevent that (CMakeLists.txt), and this check notices where they did not.
void require_plugin();

} // namespace mayfly
