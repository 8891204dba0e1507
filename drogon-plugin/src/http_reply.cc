// SPDX-License-Identifier: MIT OR Apache-2.0

#include "http_reply.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <drogon/utils/Utilities.h>

namespace mayfly {

namespace {

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is(std::string_view name, std::string_view lower_case) noexcept {
    return std::ranges::equal(name, lower_case, {}, lower);
}

// Drogon's table has one value for each name, and cookies cannot be joined by a comma (RFC 6265, 3). Drogon's list of
// cookies has only one of each name, and changes values that are no valid cookie. But Drogon writes a header's value
// unchanged, so this value contains the further lines of the field. The tenant's values have no CR and no LF: the
// sandbox has checked that.
constexpr std::string_view next_cookie = "\r\nset-cookie: ";

// Drogon compresses bodies on the event loop whenever the client accepts that, even the body of a 206, one with a
// strong entity tag, or one under no-transform. Since 1.9.13 a response can opt out. Earlier versions never compress a
// content type that they consider opaque.
template <typename Response> void send_body_as_it_is(Response &response) {
    if constexpr (requires { response.setAllowCompression(false); }) {
        response.setAllowCompression(false);
    } else {
        set_opaque_type(response, "");
    }
}

template <typename Response> void set_type(Response &response, std::string_view type) {
    if constexpr (requires { response.setAllowCompression(false); }) {
        response.setContentTypeString(type);
    } else {
        set_opaque_type(response, type);
    }
}

} // namespace

void set_opaque_type(drogon::HttpResponse &response, std::string_view type) {
    // Drogon removes a prefix, and mistakes the length of a text of one character for a position: a prefix of our own
    // protects the tenant's text from both.
    constexpr std::string_view prefix = "content-type: ";
    constexpr auto opaque = drogon::CT_APPLICATION_OCTET_STREAM;
    if (type.size() == 1 || type.starts_with(prefix)) {
        response.setContentTypeCodeAndCustomString(opaque, std::string(prefix).append(type));
    } else {
        response.setContentTypeCodeAndCustomString(opaque, type);
    }
}

std::span<char> HttpReply::body(std::size_t size) noexcept {
    announced_.reset();
    body_.resize(size);
    return body_;
}

void HttpReply::no_body(std::optional<std::uint64_t> length) noexcept {
    body_.clear();
    announced_ = length;
}

void HttpReply::status(std::uint16_t status) noexcept {
    // CT_NONE: no content type other than the tenant's.
    response_ = drogon::HttpResponse::newHttpResponse(static_cast<drogon::HttpStatusCode>(status), drogon::CT_NONE);
    send_body_as_it_is(*response_);
}

void HttpReply::header(std::string_view name, std::string_view value) noexcept {
    if (is(name, "content-type")) {
        set_type(*response_, value);
    } else if (!is(name, "date") && !is(name, "server")) { // Drogon writes its own.
        std::string field(name);
        const auto &former = response_->getHeader(field);
        if (former.empty()) {
            response_->addHeader(std::move(field), std::string(value));
            return;
        }
        // RFC 9110, 5.3: values of one name may be joined, in their order, by a comma.
        auto joined = former;
        joined.append(is(name, "set-cookie") ? next_cookie : ", ").append(value);
        response_->addHeader(std::move(field), std::move(joined));
    }
}

drogon::HttpResponsePtr HttpReply::take() {
    // These have no body, whatever the tenant says (RFC 9110, 6.4.1). Drogon would send it, and the client would take
    // it for the beginning of the next response.
    const auto status = response_->statusCode();
    if (status == drogon::k304NotModified || (body_.empty() && status != drogon::k204NoContent && request_.isHead())) {
        leave_out_body();
    } else if (status != drogon::k204NoContent) {
        response_->setBody(std::move(body_));
    }
    return std::move(response_);
}

// Without a body Drogon names a length of 0; only its pass-through mode prevents that. The length would be wrong for
// the resource (RFC 9110, 8.6 and 9.3.2): the response names the tenant's. In pass-through mode Drogon writes only the
// headers that the response has, so its own are added here, except `server`, whose value Drogon does not expose.
void HttpReply::leave_out_body() {
    response_->setPassThrough(true);
    if (announced_) {
        response_->addHeader("content-length", std::to_string(*announced_));
    }
    if (const auto type = response_->contentTypeString(); !type.empty()) {
        response_->addHeader("content-type", std::string(type));
    }
    response_->addHeader("date", drogon::utils::getHttpFullDateStr());
    // Drogon keeps or closes the connection by the request's header and version, whatever the mode.
    const auto &connection = request_.getHeader("connection");
    if (request_.version() == drogon::Version::kHttp10) {
        response_->addHeader("connection", is(connection, "keep-alive") ? "Keep-Alive" : "close");
    } else if (is(connection, "close")) {
        response_->addHeader("connection", "close");
    }
}

DeferredHttpReply::DeferredHttpReply(drogon::HttpRequestPtr request, Callback callback, trantor::EventLoop *loop)
    : HttpReply(*request), kept_(std::move(request)), callback_(std::move(callback)), loop_(loop) {}

DeferredHttpReply::~DeferredHttpReply() {
    if (callback_) {
        constexpr std::string_view reason = R"({"error":"unavailable","reason":"the request was given up"})";
        std::ranges::copy(reason, body(reason.size()).begin());
        status(drogon::k503ServiceUnavailable);
        header("content-type", "application/json");
        header("retry-after", "1");
        send();
    }
}

void DeferredHttpReply::send() noexcept {
    // The function takes the request along: it belongs to the loop, and is destroyed there.
    loop_->queueInLoop([callback = std::exchange(callback_, nullptr), response = take(), request = std::move(kept_)] {
        callback(response);
    });
}

} // namespace mayfly
