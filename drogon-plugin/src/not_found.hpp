// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's 404 page, for one request.

#pragma once

#include <drogon/HttpRequest.h>
#include <drogon/HttpResponse.h>

namespace mayfly {

// What Drogon answers where it has no route and no file: its own page, the application's, or what the application's
// error handler makes of it.
//
// Drogon keeps one response of that kind for each event loop, and writes into it whether the connection closes. Between
// that and the moment it is sent, which comes later where a former request of the connection is still in work, another
// request's answer may write the opposite: the connection then closes too early, and answers are lost. So this is a
// copy.
[[nodiscard]] drogon::HttpResponsePtr not_found(const drogon::HttpRequestPtr &request);

} // namespace mayfly
