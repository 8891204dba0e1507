// SPDX-License-Identifier: MIT OR Apache-2.0

#include "connection_gate.hpp"

#include <memory>
#include <string_view>
#include <utility>

#include <trantor/net/TcpConnection.h>
#include <trantor/utils/MsgBuffer.h>

#include "connection_hooks.hpp"
#include "mayfly/gate.hpp"

namespace mayfly {

namespace {

constexpr std::string_view continue_line = "HTTP/1.1 100 Continue\r\n\r\n";

// What this thread is doing.
enum class Doing : unsigned char { other, reading_unchanged, reading_changed };
thread_local Doing doing = Doing::other;

struct Reading {
    explicit Reading(bool is_unchanged) noexcept {
        doing = is_unchanged ? Doing::reading_unchanged : Doing::reading_changed;
    }
    Reading(const Reading &) = delete;
    Reading &operator=(const Reading &) = delete;
    ~Reading() { doing = Doing::other; }
};

// Gives access to a protected member of trantor's class, which has a setter but no getter.
struct Callback : trantor::TcpConnection {
    static trantor::RecvMessageCallback &of(trantor::TcpConnection &connection) noexcept {
        return connection.*&Callback::recvMsgCallback_;
    }
};

// Replaces Drogon's callback for a connection's bytes.
class Receiver {
  public:
    explicit Receiver(trantor::RecvMessageCallback drogon)
        : state_(std::make_shared<State>(State{{}, nullptr, std::move(drogon)})) {}

    void operator()(const trantor::TcpConnectionPtr &connection, trantor::MsgBuffer *buffer) const {
        auto &[gate, passed, drogon] = *state_;
        const auto result = gate.take({buffer->peek(), buffer->readableBytes()});
        const Reading reading(result.is_unchanged);
        const bool is_direct = result.is_unchanged && result.consumed == buffer->readableBytes();
        if (is_direct && (!passed || passed->readableBytes() == 0)) {
            drogon(connection, buffer);
            if (buffer->readableBytes() != 0) { // Drogon needs more bytes first. The gate has passed these.
                made(passed).swap(*buffer);
            }
        } else {
            made(passed).append(result.passed.data(), result.passed.size());
            buffer->retrieve(result.consumed);
            if (!result.passed.empty()) {
                drogon(connection, passed.get());
            }
        }
        if (result.says_continue) {
            connection->send(continue_line.data(), continue_line.size());
        }
        if (result.is_broken) {
            connection->forceClose();
        }
    }

    // Whether Drogon has not yet taken all that was passed.
    [[nodiscard]] bool holds_bytes() const noexcept { return state_->passed && state_->passed->readableBytes() != 0; }

  private:
    struct State {
        Gate gate;
        std::unique_ptr<trantor::MsgBuffer> passed; // What Drogon has not yet taken. Most connections never need it.
        trantor::RecvMessageCallback drogon;
    };

    static trantor::MsgBuffer &made(std::unique_ptr<trantor::MsgBuffer> &buffer) {
        if (!buffer) {
            buffer = std::make_unique<trantor::MsgBuffer>();
        }
        return *buffer;
    }

    std::shared_ptr<State> state_;
};

} // namespace

void ConnectionGate::put_up() {
    ConnectionHooks::add([](const trantor::TcpConnectionPtr &connection) {
        if (connection->connected()) {
            auto &callback = Callback::of(*connection);
            callback = Receiver(std::move(callback));
        }
    });
}

bool ConnectionGate::is_behind(const drogon::HttpRequest &request) noexcept {
    if (doing != Doing::other) {
        return true;
    }
    const auto connection = request.getConnectionPtr().lock();
    return !connection || Callback::of(*connection).target<Receiver>() != nullptr;
}

bool ConnectionGate::holds_bytes(trantor::TcpConnection &connection) noexcept {
    const auto *receiver = Callback::of(connection).target<Receiver>();
    return receiver != nullptr && receiver->holds_bytes();
}

bool ConnectionGate::may_have_fields() noexcept { return doing != Doing::reading_unchanged; }

} // namespace mayfly
