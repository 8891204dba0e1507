// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A request as Mayfly sees it: views of bytes that somebody else owns.

#pragma once

#include <span>
#include <string_view>

namespace mayfly {

// A header field; the name is in lower case.
struct HeaderView {
    std::string_view name;
    std::string_view value;
};

// A request. All that it points to must stay valid and unchanged during the call that it is given to.
struct RequestView {
    std::string_view method; // As sent: "GET".
    std::string_view path;   // As sent, still percent-encoded, without the query.
    std::string_view query;  // Without the '?'.
    std::string_view body;
    std::span<const HeaderView> headers;
};

} // namespace mayfly
