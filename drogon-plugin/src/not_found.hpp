// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's 404 page, for one request.

#pragma once

#include <drogon/HttpRequest.h>
#include <drogon/HttpResponse.h>

namespace mayfly {

// Drogon's answer if it has no route and no file: its own page, the application's, or the result of the application's
// error handler.
//
// Drogon keeps one such response for each event loop, and writes into it whether the connection closes. It is sent
// later, if an earlier request of the connection is still in work. Until then the answer to another request may write
// the opposite: the connection then closes too early, and answers are lost. So this returns a copy.
[[nodiscard]] drogon::HttpResponsePtr not_found(const drogon::HttpRequestPtr &request);

} // namespace mayfly
