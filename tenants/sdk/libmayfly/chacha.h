// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The block function of ChaCha20 (RFC 8439, section 2.3): without the key, its bytes cannot be told from random ones.

#ifndef MAYFLY_CHACHA_H
#define MAYFLY_CHACHA_H

#include <stdint.h>
#include <string.h>

static inline uint32_t chacha_rotate(uint32_t value, int by) { return value << by | value >> (32 - by); }

static inline void chacha_quarter(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
    *a += *b, *d = chacha_rotate(*d ^ *a, 16);
    *c += *d, *b = chacha_rotate(*b ^ *c, 12);
    *a += *b, *d = chacha_rotate(*d ^ *a, 8);
    *c += *d, *b = chacha_rotate(*b ^ *c, 7);
}

static inline void chacha_block(const uint8_t key[32], uint32_t counter, const uint8_t nonce[12], uint8_t to[64]) {
    uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}; // "expand 32-byte k"
    memcpy(start + 4, key, 32);
    start[12] = counter;
    memcpy(start + 13, nonce, 12);
    uint32_t x[16];
    memcpy(x, start, sizeof x);
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 4; ++i)
            chacha_quarter(x + i, x + 4 + i, x + 8 + i, x + 12 + i);
        for (int i = 0; i < 4; ++i)
            chacha_quarter(x + i, x + 4 + (i + 1) % 4, x + 8 + (i + 2) % 4, x + 12 + (i + 3) % 4);
    }
    for (int i = 0; i < 16; ++i)
        x[i] += start[i];
    memcpy(to, x, sizeof x);
}

#endif
