// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a connection's bytes go through before an HTTP server parses them.

#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace mayfly {

// The target of the request that a gate passes in the place of one that it refuses. No client can send it.
inline constexpr std::string_view refused_target = "/_mayfly/#refused";
// The field of that request: the answer's status and, behind a space, its body.
inline constexpr std::string_view refused_field = "mayfly-refused";
// The field that has a request's cookies as the client sent them. Clients cannot send it.
inline constexpr std::string_view cookie_field = "mayfly-cookie";

// Follows one connection's requests, and passes what can be read in one way only (RFC 9112). To be used by one thread
// at a time.
class Gate {
  public:
    struct Taken {
        std::size_t consumed;    // So many bytes are done with. What is left is to be given again, with what follows.
        std::string_view passed; // What is passed of them: they themselves, or other bytes. Valid until the next call.
        bool is_unchanged;       // `passed` is the consumed bytes themselves.
        bool says_continue;      // The client waits for a 100 (Continue).
        bool is_broken;          // The connection is to be closed at once.
    };

    // Writes to the log that there are gates before `framework`, which is ASCII: once, at start.
    static void announce(std::string_view framework) noexcept;

    Gate();
    Gate(Gate &&) noexcept;
    Gate &operator=(Gate &&) noexcept;
    ~Gate();

    // Takes what it can of `input`: what was left the last time and has come since.
    [[nodiscard]] Taken take(std::string_view input) noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace mayfly
