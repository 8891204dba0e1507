// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The C++ half of sdk_test: the conveniences, and that C and C++ files share the SDK's state.

#include "sdk_test.h"

void test_cxx() {
    const mayfly_header headers[] = {{mayfly::bytes("content-type"), mayfly::bytes("text/plain")}};
    mayfly::Request sent{};
    sent.method = mayfly::bytes("POST");
    sent.path = mayfly::bytes("/a/b");
    sent.query = mayfly::bytes("c=d");
    sent.body = mayfly::bytes(std::string_view("\0nul", 4));
    sent.headers = headers;
    sent.header_count = 1;
    for (std::size_t ring = 0; ring < 5; ++ring)
        answer_with(ring, reinterpret_cast<std::int64_t>(&sent));
    answer_with(1, 3);
    answer_with(2, -ENOENT);

    const mayfly::Request &request = mayfly::wait();
    CHECK(&request == &sent);
    CHECK(mayfly::method(request) == "POST" && mayfly::path(request) == "/a/b" && mayfly::query(request) == "c=d");
    CHECK(mayfly::body(request) == std::string_view("\0nul", 4));
    CHECK(mayfly::header(request, "Content-Type") == "text/plain");
    CHECK(!mayfly::header(request, "accept"));

    char result[8] = "res";
    CHECK(mayfly::call("f", "argument", result) == "res");
    CHECK(mayfly::view(ring_at(1)->call.argument) == "argument" && ring_at(1)->call.capacity == sizeof result);
    CHECK(!mayfly::call("f", "argument", result) && errno == ENOENT);

    CHECK(mayfly::respond(201, "text/css", "body") == 0);
    CHECK(rung() == 4);
    const ring &ring = *ring_at(3);
    CHECK(ring.response.status == 201 && ring.response.header_count == 1);
    CHECK(mayfly::view(ring.header.name) == "content-type" && mayfly::view(ring.header.value) == "text/css");
    CHECK(mayfly::view(ring.response.body) == "body");

    CHECK(mayfly_sdk.next == &sent); // The C file's object: its functions wrote here
    CHECK(mayfly_wait() == &sent);   // and these read it.
    CHECK(rung() == 4);
    CHECK(mayfly::respond({200, 0, nullptr, mayfly::bytes("")}) == 0);

    static long memory[2];
    CHECK(mayfly::shared<long>() == nullptr);
    share(memory, sizeof memory);
    CHECK(mayfly::shared<long[2]>() == &memory);
    CHECK(mayfly::shared<long[3]>() == nullptr); // There is less.
}
