// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A server that leaves the plugin to Drogon's configuration, as most do: nothing here refers to its class.

#include <cstdlib>
#include <exception>
#include <iostream>

#include <drogon/HttpAppFramework.h>
#include <mayfly/plugin.hpp>

int main() {
    try {
        mayfly::require_plugin();
        drogon::app().run();
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        std::_Exit(EXIT_FAILURE);
    }
    return EXIT_SUCCESS;
}
