// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Drogon's requests as Mayfly's.

#pragma once

#include <string>
#include <vector>

#include <drogon/HttpRequest.h>

#include "mayfly/request.hpp"

namespace mayfly {

// Makes views of Drogon's requests. It reuses its buffers, so that nothing is allocated in the steady state.
class RequestAdapter {
  public:
    // The view is valid while `request` is, and until the next call.
    [[nodiscard]] RequestView view(const drogon::HttpRequest &request);

  private:
    std::vector<HeaderView> headers_;
    std::string cookie_;
};

} // namespace mayfly
