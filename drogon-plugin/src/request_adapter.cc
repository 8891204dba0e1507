// SPDX-License-Identifier: MIT OR Apache-2.0

#include "request_adapter.hpp"

#include <string_view>

#include "mayfly/gate.hpp"

namespace mayfly {

namespace {

bool has_cookie(std::string_view cookies, std::string_view name) noexcept {
    for (auto at = cookies.find(name); at != std::string_view::npos; at = cookies.find(name, at + 1)) {
        const bool begins = at == 0 || cookies[at - 1] == ';' || cookies[at - 1] == ' ' || cookies[at - 1] == '\t';
        const auto after = cookies.substr(at + name.size());
        if (begins && after.starts_with('=')) {
            return true;
        }
    }
    return false;
}

} // namespace

RequestView RequestAdapter::view(const drogon::HttpRequest &request) {
    headers_.clear();
    cookie_.clear();
    for (const auto &[name, value] : request.headers()) {
        // Drogon keeps cookies in a table of their own; the gate has stored the field, unchanged, under another name.
        if (name.size() == cookie_field.size() && name == cookie_field) {
            cookie_ = value;
        } else {
            headers_.push_back({name, value});
        }
    }
    // An advice of the application may have added others.
    for (const auto &[name, value] : request.cookies()) {
        if (!has_cookie(cookie_, name)) {
            cookie_.append(cookie_.empty() ? "" : "; ").append(name).append("=").append(value);
        }
    }
    if (!cookie_.empty()) {
        headers_.push_back({"cookie", cookie_});
    }
    return {
        // Drogon shows a HEAD request to handlers as a GET one.
        .method = request.isHead() ? "HEAD" : request.methodString(),
        .path = request.getOriginalPath(),
        .query = request.query(),
        .body = request.body(),
        .headers = headers_,
    };
}

} // namespace mayfly
