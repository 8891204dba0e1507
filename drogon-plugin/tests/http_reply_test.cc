// SPDX-License-Identifier: MIT OR Apache-2.0

#include <algorithm>
#include <future>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include <drogon/drogon_test.h>
#include <trantor/net/EventLoopThread.h>

#include "http_reply.hpp"

using mayfly::DeferredHttpReply;
using mayfly::HttpReply;

namespace {

drogon::HttpRequestPtr request(drogon::HttpMethod method) {
    auto request = drogon::HttpRequest::newHttpRequest();
    request->setMethod(method);
    return request;
}

const auto get = request(drogon::Get);
const auto head = request(drogon::Head);

void write(mayfly::Reply &reply, std::uint16_t status, std::string_view body) {
    std::ranges::copy(body, reply.body(body.size()).begin());
    reply.status(status);
}

} // namespace

DROGON_TEST(AReplyBecomesAResponse) {
    HttpReply reply(*get);
    write(reply, 418, std::string_view("a\0b", 3));
    reply.header("Content-Type", "text/x-tea; strength=3");
    reply.header("X-Pot", "short and stout");
    const auto response = reply.take();
    CHECK(static_cast<int>(response->statusCode()) == 418);
    CHECK(response->contentTypeString() == "text/x-tea; strength=3");
    CHECK(response->getHeader("x-pot") == "short and stout");
    CHECK(response->body() == std::string_view("a\0b", 3));
}

DROGON_TEST(AResponseWithoutAContentTypeGetsNone) {
    HttpReply reply(*get);
    write(reply, 200, "x");
    CHECK(reply.take()->contentTypeString().empty());
}

// Drogon's setContentTypeCodeAndCustomString() reads past the end of a string of one character.
DROGON_TEST(AContentTypeMayBeAnyString) {
    for (const auto *type : {"", "x", "\t", "content-type: ", ";"}) {
        HttpReply reply(*get);
        reply.status(200);
        reply.header("content-type", type);
        CHECK(reply.take()->contentTypeString() == type);
    }
}

// What keeps Drogon from compressing before 1.9.13, which has a switch for it.
DROGON_TEST(AnOpaqueTypeMayBeAnyString) {
    for (const auto *type :
         {"", "x", "\t", "content-type: ", "content-type: text/html", ";", "text/html; charset=utf-8"}) {
        const auto response = drogon::HttpResponse::newHttpResponse(drogon::k200OK, drogon::CT_NONE);
        mayfly::set_opaque_type(*response, type);
        CHECK(response->contentTypeString() == type);
        CHECK(response->contentType() == drogon::CT_APPLICATION_OCTET_STREAM);
    }
}

DROGON_TEST(ABodyIsNotCompressed) {
    HttpReply reply(*get);
    write(reply, 200, "x");
    reply.header("content-type", "text/plain");
    const auto response = reply.take();
    const auto may_be_compressed = [](const auto &any) {
        if constexpr (requires { any.allowCompression(); }) {
            return any.allowCompression();
        } else {
            return any.contentType() < drogon::CT_APPLICATION_OCTET_STREAM;
        }
    };
    CHECK(!may_be_compressed(*response));
}

DROGON_TEST(HeadersOfOneNameAreJoinedAndCookiesAreKeptApart) {
    HttpReply reply(*get);
    reply.status(200);
    reply.header("Link", "<a>");
    reply.header("link", "<b>");
    reply.header("set-cookie", "a=1; Path=/x; Max-Age=5");
    reply.header("Set-Cookie", "b=x=y");
    reply.header("set-cookie", "a=2; Path=/y");
    reply.header("set-cookie", "bare");
    const auto response = reply.take();
    CHECK(response->getHeader("link") == "<a>, <b>");
    // One field for Drogon, and lines of their own on the wire: in their order, as they were.
    CHECK(response->getHeader("set-cookie") ==
          "a=1; Path=/x; Max-Age=5\r\nset-cookie: b=x=y\r\nset-cookie: a=2; Path=/y\r\nset-cookie: bare");
    CHECK(response->cookies().empty());
}

DROGON_TEST(TheServersOwnHeadersAreTheServers) {
    HttpReply reply(*get);
    reply.status(200);
    reply.header("Date", "yesterday");
    reply.header("Server", "tenant");
    CHECK(reply.take()->headers().empty());
}

DROGON_TEST(AStatusThatHasNoBodyGetsNone) {
    for (const std::uint16_t status : {204, 304}) {
        HttpReply reply(*get);
        write(reply, status, "HTTP/1.1 200 OK\r\n\r\n");
        CHECK(reply.take()->body().empty());
    }
}

DROGON_TEST(AResponseWithoutABodyNamesTheLengthThatTheTenantNames) {
    for (const auto length : {std::optional<std::uint64_t>(10'000'000'000), std::optional<std::uint64_t>()}) {
        HttpReply reply(*head);
        reply.no_body(length);
        reply.status(200);
        reply.header("content-type", "text/x-tea");
        const auto response = reply.take();
        CHECK(response->getHeader("content-length") == (length ? "10000000000" : ""));
        CHECK(response->getHeader("content-type") == "text/x-tea");
        CHECK(!response->getHeader("date").empty());
        CHECK(response->body().empty());
    }
}

// Drogon names the length of these, and leaves the body out.
DROGON_TEST(ABodyThatIsThereForHeadIsMeasured) {
    HttpReply reply(*head);
    reply.no_body(7);
    write(reply, 200, "four"); // An error in the place of the former.
    const auto response = reply.take();
    CHECK(response->body() == "four");
    CHECK(response->headers().empty());
}

DROGON_TEST(AStatusThatHasNoLengthGetsNone) {
    HttpReply reply(*head);
    reply.status(204);
    CHECK(reply.take()->headers().empty());
}

DROGON_TEST(ASecondResponseReplacesTheFirst) {
    HttpReply reply(*get);
    write(reply, 200, "the former");
    reply.header("x-former", "1");
    write(reply, 500, "");
    const auto response = reply.take();
    CHECK(response->statusCode() == drogon::k500InternalServerError);
    CHECK(response->headers().empty());
    CHECK(response->body().empty());
}

DROGON_TEST(ADeferredReplyIsSentByItsLoop) {
    trantor::EventLoopThread thread;
    thread.run();
    std::promise<std::pair<int, bool>> sent;
    auto reply = std::make_unique<DeferredHttpReply>(
        get,
        [&](const drogon::HttpResponsePtr &response) {
            sent.set_value({response->statusCode(), thread.getLoop()->isInLoopThread()});
        },
        thread.getLoop());
    std::thread([reply = std::move(reply)]() mutable {
        write(*reply, 201, "");
        reply->send();
        reply.reset(); // Sent once only.
    }).join();
    CHECK(sent.get_future().get() == std::pair(201, true));
}

DROGON_TEST(ADeferredReplyThatIsGivenUpAnswers503) {
    trantor::EventLoopThread thread;
    thread.run();
    std::promise<drogon::HttpResponsePtr> sent;
    std::make_unique<DeferredHttpReply>(
        get, [&](const drogon::HttpResponsePtr &response) { sent.set_value(response); }, thread.getLoop())
        .reset();
    const auto response = sent.get_future().get();
    CHECK(response->statusCode() == drogon::k503ServiceUnavailable);
    CHECK(response->getHeader("retry-after") == "1");
}
