// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The end of a server that is told to end.

#include <csignal>
#include <exception>
#include <thread>
#include <utility>

#include <drogon/HttpAppFramework.h>

#include "http_reply.hpp"
#include "mayfly/plugin.hpp"

namespace mayfly {

namespace {

// Answers that are handed to their loops have so long to be written.
constexpr auto flush = std::chrono::milliseconds(100);
// A start cannot be interrupted, so its end is waited for.
constexpr auto tick = std::chrono::milliseconds(20);

sigset_t signals() noexcept {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

void drain(std::chrono::milliseconds patience) noexcept {
    try {
        auto server = drogon::app().getPlugin<SandboxPlugin>()->server();
        ask_to_close();
        std::thread([server = std::move(server), patience]() mutable {
            server->drain(patience);
            // Whoever holds it at the end keeps its log from being written.
            server.reset();
            std::this_thread::sleep_for(flush);
            drogon::app().quit();
        }).detach();
        const auto set = signals();
        int number = 0;
        sigwait(&set, &number);
        LOG_WARN << "Mayfly: a second signal; requests in work are not waited for";
    } catch (const std::exception &error) {
        LOG_WARN << "Mayfly: requests in work are not waited for: " << error.what();
    }
    drogon::app().quit();
}

void wait_for_signals(std::chrono::milliseconds patience) noexcept {
    const auto set = signals();
    int number = 0;
    if (sigwait(&set, &number) != 0) {
        return;
    }
    LOG_INFO << "Mayfly: signal " << number << ", the server is to end";
    while (!drogon::app().getLoop()->isRunning()) {
        std::this_thread::sleep_for(tick);
    }
    drain(patience);
}

} // namespace

void end_on_signals(std::chrono::milliseconds patience) {
    const auto set = signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    drogon::app().disableSigtermHandling();
    // Not now: run() may fork, and threads stay with the parent. A signal that comes before waits.
    drogon::app().registerBeginningAdvice([patience] { std::thread(wait_for_signals, patience).detach(); });
}

} // namespace mayfly
