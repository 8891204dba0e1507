// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The functions that Rust calls: Mayfly's C++ types, seen through cxx's. Not part of the interface.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "mayfly/reply.hpp"
#include "mayfly/request.hpp"
#include "mayfly/waker.hpp"
#include "rust/cxx.h"

namespace mayfly::ffi {

using Bytes = rust::Slice<const std::uint8_t>;

// A std::string_view may be {nullptr, 0}, which rust::Slice takes care of.
inline Bytes bytes(std::string_view text) noexcept {
    return {reinterpret_cast<const std::uint8_t *>(text.data()), text.size()};
}

inline std::string_view text(Bytes bytes) noexcept {
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

inline Bytes request_method(const RequestView &request) noexcept { return bytes(request.method); }
inline Bytes request_path(const RequestView &request) noexcept { return bytes(request.path); }
inline Bytes request_query(const RequestView &request) noexcept { return bytes(request.query); }
inline Bytes request_body(const RequestView &request) noexcept { return bytes(request.body); }

inline std::size_t request_header_count(const RequestView &request) noexcept { return request.headers.size(); }

inline Bytes request_header_name(const RequestView &request, std::size_t index) noexcept {
    return bytes(request.headers[index].name);
}

inline Bytes request_header_value(const RequestView &request, std::size_t index) noexcept {
    return bytes(request.headers[index].value);
}

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
