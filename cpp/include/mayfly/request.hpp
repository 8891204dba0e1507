// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A request as Mayfly sees it: views of bytes that the caller owns.

#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

namespace mayfly {

// A pointer and a count: a std::string_view or a std::span whose layout is known, so that Rust reads it in place
// (rust/bridge/src/request.rs). It converts from and to the standard type.
template <typename T> class View {
  public:
    using Standard = std::conditional_t<std::is_same_v<T, char>, std::string_view, std::span<const T>>;

    constexpr View() noexcept = default;
    template <std::convertible_to<Standard> Source> constexpr View(const Source &source) noexcept {
        const Standard standard = source;
        data_ = standard.data();
        size_ = standard.size();
    }

    constexpr operator Standard() const noexcept { return {data_, size_}; }

  private:
    const T *data_ = nullptr;
    std::size_t size_ = 0;
};

// A header field; the name is in lower case.
struct HeaderView {
    View<char> name;
    View<char> value;
};

// The client's end of the connection. Without one (version 0) the program learns nothing of its client.
struct ClientView {
    std::uint8_t address[16] = {}; // In network order: the first 4 bytes, or all.
    std::uint16_t port = 0;        // In the host's order.
    std::uint8_t version = 0;      // 4 or 6, the version of IP.
    std::uint8_t is_encrypted = 0; // Whether the connection is (HTTPS).
};

// A request. All that it points to must stay valid and unchanged during the call that it is given to.
struct RequestView {
    View<char> method; // As sent: "GET".
    View<char> path;   // As sent, still percent-encoded, without the query.
    View<char> query;  // Without the '?'.
    View<char> body;
    View<HeaderView> headers;
    ClientView client;
};

} // namespace mayfly
