// SPDX-License-Identifier: MIT OR Apache-2.0
//
// OpenSSL keeps the state of its generator in memory, and only looks for a fork or a long time before it goes on from
// there: two requests that start from one snapshot would draw the same keys. This gives the OpenSSL of the process, if
// it has one, another source.

#ifndef MAYFLY_OPENSSL_H
#define MAYFLY_OPENSSL_H

#include <dlfcn.h>
#include <stddef.h>

// A test may have OpenSSL left alone.
#ifndef MAYFLY_OPENSSL_SETTER
#define MAYFLY_OPENSSL_SETTER "RAND_set_rand_method"
#endif

// As of RAND_set_rand_method(3), which OpenSSL 1.0 to 3 have.
struct openssl_rand_method {
    int (*seed)(const void *buffer, int size);
    int (*bytes)(unsigned char *buffer, int size);
    void (*cleanup)(void);
    int (*add)(const void *buffer, int size, double entropy);
    int (*pseudo_bytes)(unsigned char *buffer, int size);
    int (*status)(void);
};

static int openssl_seed(const void *buffer, int size) {
    (void)buffer, (void)size;
    return 1;
}

static int openssl_add(const void *buffer, int size, double entropy) {
    (void)buffer, (void)size, (void)entropy;
    return 1;
}

static int openssl_status(void) { return 1; }

// Makes `bytes`, which returns 1 on success, the source of OpenSSL's random bytes. Returns 1 if there is an OpenSSL
// with symbols that the whole process sees, as in Node.js.
static int openssl_use(int (*bytes)(unsigned char *buffer, int size)) {
    static struct openssl_rand_method method;
    union {
        void *object;
        int (*function)(const struct openssl_rand_method *method);
    } set = {dlsym(RTLD_DEFAULT, MAYFLY_OPENSSL_SETTER)};
    if (!set.object) return 0;
    method = (struct openssl_rand_method){openssl_seed, bytes, NULL, openssl_add, bytes, openssl_status};
    return set.function(&method) == 1;
}

#endif
