// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the sandbox is compared with: a page that Drogon answers by itself.

#pragma once

#include <functional>

#include <drogon/HttpController.h>

// Answers "/" with the page of tenants/pythran. So that the comparison is of the sandbox and nothing else, the
// route is of the same kind as the tenants' and the response has the same headers and is built by the same calls.
class VanillaController final : public drogon::HttpController<VanillaController> {
  public:
    METHOD_LIST_BEGIN
    ADD_METHOD_TO(VanillaController::page, "/", drogon::Get);
    METHOD_LIST_END

    void page(const drogon::HttpRequestPtr &request, std::function<void(const drogon::HttpResponsePtr &)> &&callback);
};
