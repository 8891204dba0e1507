// SPDX-License-Identifier: MIT OR Apache-2.0

#include "ending.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <thread>

#include <drogon/HttpAppFramework.h>
#include <trantor/utils/Logger.h>

#include "connections.hpp"
#include "listeners.hpp"
#include "mayfly/plugin.hpp"

namespace mayfly {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// The time for handshakes in progress.
constexpr milliseconds settle(20);
// The interval between looks at the connections.
constexpr milliseconds tick(10);
// The time for answers that are queued on their loops to be written.
constexpr milliseconds flush(100);

// Created when Drogon runs: before that, it may fork.
std::unique_ptr<Listeners> listeners;

// The plugin's server, or nothing if the plugin is not configured or has ended.
std::shared_ptr<const Server> server() noexcept {
    try {
        auto *plugin = drogon::app().getPlugin<SandboxPlugin>();
        return plugin != nullptr ? plugin->server() : nullptr;
    } catch (const std::exception &) {
        return nullptr;
    }
}

// Returns how many connections there are that Drogon has not reported.
int stop_listening() {
    if (!listeners) {
        LOG_WARN << "Mayfly: new connections are accepted until the end: mayfly::end_on_signals() was not called "
                    "before run()";
        return 0;
    }
    const auto stopped = listeners->stop(settle);
    if (stopped == 0 && !drogon::app().getListeners().empty()) {
        LOG_WARN << "Mayfly: new connections are accepted until the end: the listening sockets are not in "
                    "/proc/self/fd";
    }
    const auto unknown = std::max(listeners->connections() - static_cast<int>(Connections::count()), 0);
    if (unknown > 0) {
        LOG_WARN << "Mayfly: " << unknown
                 << " connections end with the server, whatever is in work on them: Drogon does not report them. This "
                    "needs Drogon 1.9.10 or newer, and mayfly::set_connection_callback() instead of "
                    "drogon::app().setConnectionCallback()";
    }
    return unknown;
}

enum class Left { nothing, requests, not_waited_for };

Left wait_for_requests(const Server *tenants, Clock::time_point end, bool (*hurry)()) {
    while (!hurry()) {
        const bool nothing_left = Connections::sweep(tick) == 0 && (tenants == nullptr || tenants->in_work() == 0);
        if (nothing_left) {
            return Left::nothing;
        }
        if (Clock::now() >= end) {
            return Left::requests;
        }
        std::this_thread::sleep_for(tick);
    }
    return Left::not_waited_for;
}

} // namespace

void prepare_to_end() {
    Connections::watch();
    drogon::app().registerBeginningAdvice([] { listeners = std::make_unique<Listeners>(); });
}

void end_in_order(milliseconds patience, bool (*hurry)()) noexcept {
    try {
        const auto end = Clock::now() + patience;
        auto tenants = server();
        if (tenants) {
            tenants->begin_end(patience);
        }
        Connections::begin_end();
        const bool is_blind = stop_listening() > 0;
        const auto left = wait_for_requests(tenants.get(), end, hurry);
        if (left == Left::requests) {
            LOG_WARN << "Mayfly: the time is up; what is still in work is answered with 503";
            if (tenants) {
                tenants->shutdown();
            }
        }
        if (left == Left::requests || (is_blind && left == Left::nothing)) {
            std::this_thread::sleep_for(flush);
        }
        // The log may have unwritten lines as long as the server is held.
        tenants.reset();
    } catch (const std::exception &error) {
        LOG_WARN << "Mayfly: requests in work are not waited for: " << error.what();
    }
    drogon::app().quit();
}

} // namespace mayfly
