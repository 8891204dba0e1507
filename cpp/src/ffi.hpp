// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The functions that Rust calls: Mayfly's C++ types in terms of cxx's. Not part of the interface.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include "mayfly/reply.hpp"
#include "mayfly/request.hpp"
#include "mayfly/waker.hpp"
#include "rust/cxx.h"

namespace mayfly::ffi {

using Bytes = rust::Slice<const std::uint8_t>;

// A std::string_view may be {nullptr, 0}; rust::Slice handles that.
inline Bytes bytes(std::string_view text) noexcept {
    return {reinterpret_cast<const std::uint8_t *>(text.data()), text.size()};
}

inline std::string_view text(Bytes bytes) noexcept {
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

// Rust reads requests in place (rust/bridge/src/request.rs): pointers and counts in this order, nothing between them.
static_assert(std::is_standard_layout_v<RequestView> && std::is_trivially_copyable_v<RequestView>);
static_assert(sizeof(View<char>) == 2 * sizeof(void *) && sizeof(std::size_t) == sizeof(void *));
static_assert(offsetof(HeaderView, value) == sizeof(View<char>) && sizeof(HeaderView) == 2 * sizeof(View<char>));
static_assert(offsetof(RequestView, method) == 0 && offsetof(RequestView, path) == sizeof(View<char>));
static_assert(offsetof(RequestView, query) == 2 * sizeof(View<char>));
static_assert(offsetof(RequestView, body) == 3 * sizeof(View<char>));
static_assert(offsetof(RequestView, headers) == 4 * sizeof(View<char>));
static_assert(offsetof(RequestView, client) == 5 * sizeof(View<char>));
static_assert(offsetof(ClientView, port) == 16 && offsetof(ClientView, version) == 18);
static_assert(offsetof(ClientView, is_encrypted) == 19 && sizeof(ClientView) == 20);
static_assert(sizeof(RequestView) == 6 * sizeof(View<char>) + sizeof(void *));

inline rust::Slice<std::uint8_t> reply_body(Reply &reply, std::size_t size) noexcept {
    const auto body = reply.body(size);
    return {reinterpret_cast<std::uint8_t *>(body.data()), body.size()};
}

inline void reply_no_body(Reply &reply, bool has_length, std::uint64_t length) noexcept {
    reply.no_body(has_length ? std::optional(length) : std::nullopt);
}

inline void reply_status(Reply &reply, std::uint16_t status) noexcept { reply.status(status); }

inline void reply_header(Reply &reply, Bytes name, Bytes value) noexcept { reply.header(text(name), text(value)); }

inline void reply_send(Reply &reply) noexcept { reply.send(); }

inline void waker_wake(const Waker &waker) noexcept { waker.wake(); }

} // namespace mayfly::ffi
