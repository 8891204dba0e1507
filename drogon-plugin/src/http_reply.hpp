// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Mayfly's responses as Drogon's responses.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <drogon/HttpRequest.h>
#include <drogon/HttpResponse.h>
#include <trantor/net/EventLoop.h>

#include "mayfly/reply.hpp"

namespace mayfly {

// Drogon's callback: to be called once, with the response.
using Callback = std::function<void(const drogon::HttpResponsePtr &)>;

// Gives a response a content type, of any text, for which Drogon does not compress the body.
void set_opaque_type(drogon::HttpResponse &response, std::string_view type);

// Builds the Drogon response to a request, which must outlive it.
class HttpReply : public Reply {
  public:
    explicit HttpReply(const drogon::HttpRequest &request) : request_(request) {}

    std::span<char> body(std::size_t size) noexcept override;
    void no_body(std::optional<std::uint64_t> length) noexcept override;
    void status(std::uint16_t status) noexcept override;
    void header(std::string_view name, std::string_view value) noexcept override;
    void send() noexcept override {}

    // The response, which is complete.
    [[nodiscard]] drogon::HttpResponsePtr take();

  private:
    void leave_out_body();

    const drogon::HttpRequest &request_;
    std::string body_;
    std::optional<std::uint64_t> announced_; // The length of a body that is left out.
    drogon::HttpResponsePtr response_;
};

// A reply that another thread sends, through the event loop that the request came from.
class DeferredHttpReply final : public HttpReply {
  public:
    DeferredHttpReply(drogon::HttpRequestPtr request, Callback callback, trantor::EventLoop *loop);
    DeferredHttpReply(const DeferredHttpReply &) = delete;
    DeferredHttpReply &operator=(const DeferredHttpReply &) = delete;

    // Answers 503 if the reply was not sent.
    ~DeferredHttpReply() override;

    void send() noexcept override;

  private:
    drogon::HttpRequestPtr kept_;
    Callback callback_; // Empty once sent.
    trantor::EventLoop *loop_;
};

} // namespace mayfly
