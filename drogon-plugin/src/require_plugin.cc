// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Separate from plugin.cc, and without a reference to what that defines: it detects that the linker left plugin.cc out.

#include <algorithm>
#include <string_view>

#include <drogon/DrClassMap.h>

#include "mayfly/plugin.hpp"
#include "mayfly/server.hpp"

namespace mayfly {

void require_plugin() {
    constexpr std::string_view name = "mayfly::SandboxPlugin";
    const auto classes = drogon::DrClassMap::getAllClassName();
    if (std::ranges::find(classes, name) == classes.end()) {
        throw Error(
            "the linker left mayfly::SandboxPlugin out of this executable: link the CMake target Mayfly::Plugin, "
            "or pass -Wl,--undefined=mayfly_plugin_linked before libmayfly_plugin.a");
    }
}

} // namespace mayfly
