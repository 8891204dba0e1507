// SPDX-License-Identifier: MIT OR Apache-2.0

#include "connection_hooks.hpp"

#include <utility>
#include <vector>

#include <drogon/HttpAppFramework.h>

namespace mayfly {

namespace {

struct Hooks {
    std::vector<ConnectionHook> ours;
    ConnectionHook application;
};

// Written while there is only one thread, read by all loops.
Hooks &hooks() {
    static Hooks hooks;
    return hooks;
}

void changed(const trantor::TcpConnectionPtr &connection) {
    for (const auto &hook : hooks().ours) {
        hook(connection);
    }
    if (const auto &hook = hooks().application) {
        hook(connection);
    }
}

// Drogon's own static initialisers (those of its controllers) use the application object, too.
[[maybe_unused]] const auto &installed = drogon::app().setConnectionCallback(changed);

} // namespace

void ConnectionHooks::add(ConnectionHook hook) { hooks().ours.push_back(std::move(hook)); }

void ConnectionHooks::set_application(ConnectionHook hook) { hooks().application = std::move(hook); }

} // namespace mayfly
