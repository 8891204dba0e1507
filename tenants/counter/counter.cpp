// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Counts its requests, over all workers, threads and generations: the number lies in shared memory, which no reset
// touches. Needs `"shared_memory"` in its configuration; with a file there, it goes on counting after a restart.

#include "mayfly.h"

#include <atomic>
#include <charconv>
#include <cstdio>

namespace {

struct Shared {
    std::atomic<std::uint64_t> requests;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock of the C++ library's would not be shared");

// "Hello NUMBER World!\n", written to `buffer`.
template <std::size_t Size> std::string_view greet(std::uint64_t number, char (&buffer)[Size]) {
    constexpr std::string_view before = "Hello ", after = " World!\n";
    static_assert(Size >= before.size() + 20 + after.size(), "20 digits are the most");
    char *end = buffer + before.copy(buffer, before.size());
    end = std::to_chars(end, buffer + Size, number).ptr;
    end += after.copy(end, after.size());
    return {buffer, static_cast<std::size_t>(end - buffer)};
}

} // namespace

int main() {
    auto *shared = mayfly::shared<Shared>();
    if (mayfly_host() && !shared) {
        std::fputs("counter: there is no shared memory; give the tenant \"shared_memory\"\n", stderr);
        return 1;
    }
    for (;;) {
        mayfly::wait();
        char buffer[40];
        mayfly::respond(200, "text/plain", greet(shared->requests.fetch_add(1) + 1, buffer));
    }
}
