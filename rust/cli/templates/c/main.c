// SPDX-License-Identifier: MIT OR Apache-2.0
// {{name}}: every request runs in a fresh copy of this program, frozen in its first mayfly_wait().

#include <stdio.h>

#include "mayfly.h"

int main(void) {
    // Initialise here: open files, fill tables. This part runs once.
    unsigned count = 0;

    for (;;) {
        const struct mayfly_request *request = mayfly_wait();
        // From here on a request starts; what it changes is gone before the next one.
        count++;
        char page[512];
        int size = snprintf(page, sizeof page, "Hello from {{name}}: %.*s, request %u of this copy\n",
                            (int)(request->path.size < 256 ? request->path.size : 256), request->path.data, count);
        mayfly_respond(200, "text/plain", page, (size_t)size);
    }
}
