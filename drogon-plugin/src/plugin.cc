// SPDX-License-Identifier: MIT OR Apache-2.0

#include "mayfly/plugin.hpp"

#include <optional>
#include <string>
#include <utility>

#include <drogon/HttpAppFramework.h>

#include "connection_gate.hpp"
#include "connection_hooks.hpp"
#include "mayfly/gate.hpp"
#include "mayfly/server.hpp"
#include "tenant_controller.hpp"

// The linker looks for this symbol (`--undefined`), so that it takes this file, and with it the registration of the
// class below, out of the static library.
extern "C" {
extern const char mayfly_plugin_linked;
const char mayfly_plugin_linked = 1;
}

namespace mayfly {

namespace {

std::string to_text(const Json::Value &config) {
    Json::StreamWriterBuilder writer;
    writer["indentation"] = "";
    writer["commentStyle"] = "None";
    writer["emitUTF8"] = true;
    return Json::writeString(writer, config);
}

// The application's handler, set before run(); nothing if the plugin has not been given Drogon's default handler.
std::optional<drogon::DefaultHandler> &default_handler() {
    static std::optional<drogon::DefaultHandler> handler;
    return handler;
}

} // namespace

void set_default_handler(drogon::DefaultHandler handler) { default_handler() = std::move(handler); }

void set_connection_callback(std::function<void(const trantor::TcpConnectionPtr &)> callback) {
    ConnectionHooks::set_application(std::move(callback));
}

void SandboxPlugin::initAndStart(const Json::Value &config) {
    try {
        controller_ = std::make_shared<TenantController>(Server::start(config.isNull() ? "{}" : to_text(config)),
                                                         default_handler());
    } catch (const Error &error) {
        throw Error(std::string("mayfly::SandboxPlugin: ") + error.what());
    }
    drogon::app().registerNewConnectionAdvice(
        [](const trantor::InetAddress &, const trantor::InetAddress &) { return has_room_for_connection(); });
    drogon::app().registerController(controller_);
    controller_->register_routes();
    ConnectionGate::put_up();
    Gate::announce("Drogon " + drogon::getVersion());
}

std::shared_ptr<const Server> SandboxPlugin::server() const {
    if (!controller_) {
        throw Error("mayfly::SandboxPlugin has not started");
    }
    return controller_->server();
}

void SandboxPlugin::shutdown() {
    if (controller_) {
        controller_->shutdown();
    }
}

} // namespace mayfly
