// SPDX-License-Identifier: MIT OR Apache-2.0
//
// libmayfly-fresh.so: for LD_PRELOAD under an unmodified server whose program has an OpenSSL inside (Node.js). All of
// OpenSSL's random bytes then come from getrandom(2), which is fresh in each request. It needs nothing of Mayfly, and
// works the same outside.

#define _GNU_SOURCE
#include <errno.h>
#include <sys/random.h>

#include "openssl.h"

static int bytes(unsigned char *buffer, int size) {
    while (size > 0) {
        ssize_t n = getrandom(buffer, (size_t)size, 0);
        if (n < 0 && errno != EINTR) return 0;
        if (n > 0) buffer += n, size -= (int)n;
    }
    return 1;
}

__attribute__((constructor)) static void start(void) { openssl_use(bytes); }
