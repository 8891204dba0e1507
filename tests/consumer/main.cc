// SPDX-License-Identifier: MIT OR Apache-2.0

#include <cstdlib>
#include <exception>
#include <iostream>

#include <drogon/HttpAppFramework.h>
#include <mayfly/plugin.hpp>

int main(int /*argc*/, char **argv) {
    try {
        mayfly::require_plugin();
        drogon::app().loadConfigFile(argv[1]).run();
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        std::_Exit(EXIT_FAILURE);
    }
    return EXIT_SUCCESS;
}
