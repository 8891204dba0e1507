// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The mailbox and the calls that libmayfly.h describes, on mayfly.h.

#define _GNU_SOURCE
#include "libmayfly.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "chacha.h"
#include "mayfly.h"
#include "openssl.h"

// A host's limit on headers is far below; one above it is cut.
#define HEADERS_MAX 256

static uint8_t *mailbox;
static size_t capacity;
static const struct mayfly_request *current; // NULL before the first one.
static uint32_t blocks;                      // of random bytes that the current request has used
static pthread_t owner;                      // the thread that opened the mailbox

static void put_u32(size_t at, size_t value) {
    uint32_t word = (uint32_t)value;
    memcpy(mailbox + at, &word, sizeof word);
}

static uint32_t get_u32(size_t at) {
    uint32_t word;
    memcpy(&word, mailbox + at, sizeof word);
    return word;
}

// Appends to the mailbox; all of a request fits, see mayfly_ffi_open().
static size_t put_bytes(size_t at, struct mayfly_bytes bytes) {
    if (bytes.size) memcpy(mailbox + at, bytes.data, bytes.size);
    return at + bytes.size;
}

static void deliver(const struct mayfly_request *request) {
    current = request;
    blocks = 0;
    memcpy(mailbox + MAYFLY_FFI_REQUEST, &request->id,
           24); // id, unix_ns and monotonic_ns lie as they are laid out here.
    put_u32(48, request->method.size);
    put_u32(52, request->path.size);
    put_u32(56, request->query.size);
    put_u32(60, request->body.size);
    put_u32(64, request->header_count);
    put_u32(MAYFLY_FFI_GENERATOR, 0);
    size_t sizes = MAYFLY_FFI_HEADERS;
    size_t at = sizes + 8 * (size_t)request->header_count;
    at = put_bytes(at, request->method);
    at = put_bytes(at, request->path);
    at = put_bytes(at, request->query);
    for (uint32_t i = 0; i < request->header_count; ++i, sizes += 8) {
        put_u32(sizes, request->headers[i].name.size);
        put_u32(sizes + 4, request->headers[i].value.size);
        at = put_bytes(at, request->headers[i].name);
        at = put_bytes(at, request->headers[i].value);
    }
    at = put_bytes(at, request->body);
    put_u32(MAYFLY_FFI_REQUEST_SIZE, at);
}

static int from_system(uint8_t *to, size_t size) {
    while (size) {
        ssize_t n = getrandom(to, size, 0);
        if (n < 0 && errno != EINTR) return -errno;
        if (n > 0) to += n, size -= (size_t)n;
    }
    return 0;
}

int mayfly_ffi_random(void *to, size_t size) {
    if (!current || blocks > UINT32_MAX - 1 - size / 64) return from_system((uint8_t *)to, size);
    // The key is used for nothing else: programs behind this library do not see the entropy itself.
    static const uint8_t nonce[12] = "mayfly ffi";
    for (uint8_t *next = (uint8_t *)to; size;) {
        uint8_t block[64];
        size_t part = size < sizeof block ? size : sizeof block;
        chacha_block(current->entropy, blocks++, nonce, block);
        memcpy(next, block, part);
        next += part;
        size -= part;
    }
    return 0;
}

// OpenSSL's threads, which come here too, have no part in the mailbox.
static int openssl_bytes(unsigned char *buffer, int size) {
    if (size < 0) return 0;
    if (!pthread_equal(pthread_self(), owner)) return from_system(buffer, (size_t)size) == 0;
    return mayfly_ffi_random(buffer, (size_t)size) == 0;
}

void *mayfly_ffi_open(void) {
    if (mailbox) return mailbox;
    const struct mayfly_page *host = mayfly_host();
    if (!host || host->magic != MAYFLY_MAGIC) return NULL;
    // A header has at least one byte, and its sizes take 8 more; a response's sizes are few. Only what is touched is
    // memory.
    size_t size = 9 * host->request_max + host->response_max + (1 << 20);
    if (size > UINT32_MAX / 2) return NULL;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    mailbox = (uint8_t *)memory;
    capacity = size;
    put_u32(MAYFLY_FFI_REQUEST_SIZE, MAYFLY_FFI_HEADERS);
    put_u32(MAYFLY_FFI_CAPACITY, capacity);
    owner = pthread_self();
    openssl_use(openssl_bytes);
    return mailbox;
}

static uint64_t clock_us(clockid_t clock) {
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

// Processor time of the other threads.
static uint64_t others_us(void) { return clock_us(CLOCK_PROCESS_CPUTIME_ID) - clock_us(CLOCK_THREAD_CPUTIME_ID); }

uint32_t mayfly_ffi_rest(void) {
    uint64_t end = clock_us(CLOCK_MONOTONIC) + 1000000;
    uint64_t before = others_us(), used = before, last;
    do {
        last = used;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        used = others_us();
        // The two clocks are not read at the same time.
    } while (used > last + 20 && clock_us(CLOCK_MONOTONIC) < end);
    return used > before ? (uint32_t)(used - before) : 0;
}

void mayfly_ffi_wait(void) {
    if (!mayfly_ffi_open() && mayfly_host()) {
        fputs("mayfly: there is no memory for the mailbox\n", stderr);
        exit(1);
    }
    deliver(mayfly_wait()); // Outside Mayfly, that ends the process.
}

// One header of the response: its sizes lie at `sizes`, its bytes at `*at`. Returns 0 if they are not in the mailbox.
static int take_header(struct mayfly_header *header, size_t sizes, size_t *at) {
    header->name.size = get_u32(sizes);
    header->value.size = get_u32(sizes + 4);
    if (header->name.size > capacity - *at || header->value.size > capacity - *at - header->name.size) return 0;
    header->name.data = (const char *)mailbox + *at;
    header->value.data = header->name.data + header->name.size;
    *at += header->name.size + header->value.size;
    return 1;
}

int mayfly_ffi_exchange(void) {
    if (!current) return -EPROTO;
    struct mayfly_header headers[HEADERS_MAX];
    uint32_t count = get_u32(MAYFLY_FFI_HEADER_COUNT);
    size_t sizes = get_u32(MAYFLY_FFI_RESPONSE);
    if (count > HEADERS_MAX || sizes > capacity || 8 * (size_t)count > capacity - sizes) return -EINVAL;
    size_t at = sizes + 8 * (size_t)count;
    for (uint32_t i = 0; i < count; ++i)
        if (!take_header(&headers[i], sizes + 8 * (size_t)i, &at)) return -EINVAL;
    size_t body = get_u32(MAYFLY_FFI_BODY_SIZE);
    if (body > capacity - at) return -EINVAL;
    struct mayfly_response response = {get_u32(MAYFLY_FFI_STATUS), count, headers, {(const char *)mailbox + at, body}};
    int error = mayfly_respond_with(&response);
    deliver(mayfly_wait());
    return error;
}
