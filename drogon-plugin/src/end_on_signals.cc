// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The end of a server that is told to end: by signals, or by its application.

#include <csignal>
#include <stop_token>
#include <thread>
#include <utility>

#include <drogon/HttpAppFramework.h>
#include <trantor/utils/Logger.h>

#include "connections.hpp"
#include "ending.hpp"
#include "mayfly/plugin.hpp"

namespace mayfly {

namespace {

// A start cannot be interrupted, so its end is waited for.
constexpr auto tick = std::chrono::milliseconds(20);

sigset_t signals() noexcept {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

int wait_for_one() noexcept {
    const auto set = signals();
    int number = 0;
    return sigwait(&set, &number) == 0 ? number : 0;
}

void wait_for_signals(std::chrono::milliseconds patience) noexcept {
    const int number = wait_for_one();
    if (number == 0) {
        return;
    }
    LOG_INFO << "Mayfly: signal " << number << ", the server is to end";
    while (!drogon::app().getLoop()->isRunning()) {
        std::this_thread::sleep_for(tick);
    }
    std::stop_source stop;
    std::thread(end_in_order, patience, stop.get_token()).detach();
    wait_for_one();
    LOG_WARN << "Mayfly: a second signal; requests in work are not waited for";
    stop.request_stop();
    drogon::app().quit();
}

} // namespace

void end_on_signals(std::chrono::milliseconds patience) {
    const auto set = signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    drogon::app().disableSigtermHandling();
    prepare_to_end();
    // Not now: run() may fork, and threads stay with the parent. A signal that comes before waits.
    drogon::app().registerBeginningAdvice([patience] { std::thread(wait_for_signals, patience).detach(); });
}

void end(std::chrono::milliseconds patience) {
    std::thread([patience] { end_in_order(patience, {}); }).detach();
}

void set_connection_callback(std::function<void(const trantor::TcpConnectionPtr &)> callback) {
    Connections::forward(std::move(callback));
}

} // namespace mayfly
