// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Mayfly's responses as Drogon's.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include <drogon/HttpResponse.h>
#include <trantor/net/EventLoop.h>

#include "mayfly/reply.hpp"

namespace mayfly {

// Drogon's: to be called once, with the response.
using Callback = std::function<void(const drogon::HttpResponsePtr &)>;

// Builds a Drogon response.
class HttpReply : public Reply {
  public:
    void status(std::uint16_t status) noexcept override;
    void header(std::string_view name, std::string_view value) noexcept override;
    std::span<char> body(std::size_t size) noexcept override;
    void send() noexcept override {}

    // The response, which is complete.
    [[nodiscard]] drogon::HttpResponsePtr take();

  private:
    drogon::HttpResponsePtr response_;
    std::string body_;
};

// Tells the threads that send replies when Drogon's event loops are about to end.
class LoopGate {
  public:
    // Runs `work` while the loops are kept from ending, or returns false: they may have ended.
    template <typename Work> bool if_open(Work &&work) {
        const std::lock_guard lock(mutex_);
        if (open_) {
            work();
        }
        return open_;
    }

    void close() {
        const std::lock_guard lock(mutex_);
        open_ = false;
    }

  private:
    std::mutex mutex_;
    bool open_ = true;
};

// A reply that another thread sends: by way of the event loop that the request came from.
class DeferredHttpReply final : public HttpReply {
  public:
    DeferredHttpReply(Callback callback, trantor::EventLoop *loop, std::shared_ptr<LoopGate> gate);
    DeferredHttpReply(const DeferredHttpReply &) = delete;
    DeferredHttpReply &operator=(const DeferredHttpReply &) = delete;

    // Answers 503 if nothing was sent.
    ~DeferredHttpReply() override;

    void send() noexcept override;

  private:
    Callback callback_; // Empty once sent.
    trantor::EventLoop *loop_;
    std::shared_ptr<LoopGate> gate_;
};

} // namespace mayfly
