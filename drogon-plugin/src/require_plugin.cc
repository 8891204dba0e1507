// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Apart from plugin.cc, and without a reference to what it defines: it is to notice that the linker left that out.

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
