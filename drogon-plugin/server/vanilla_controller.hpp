// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The baseline of comparisons: a page that Drogon answers by itself.

#pragma once

#include <functional>

#include <drogon/HttpController.h>

// Answers "/" with the page of tenants/pythran. So that only the sandbox makes a difference, the route is of the same
// kind as the tenants', and the same calls build a response with the same headers.
class VanillaController final : public drogon::HttpController<VanillaController> {
  public:
    METHOD_LIST_BEGIN
    ADD_METHOD_TO(VanillaController::page, "/", drogon::Get);
    METHOD_LIST_END

    void page(const drogon::HttpRequestPtr &request, std::function<void(const drogon::HttpResponsePtr &)> &&callback);
};
