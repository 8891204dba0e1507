// SPDX-License-Identifier: MIT OR Apache-2.0
// {{name}}: every request runs in a fresh copy of this program, frozen in its first mayfly::wait().

#include <string>

#include "mayfly.h"

int main() {
    // Initialise here: open files, fill tables. This part runs once.
    unsigned count = 0;

    for (;;) {
        const auto &request = mayfly::wait();
        // From here on a request starts; what it changes is gone before the next one.
        ++count;
        const auto page = "Hello from {{name}}: " + std::string(mayfly::path(request)) + ", request " +
                          std::to_string(count) + " of this copy\n";
        mayfly::respond(200, "text/plain", page);
    }
}
