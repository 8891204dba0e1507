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

#include <fcntl.h>
#include <unistd.h>

#include <drogon/HttpAppFramework.h>

#include "mayfly/plugin.hpp"

namespace {

constexpr std::string_view usage =
    "usage: mayfly-server [CONFIG.json]\n"
    "\n"
    "Serves as CONFIG.json says, by default drogon-plugin/server/mayfly.json.\n"
    "The file is Drogon's; docs/plugin.md has the keys of its plugin mayfly::SandboxPlugin.\n";

// Ends the process without the destructors of Drogon's statics: in the middle of its start, they would wait for event
// loops that never began.
[[noreturn]] void fail(const std::exception &error, std::string_view advice = {}) {
    std::cerr << "mayfly-server: error: " << error.what() << advice << std::endl;
    std::_Exit(EXIT_FAILURE);
}

// Opens /dev/null as standard input, output and error if these are closed. Otherwise the next file that is opened would
// get one of their numbers, and the log would be written into it.
void open_standard_streams(int /*argc*/, char ** /*argv*/, char ** /*environment*/) {
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
        if (fcntl(stream, F_GETFD) < 0) {
            // This is the lowest free number.
            (void)open("/dev/null", stream == STDIN_FILENO ? O_RDONLY : O_WRONLY);
        }
    }
}

// Runs before all constructors, including those of shared libraries: Drogon's open descriptors.
[[gnu::section(".preinit_array"), gnu::used]] void (*const first)(int, char **, char **) = open_standard_streams;

// Drogon opens the file whatever it is: with a FIFO it would wait for a writer, and no signal would end that.
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
        drogon::app().loadConfigFile(std::string(argument));
        mayfly::require_limits();
        drogon::app().run();
    } catch (const std::system_error &error) {
        fail(error, error.code() == std::errc::resource_unavailable_try_again
                        ? ": no more threads can be created: raise their limit (ulimit -u; systemd: TasksMax, "
                          "LimitNPROC)"
                        : "");
    } catch (const std::exception &error) {
        fail(error);
    }
    return EXIT_SUCCESS;
}
