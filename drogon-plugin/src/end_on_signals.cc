// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Graceful shutdown, on SIGTERM and SIGINT or when the application asks for it.

#include <atomic>
#include <csignal>
#include <ctime>
#include <thread>
#include <utility>

#include <unistd.h>

#include <drogon/HttpAppFramework.h>
#include <trantor/utils/Logger.h>

#include "ending.hpp"
#include "mayfly/plugin.hpp"

namespace mayfly {

namespace {

// A start cannot be interrupted, so this is how often its end is polled for.
constexpr auto tick = std::chrono::milliseconds(20);

sigset_t signals() noexcept {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

// Set by end(), or else by end_on_signals().
std::atomic<std::chrono::milliseconds> patience_of_the_end;
std::atomic_flag ends;

// Whether another signal has arrived.
bool hurry() noexcept {
    const auto set = signals();
    const timespec now{};
    if (sigtimedwait(&set, nullptr, &now) < 0) {
        return false;
    }
    LOG_WARN << "Mayfly: a second signal; requests in work are not waited for";
    return true;
}

void wait_for_signals() noexcept {
    const auto set = signals();
    int number = 0;
    if (sigwait(&set, &number) != 0) {
        return;
    }
    ends.test_and_set();
    LOG_INFO << "Mayfly: signal " << number << ", the server is to end";
    while (!drogon::app().getLoop()->isRunning()) {
        std::this_thread::sleep_for(tick);
    }
    end_in_order(patience_of_the_end, hurry);
}

} // namespace

void end_on_signals(std::chrono::milliseconds patience) {
    const auto set = signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    drogon::app().disableSigtermHandling();
    patience_of_the_end = patience;
    prepare_to_end();
    // The thread starts later: run() may fork, and threads stay with the parent. A signal that arrives earlier stays
    // pending.
    drogon::app().registerBeginningAdvice([] { std::thread(wait_for_signals).detach(); });
}

void end(std::chrono::milliseconds patience) noexcept {
    if (!ends.test_and_set()) {
        patience_of_the_end = patience;
        // Wakes the thread that waits for signals: the system may refuse another thread at this moment.
        kill(getpid(), SIGTERM);
    }
}

} // namespace mayfly
