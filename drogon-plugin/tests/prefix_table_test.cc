// SPDX-License-Identifier: MIT OR Apache-2.0

#include <chrono>
#include <string>
#include <string_view>

#include <drogon/drogon_test.h>

#include "mayfly/server.hpp"
#include "prefix_table.hpp"

using mayfly::PrefixTable;

namespace {

// The route for `path`; empty if it has none of its own.
std::string route(const PrefixTable &table, std::string_view path) {
    const auto *route = table.route_below(path);
    return route == nullptr ? "" : *route;
}

} // namespace

DROGON_TEST(APrefixEndsAtASlash) {
    const PrefixTable table({"/hello"});
    CHECK(table.is_prefix("/hello"));
    CHECK(route(table, "/hello/") == "/hello/*");
    CHECK(route(table, "/hello/a/b") == "/hello/*");
    CHECK(route(table, "/hello/*") == "/hello/*");
    CHECK(route(table, "/hello").empty());
    CHECK(route(table, "/helloX").empty());
    CHECK(route(table, "/helloX/hello/").empty());
    CHECK(route(table, "/hell").empty());
    CHECK(route(table, "/").empty());
    CHECK(route(table, "").empty());
    CHECK(route(table, "hello/").empty());
}

DROGON_TEST(TheLongestPrefixWins) {
    const PrefixTable table({"/a", "/a/b/c"});
    CHECK(route(table, "/a/b") == "/a/*");
    CHECK(route(table, "/a/b/c").empty()); // a prefix itself
    CHECK(route(table, "/a/b/c/") == "/a/b/c/*");
    CHECK(route(table, "/a/b/cc") == "/a/*");
    CHECK(route(table, "/a/b/cc/d/e") == "/a/*");
}

DROGON_TEST(TheRootOwnsEveryPathButTheOtherPrefixes) {
    const PrefixTable table({"/", "/a"});
    CHECK(route(table, "/").empty());
    CHECK(route(table, "/a").empty());
    CHECK(route(table, "/a/b") == "/a/*");
    CHECK(route(table, "/ab") == "/*");
    CHECK(route(table, "/x/y") == "/*");
}

DROGON_TEST(ASlashAtAPrefixsEndDoesNotCount) {
    const PrefixTable table({"/a/"});
    CHECK(table.is_prefix("/a"));
    CHECK(route(table, "/a/") == "/a/*");
}

DROGON_TEST(APrefixThatDrogonWouldReadAsAPatternIsRefused) {
    for (const auto *prefix : {"a", "", "/{1}", "/a?b", "/(", "/[a", "/a*", "/a\\"}) {
        CHECK_THROWS_AS(PrefixTable({prefix}), mayfly::Error);
    }
}

DROGON_TEST(ALongPathCostsNoMoreThanTheLongestPrefix) {
    const PrefixTable table({"/a/b"});
    const std::string slashes(60'000, '/');
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 1000; ++i) {
        CHECK(route(table, slashes).empty());
        CHECK(route(table, "/a/b" + slashes) == "/a/b/*");
    }
    // Some milliseconds; minutes if each slash of the path were looked at.
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
}
