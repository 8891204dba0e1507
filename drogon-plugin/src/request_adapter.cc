// SPDX-License-Identifier: MIT OR Apache-2.0

#include "request_adapter.hpp"

#include <cstdint>
#include <cstring>
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

ClientView client_of(const drogon::HttpRequest &request) noexcept {
    const auto &peer = request.peerAddr();
    ClientView client;
    if (peer.isUnspecified()) {
        return client; // A request that the application has made itself.
    }
    if (peer.isIpV6()) {
        std::memcpy(client.address, peer.ip6NetEndian(), sizeof client.address);
        client.version = 6;
    } else {
        const std::uint32_t address = peer.ipNetEndian();
        std::memcpy(client.address, &address, sizeof address);
        client.version = 4;
    }
    client.port = peer.toPort();
    client.is_encrypted = request.isOnSecureConnection() ? 1 : 0;
    return client;
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
        .client = client_of(request),
    };
}

} // namespace mayfly
