// SPDX-License-Identifier: MIT OR Apache-2.0
// Prints the results of calls in a form that does not depend on addresses.
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL

// Prints the call's source text, and its result or error.
#define SAY(call)                                                                                                      \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        long say_result = (long)(call);                                                                                \
        if (say_result == -1 && errno)                                                                                 \
            printf("%s: error %s\n", #call, strerrorname(errno));                                                      \
        else                                                                                                           \
            printf("%s: %ld\n", #call, say_result);                                                                    \
    } while (0)

// Prints the call and whether it succeeded, for results that differ from run to run.
#define SAY_OK(call)                                                                                                   \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        long say_result = (long)(call);                                                                                \
        if (say_result == -1 && errno)                                                                                 \
            printf("%s: error %s\n", #call, strerrorname(errno));                                                      \
        else                                                                                                           \
            printf("%s: fine\n", #call);                                                                               \
    } while (0)

static inline const char *strerrorname(int error) {
    static char text[16];
    snprintf(text, sizeof text, "%d", error);
    return text;
}

// An address that no program may use, invalid in three ways.
#define UNMAPPED ((void *)0x10)
#define KERNEL ((void *)0xffff800000000000UL)
#define NONCANONICAL ((void *)0x8000000000000000UL)
