// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the C and the C++ half of sdk_test share.

#ifndef SDK_TEST_H
#define SDK_TEST_H

#ifdef __cplusplus
extern "C" {
#endif
unsigned long test_getauxval(unsigned long type);
#ifdef __cplusplus
}
#endif
#define MAYFLY_GETAUXVAL test_getauxval
#include "mayfly.h"

#ifdef __cplusplus
extern "C" {
#endif

// How the doorbell was rung.
struct ring {
    uint64_t operation;
    const void *argument;
    uint64_t abi;
    struct mayfly_response response; // Copies, of a response
    struct mayfly_header header;     // and of its first header;
    struct mayfly_peer_call call;    // of a call.
};

void share(void *memory, size_t size);
void answer_with(size_t ring, int64_t answer);
size_t rung(void);
const struct ring *ring_at(size_t index);

extern int checks, failures;
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        ++checks;                                                                                                      \
        if (!(condition)) {                                                                                            \
            ++failures;                                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
        }                                                                                                              \
    } while (0)

void test_cxx(void);

#ifdef __cplusplus
}
#endif

#endif
