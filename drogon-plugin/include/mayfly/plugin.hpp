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

// Has SIGTERM and SIGINT end the server in good order: requests in work are answered, for which they have `patience`,
// while operators are told that the server is not ready any more and clients are asked to close their connections; then
// drogon::app().quit(). Drogon by itself closes all connections first. A second signal ends the wait.
//
// To be called once, at the beginning of main(), before there are other threads: it blocks these signals for the thread
// that calls it, and so for those that come after, and waits for them on a thread of its own.
void end_on_signals(std::chrono::milliseconds patience = std::chrono::seconds(5));

// Throws mayfly::Error if SandboxPlugin is not in this executable. To be called before drogon::app().run().
//
// Drogon finds a plugin by its name alone, in a registry that static initialisers fill. So nothing refers to
// the class, and a linker may leave it out of a static library; Drogon then logs one line and serves without
// it. Mayfly::Plugin's link options prevent that (CMakeLists.txt), and this check notices where they did not.
void require_plugin();

} // namespace mayfly
