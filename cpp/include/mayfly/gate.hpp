// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The gate that a connection's bytes pass before an HTTP server parses them.

#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace mayfly {

// The target of the request that a gate passes instead of one that it refuses. No client can send it.
inline constexpr std::string_view refused_target = "/_mayfly/#refused";
// The field of that request: the status of the answer and, after a space, its body.
inline constexpr std::string_view refused_field = "mayfly-refused";
// The field with a request's cookies as the client sent them. Clients cannot send it.
inline constexpr std::string_view cookie_field = "mayfly-cookie";

// Follows the requests of one connection, and passes only unambiguous ones (RFC 9112). One thread at a time may use it.
class Gate {
  public:
    struct Result {
        std::size_t consumed;    // Bytes that are consumed. The rest must be passed again, with what follows.
        std::string_view passed; // What takes their place: the same bytes, or others. Valid until the next call.
        bool is_unchanged;       // `passed` is the consumed bytes themselves.
        bool says_continue;      // The client waits for a 100 (Continue).
        bool is_broken;          // The connection must be closed at once.
    };

    // Logs, once at start, that there are gates before `framework`, which is ASCII.
    static void announce(std::string_view framework) noexcept;

    Gate();
    Gate(Gate &&) noexcept;
    Gate &operator=(Gate &&) noexcept;
    ~Gate();

    // Takes as much as it can of `input`: what the last call left, and what has arrived since.
    [[nodiscard]] Result take(std::string_view input) noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace mayfly
