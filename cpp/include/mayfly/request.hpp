// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A request as Mayfly sees it: views of bytes that the caller owns.

#pragma once

#include <concepts>
#include <cstddef>
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

// A request. All that it points to must stay valid and unchanged during the call that it is given to.
struct RequestView {
    View<char> method; // As sent: "GET".
    View<char> path;   // As sent, still percent-encoded, without the query.
    View<char> query;  // Without the '?'.
    View<char> body;
    View<HeaderView> headers;
};

} // namespace mayfly
