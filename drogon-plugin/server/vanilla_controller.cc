// SPDX-License-Identifier: MIT OR Apache-2.0

#include "vanilla_controller.hpp"

#include <string>

namespace {

const std::string text = "\tthis is a very\n"
                         "\tlong string if I had the\n"
                         "\tenergy to type more and more ...\n";

} // namespace

void VanillaController::page(const drogon::HttpRequestPtr & /*request*/,
                             std::function<void(const drogon::HttpResponsePtr &)> &&callback) {
    const auto response = drogon::HttpResponse::newHttpResponse(drogon::k200OK, drogon::CT_NONE);
    response->setContentTypeString("text/plain");
    response->setBody(text);
    callback(response);
}
