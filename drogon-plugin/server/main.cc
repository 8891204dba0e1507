// SPDX-License-Identifier: MIT OR Apache-2.0
//
// mayfly-server: a Drogon server with Mayfly's plugin, configured in Drogon's own JSON.

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <drogon/HttpAppFramework.h>

#include "mayfly/plugin.hpp"

namespace {

constexpr std::string_view usage =
    "usage: mayfly-server [CONFIG.json]\n"
    "\n"
    "Serves as CONFIG.json says, by default drogon-plugin/server/mayfly.json.\n"
    "The file is Drogon's; docs/plugin.md has the keys of its plugin mayfly::SandboxPlugin.\n";

// Ends the process without the destructors of Drogon's statics: when it is halfway through its start, they
// wait for event loops that never began.
[[noreturn]] void fail(const std::exception &error) {
    std::cerr << "mayfly-server: error: " << error.what() << std::endl;
    std::_Exit(EXIT_FAILURE);
}

// Drogon opens the file as it is: it would wait for the writer of a FIFO, and no signal would end that.
void require_file(const std::string &path) {
    std::error_code error;
    if (const auto status = std::filesystem::status(path, error); !std::filesystem::exists(status)) {
        throw std::runtime_error(path + ": " + (error ? error.message() : "no such file"));
    } else if (!std::filesystem::is_regular_file(status)) {
        throw std::runtime_error(path + ": expected a regular file");
    }
}

} // namespace

int main(int argc, char **argv) {
    const std::string_view argument = argc > 1 ? argv[1] : "drogon-plugin/server/mayfly.json";
    if (argc > 2 || argument == "--help" || argument == "-h") {
        std::cout << usage;
        return argc > 2 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    try {
        mayfly::require_plugin();
        require_file(std::string(argument));
        mayfly::set_default_handler();
        mayfly::end_on_signals();
        drogon::app().loadConfigFile(std::string(argument)).run();
    } catch (const std::exception &error) {
        fail(error);
    }
    return EXIT_SUCCESS;
}
