// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Counts its requests in ordinary memory. What the number means is the configuration's choice:
//
//     "ephemeral": true     always 1: each request starts from the frozen program
//     "reset_every": 100    1 to 100, and again
//     "ephemeral": false    the worker's visits; a new version of the program takes the number over

#include "mayfly.h"

// What a version of the program hands to the next one, which may see it differently: the number in front says how.
enum { VERSION = 1 };
static struct state {
    uint64_t version;
    uint64_t visits;
} state = {VERSION, 0};

static struct mayfly_bytes save(void) {
    const struct mayfly_bytes saved = {(const char *)&state, sizeof state};
    return saved;
}

static int restore(struct mayfly_bytes saved) {
    struct state old;
    if (saved.size != sizeof old) return -1;
    memcpy(&old, saved.data, sizeof old);
    if (old.version != VERSION) return -1;
    state = old;
    return 0;
}

int main(void) {
    mayfly_on_handover(save, restore); // Without it a new version starts from 0, and that is all.
    for (;;) {
        mayfly_wait();
        char page[32];
        int size = snprintf(page, sizeof page, "visit %llu\n", (unsigned long long)++state.visits);
        mayfly_respond(200, "text/plain", page, (size_t)size);
    }
}
