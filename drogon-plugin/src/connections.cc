// SPDX-License-Identifier: MIT OR Apache-2.0

#include "connections.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <drogon/HttpAppFramework.h>
#include <drogon/HttpRequest.h>
#include <drogon/HttpResponse.h>
#include <trantor/net/EventLoop.h>

#include "connection_gate.hpp"
#include "connection_hooks.hpp"

namespace mayfly {

namespace {

using Clock = std::chrono::steady_clock;

// A client that has just been answered may be sending its next request. It has this long to do so.
constexpr auto idle = std::chrono::milliseconds(100);
// A client has this long to close its side. If the server closed first while unread bytes wait, data on its way to the
// client would be lost.
constexpr auto farewell = std::chrono::milliseconds(100);

std::atomic<bool> is_ending = false;
std::atomic<std::size_t> open_connections = 0;

// The newest request of each connection, by the client's port: a request that is in its slot is the newest of its
// connection. If two connections share a slot (clients of several hosts may have the same port), the older request is
// not found, and its connection is closed a moment after the response instead of by it.
//
// The loop of a connection writes its slot, and the thread that responds reads it. The lowest bit says that the
// response asks to close.
class Newest {
  public:
    static void put(const drogon::HttpRequest &request) noexcept {
        of(request).store(word(request), std::memory_order_relaxed);
    }

    // As put(); returns whether the response to an earlier request asks to close. If so, that holds for this one, too.
    static bool replace(const drogon::HttpRequest &request) noexcept {
        auto &slot = of(request);
        auto former = slot.load(std::memory_order_relaxed);
        while (!slot.compare_exchange_weak(former, word(request) | (former & closes), std::memory_order_acq_rel)) {
        }
        return (former & closes) != 0;
    }

    // Whether the request is the newest; if so, the connection closes after its response.
    static bool close_behind(const drogon::HttpRequest &request) noexcept {
        auto expected = word(request);
        return of(request).compare_exchange_strong(expected, expected | closes, std::memory_order_acq_rel);
    }

  private:
    static constexpr std::uintptr_t closes = 1;

    static std::uintptr_t word(const drogon::HttpRequest &request) noexcept {
        return reinterpret_cast<std::uintptr_t>(&request);
    }

    // Neighbouring ports, which often belong to different loops, have different cache lines.
    static std::atomic<std::uintptr_t> &of(const drogon::HttpRequest &request) noexcept {
        const auto port = request.peerAddr().portNetEndian();
        return slots[static_cast<std::uint16_t>((port << 3) | (port >> 13))];
    }

