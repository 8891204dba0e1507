// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Changes 64 pages of its memory in every request. Their share of a reset is then large enough to be
// measured: `mayfly bench` divides a reset by the pages that it restores.

#include "mayfly.h"

enum { PAGES = 64, PAGE_SIZE = 4096 };

static _Alignas(4096) volatile unsigned char memory[PAGES][PAGE_SIZE];

static void change(void) {
    for (int page = 0; page < PAGES; page++)
        memory[page][page]++;
}

int main(void) {
    change(); // The pages exist before the freeze: a request changes them, and adds none.
    for (;;) {
        mayfly_wait();
        change();
        mayfly_respond(200, "text/plain", "changed\n", 8);
    }
}
