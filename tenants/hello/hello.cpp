// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The smallest tenant.

#include "mayfly.h"

int main() {
    for (;;) {
        mayfly::wait();
        mayfly::respond(200, "text/plain", "Hello World!");
    }
}