    static inline std::array<std::atomic<std::uintptr_t>, 1 << 16> slots{};
};

// What a loop knows of one of its connections.
struct Connection {
    std::weak_ptr<trantor::TcpConnection> connection;
    // Used from the beginning of the shutdown:
    bool is_seen = false;
    std::size_t received = 0;
    std::size_t sent = 0;
    Clock::time_point still_since{};
    Clock::time_point closed_at{};
};

using Map = std::unordered_map<const trantor::TcpConnection *, Connection>;

Map &of_this_loop() {
    thread_local Map connections;
    return connections;
}

void changed(const trantor::TcpConnectionPtr &connection) {
    auto &connections = of_this_loop();
    if (connection->connected()) {
        if (connections.try_emplace(connection.get(), Connection{connection}).second) {
            open_connections.fetch_add(1, std::memory_order_relaxed);
        }
    } else if (connections.erase(connection.get()) != 0) {
        open_connections.fetch_sub(1, std::memory_order_relaxed);
    }
}

// Drogon holds one reference to a connection in its server, and one more for each request that is not answered. The
// caller holds one, too.
bool is_in_work(const trantor::TcpConnectionPtr &connection) noexcept { return connection.use_count() > 2; }

// Whether half of a request has arrived, as far as it shows: Drogon does not report heads without their bodies.
bool has_half_a_request(const Connection &known, trantor::TcpConnection &connection) {
    const bool answered_since = connection.bytesSent() != known.sent;
    const bool received_since = connection.bytesReceived() != known.received;
    const bool has_first = connection.bytesReceived() != 0 && connection.bytesSent() == 0;
    return connection.getRecvBuffer()->readableBytes() != 0 || ConnectionGate::holds_bytes(connection) || has_first ||
           (received_since && !answered_since);
}

// Whether the shutdown waits for the connection. Closes an idle one; the caller closes those in `to_close` at once.
bool is_waited_for(Connection &known, const trantor::TcpConnectionPtr &connection,
                   std::vector<trantor::TcpConnectionPtr> &to_close) {
    const auto now = Clock::now();
    if (!connection->connected()) { // All is sent, and the client knows that nothing follows.
        if (known.closed_at == Clock::time_point()) {
            known.closed_at = now;
        }
        if (now - known.closed_at > farewell) {
            to_close.push_back(connection);
        }
        return true;
    }
    const bool in_work = is_in_work(connection);
    if (!known.is_seen || in_work || (connection->bytesSent() != known.sent)) {
        known.is_seen = true;
        known.received = connection->bytesReceived();
        known.sent = connection->bytesSent();
        known.still_since = now;
    }
    if (!in_work && !has_half_a_request(known, *connection) && now - known.still_since > idle) {
        connection->shutdown(); // After pending output is sent.
    }
    return true;
}

std::size_t sweep_this_loop() {
    auto &connections = of_this_loop();
    std::vector<trantor::TcpConnectionPtr> to_close;
    std::size_t left = 0;
    for (auto &[_, known] : connections) {
        if (const auto connection = known.connection.lock()) {
            left += is_waited_for(known, connection, to_close) ? 1 : 0;
        }
    }
    for (const auto &connection : to_close) {
        connection->forceClose(); // It leaves the map.
        --left;
    }
    return left;
}

// Drogon dispatches all requests that it has read, and sends no response after one that closes. So requests after such
// a one are not run; the answer below is for the rare connection that shares its slot with another.
drogon::HttpResponsePtr came(const drogon::HttpRequestPtr &request) {
    if (!is_ending.load(std::memory_order_relaxed)) {
        Newest::put(*request);
        return nullptr;
    }
    if (!Newest::replace(*request)) {
        return nullptr;
    }
    constexpr std::string_view reason = R"({"error":"unavailable","reason":"the server is shutting down"})";
    auto response = drogon::HttpResponse::newHttpResponse(drogon::k503ServiceUnavailable, drogon::CT_APPLICATION_JSON);
    response->setBody(std::string(reason));
    response->addHeader("connection", "close");
    response->addHeader("retry-after", "1");
    return response;
}

void answered(const drogon::HttpRequestPtr &request, const drogon::HttpResponsePtr &response) {
    if (!is_ending.load(std::memory_order_relaxed)) {
        return;
    }
    // Drogon does not send a stream whose response closes, and an upgraded connection goes on.
    if (response->asyncStreamCallback() || response->statusCode() == drogon::k101SwitchingProtocols ||
        !Newest::close_behind(*request)) {
        return;
    }
    response->setCloseConnection(true);
    // In pass-through mode Drogon writes no such header. A response that Drogon keeps for further requests is not
    // changed.
    if (response->expiredTime() < 0) {
        response->addHeader("connection", "close");
    }
}

} // namespace

void Connections::watch() {
    static std::once_flag once;
    std::call_once(once, [] {
        ConnectionHooks::add(changed);
        drogon::app().registerSyncAdvice(came);
        drogon::app().registerPreSendingAdvice(answered);
    });
}

void Connections::begin_end() noexcept { is_ending.store(true, std::memory_order_relaxed); }

std::size_t Connections::sweep(std::chrono::milliseconds patience) {
    struct Round {
        std::mutex mutex;
        std::condition_variable done;
        std::size_t loops = 0; // Loops that have not swept yet.
        std::size_t left = 0;
    };
    auto &app = drogon::app();
    const auto round = std::make_shared<Round>();
    round->loops = app.getThreadNum();
    for (std::size_t index = 0; index < app.getThreadNum(); ++index) {
        app.getIOLoop(index)->queueInLoop([round] {
            const auto left = sweep_this_loop();
            const std::lock_guard lock(round->mutex);
            round->left += left;
            --round->loops;
            round->done.notify_one();
        });
    }
    std::unique_lock lock(round->mutex);
    round->done.wait_for(lock, patience, [&] { return round->loops == 0; });
    return round->left + round->loops; // A loop that has not answered in time counts as one connection.
}

std::size_t Connections::count() noexcept { return open_connections.load(std::memory_order_relaxed); }

} // namespace mayfly
