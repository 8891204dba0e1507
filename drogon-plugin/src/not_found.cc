// SPDX-License-Identifier: MIT OR Apache-2.0

#include "not_found.hpp"

#include <string>

namespace mayfly {

drogon::HttpResponsePtr not_found(const drogon::HttpRequestPtr &request) {
    auto kept = drogon::HttpResponse::newNotFoundResponse(request);
    if (kept->streamCallback() || kept->asyncStreamCallback() || !kept->sendfileName().empty()) {
        return kept; // The application's error handler made it for this request, and it cannot be copied.
    }
    auto own = drogon::HttpResponse::newHttpResponse(kept->statusCode(), drogon::CT_NONE);
    own->setContentTypeString(kept->contentTypeString());
    own->setBody(std::string(kept->body()));
    for (const auto &[name, value] : kept->headers()) {
        own->addHeader(name, value);
    }
    for (const auto &[name, cookie] : kept->cookies()) {
        own->addCookie(cookie);
    }
    return own;
}

} // namespace mayfly
