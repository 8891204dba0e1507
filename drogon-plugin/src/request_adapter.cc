// SPDX-License-Identifier: MIT OR Apache-2.0

#include "request_adapter.hpp"

namespace mayfly {

RequestView RequestAdapter::view(const drogon::HttpRequest &request) {
    headers_.clear();
    for (const auto &[name, value] : request.headers()) {
        headers_.push_back({name, value});
    }
    // Drogon keeps cookies apart from the headers; the program gets the header that they came in.
    if (const auto &cookies = request.cookies(); !cookies.empty()) {
        cookie_.clear();
        for (const auto &[name, value] : cookies) {
            cookie_.append(cookie_.empty() ? "" : "; ").append(name).append("=").append(value);
        }
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
