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

// Drogon's response has one value for a header, so that a second cookie would replace the first. It has a list
// of cookies, however, and writes them as `name=value`: with all attributes left in the value, byte for byte.
drogon::Cookie cookie(std::string_view set_cookie) {
    const auto equals = std::min(set_cookie.find('='), set_cookie.size());
    const auto value = set_cookie.substr(std::min(equals + 1, set_cookie.size()));
    drogon::Cookie cookie{std::string(set_cookie.substr(0, equals)), std::string(value)};
    cookie.setHttpOnly(false); // Drogon's own attribute, not the tenant's.
    return cookie;
}

} // namespace

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
    // CT_NONE: no content type but the tenant's.
    response_ = drogon::HttpResponse::newHttpResponse(static_cast<drogon::HttpStatusCode>(status), drogon::CT_NONE);
}

void HttpReply::header(std::string_view name, std::string_view value) noexcept {
    if (is(name, "content-type")) {
        response_->setContentTypeString(value);
    } else if (is(name, "set-cookie")) {
        response_->addCookie(cookie(value));
    } else if (!is(name, "date") && !is(name, "server")) { // Drogon writes its own.
        std::string field(name);
        const auto &former = response_->getHeader(field);
        // RFC 9110, 5.3: values of one name may be joined, in their order, by a comma.
        response_->addHeader(std::move(field),
                             former.empty() ? std::string(value) : former + ", " + std::string(value));
    }
}

drogon::HttpResponsePtr HttpReply::take() {
    // These have no body, whatever the tenant says (RFC 9110, 6.4.1); Drogon would send it all the same, and the
    // client would take it for the beginning of the next response.
    const auto status = response_->statusCode();
    if (status == drogon::k304NotModified || (body_.empty() && status != drogon::k204NoContent && request_.isHead())) {
        leave_out_body();
    } else if (status != drogon::k204NoContent) {
        response_->setBody(std::move(body_));
    }
    return std::move(response_);
}

// Drogon names a length of 0 where there is no body, and nothing but its pass-through mode keeps it from that. It would
// be a lie about the resource (RFC 9110, 8.6 and 9.3.2): what is named is what the tenant names. In that mode Drogon
// writes the headers that are there and none of its own, so these are written here, but for `server`, which it does not
// tell.
void HttpReply::leave_out_body() {
    response_->setPassThrough(true);
    if (announced_) {
        response_->addHeader("content-length", std::to_string(*announced_));
    }
    if (const auto type = response_->contentTypeString(); !type.empty()) {
        response_->addHeader("content-type", std::string(type));
    }
    response_->addHeader("date", drogon::utils::getHttpFullDateStr());
    // Drogon keeps or closes the connection by this header and the version, whatever the mode.
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
    // The request goes with it: it is the loop's, and ends there.
    loop_->queueInLoop([callback = std::exchange(callback_, nullptr), response = take(), request = std::move(kept_)] {
        callback(response);
    });
}

} // namespace mayfly
