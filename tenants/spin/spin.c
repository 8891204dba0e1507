// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A noisy neighbour: uses up the CPU when it is asked to. `.../spin` never ends by itself, `.../spin?loops=N` after N
// rounds; everything else answers at once.

#include "mayfly.h"

static void spin(const char *query) {
    const char *loops = strncmp(query, "loops=", 6) == 0 ? query + 6 : NULL;
    volatile uint64_t left = loops ? strtoull(loops, NULL, 10) : 1;
    while (left)
        left -= loops ? 1 : 0;
}

int main(void) {
    for (;;) {
        const struct mayfly_request *request = mayfly_wait();
        const char *name = strrchr(request->path.data, '/');
        if (name && strcmp(name, "/spin") == 0) spin(request->query.data);
        mayfly_respond(200, "text/plain", "Hello World!", 12);
    }
}
