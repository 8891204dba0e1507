// SPDX-License-Identifier: MIT OR Apache-2.0

#include <string>
#include <thread>

#include <drogon/HttpRequest.h>
#include <drogon/drogon_test.h>
#include <trantor/utils/Date.h>

#include "path_stash.hpp"

using mayfly::PathStash;
using mayfly::RouteHit;

namespace {

const std::string route = "/_mayfly/tenant";

drogon::HttpRequestPtr request(const std::string &path) {
    auto request = drogon::HttpRequest::newHttpRequest();
    request->setPath(path);
    return request;
}

} // namespace

DROGON_TEST(APathIsPutAwayAndComesBackOnce) {
    // With the thread's slot free, and with a request in it.
    const auto held_up = request("/held-up");
    for (const bool is_occupied : {false, true}) {
        if (is_occupied) {
            PathStash::put(*held_up, route);
        }
        for (const std::string path : {"/", "/hello", "/a/path/that/is/longer/than/the/other/one"}) {
            const auto asked = request(path);
            PathStash::put(*asked, route);
            CHECK(asked->path() == route);
            CHECK(PathStash::take(*asked).has_value());
            CHECK(asked->path() == path);
            CHECK(!PathStash::take(*asked).has_value());
        }
    }
    CHECK(PathStash::take(*held_up).has_value());
}

DROGON_TEST(ARequestThatWasNotPutAwayHasNothing) {
    const auto other = request("/other"), asked = request(route);
    PathStash::put(*other, route);
    CHECK(!PathStash::take(*asked).has_value());
    CHECK(asked->path() == route);
    CHECK(PathStash::take(*other).has_value());
}

DROGON_TEST(RequestsThatAreHeldUpKeepTheirOwnPaths) {
    const auto first = request("/first"), second = request("/second"), third = request("/third");
    for (const auto &asked : {first, second, third}) {
        PathStash::put(*asked, route);
    }
    CHECK(PathStash::take(*second).has_value());
    CHECK(PathStash::take(*first).has_value());
    CHECK(PathStash::take(*third).has_value());
    CHECK(first->path() + second->path() + third->path() == "/first/second/third");
}

DROGON_TEST(AHitComesBackWithThePath) {
    const auto asked = request("/asked"), held_up = request("/held-up"), kept = request("/");
    const RouteHit first = {.epoch = 1, .index = 2}, second = {.epoch = 3, .index = 4};
    PathStash::put(*asked, route, first);
    PathStash::put(*held_up, route, second);
    PathStash::keep(*kept);
    CHECK((PathStash::take(*held_up) == second));
    CHECK((PathStash::take(*asked) == first));
    CHECK((PathStash::take(*kept) == RouteHit()));
}

DROGON_TEST(AnotherThreadFindsThePath) {
    const auto asked = request("/asked"), held_up = request("/held-up");
    PathStash::put(*asked, route);
    PathStash::put(*held_up, route);
    std::thread([&] {
        CHECK(PathStash::take(*asked).has_value());
        CHECK(PathStash::take(*held_up).has_value());
    }).join();
    CHECK(asked->path() == "/asked");
    CHECK(held_up->path() == "/held-up");
    PathStash::put(*asked, route);
    CHECK(PathStash::take(*asked).has_value());
}

// A request may never get to its handler; Drogon, and the heap, use its memory for the next one.
DROGON_TEST(ANewRequestInAFormerOnesMemoryIsAnotherOne) {
    const drogon::HttpRequest *former = nullptr;
    for (int i = 0; i < 100; ++i) {
        auto asked = request(route);
        if (asked.get() == former) {
            CHECK(!PathStash::take(*asked).has_value());
        }
        PathStash::put(*asked, route);
        former = asked.get();
        while (trantor::Date::now() == asked->creationDate()) {
            // Between two requests of a connection there is more than the clock's microsecond.
        }
    }
    const auto asked = request("/asked");
    PathStash::put(*asked, route);
    CHECK(PathStash::take(*asked).has_value());
    CHECK(asked->path() == "/asked");
}

DROGON_TEST(MoreThreadsThanPlaces) {
    for (int i = 0; i < 300; ++i) {
        std::thread([&] {
            const auto asked = request("/asked");
            PathStash::put(*asked, route);
            CHECK(asked->path() == route);
            CHECK(PathStash::take(*asked).has_value());
            CHECK(asked->path() == "/asked");
        }).join();
    }
}
