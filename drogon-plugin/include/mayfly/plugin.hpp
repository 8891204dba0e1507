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
#include <memory>

#include <drogon/HttpAppFramework.h>
#include <drogon/plugins/Plugin.h>

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

// Has `handler` answer what is nobody's: no route, no file, no tenant, and there is no default tenant. To be called
// before drogon::app().run(), in the place of drogon::app().setDefaultHandler(): Drogon has one such handler, and the
// plugin takes it, since a default tenant may come with a reload.
void set_default_handler(drogon::DefaultHandler handler);

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
