// SPDX-License-Identifier: MIT OR Apache-2.0
//
// mayfly-server: a Drogon server with Mayfly's plugin, configured in Drogon's own JSON.

#include <cstdlib>
#include <exception>
#include <iostream>
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
[[noreturn]] void fail(const std::exception &error, std::string_view advice = {}) {
    std::cerr << "mayfly-server: error: " << error.what() << advice << std::endl;
    std::_Exit(EXIT_FAILURE);
}

} // namespace

int main(int argc, char **argv) {
    mayfly::open_standard_streams();
    const std::string_view argument = argc > 1 ? argv[1] : "drogon-plugin/server/mayfly.json";
    if (argc > 2 || argument == "--help" || argument == "-h") {
        std::cout << usage;
        return argc > 2 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    try {
        mayfly::require_plugin();
        mayfly::set_default_handler();
        mayfly::end_on_signals();
        drogon::app().loadConfigFile(std::string(argument));
        mayfly::require_limits();
        drogon::app().run();
    } catch (const std::system_error &error) {
        fail(error, error.code() == std::errc::resource_unavailable_try_again
                        ? ": the system gives no more threads: raise the limit on them (ulimit -u; systemd: TasksMax, "
                          "LimitNPROC)"
                        : "");
    } catch (const std::exception &error) {
        fail(error);
    }
    return EXIT_SUCCESS;
}
