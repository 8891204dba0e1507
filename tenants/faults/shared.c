// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Shared memory: used as it should be, and in every way that it should not.

#define _GNU_SOURCE
#include "faults.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

// What is where in it; the rest of the first page is for bodies.
struct shared {
    _Atomic uint64_t sum;
    struct mayfly_response response; // A response that lies there
    struct mayfly_header header;     // and all its parts.
    char name[8];
    char value[8];
};

static struct shared *shared;
static size_t shared_size;

// Whether there is any; says so if not.
static int open_shared(void) {
    shared = mayfly_shared(&shared_size);
    if (!shared) say("there is no shared memory\n");
    return shared != NULL;
}

static char *shared_end(void) { return (char *)shared + shared_size; }

static void where(struct act *act) {
    (void)act;
    if (open_shared()) say("%p %zu\n", (void *)shared, shared_size);
}

static void add(struct act *act) {
    uint64_t sum = 0;
    if (!open_shared()) return;
    for (uint64_t count = act->has_number ? act->number : 1; count; --count)
        sum = ++shared->sum;
    say("%llu\n", (unsigned long long)sum);
}

// A response with all its parts in shared memory.
static void answer_from(struct act *act) {
    if (!open_shared()) return;
    act->rings = 1;
    memcpy(shared->name, "x-shared", 8);
    memcpy(shared->value, "a value.", 8);
    shared->header = (struct mayfly_header){{shared->name, 8}, {shared->value, 8}};
    shared->response = (struct mayfly_response){200, 1, &shared->header, {shared->value, 8}};
    act->ring.argument = &shared->response;
}

// A body of NUMBER bytes there; one that begins there and ends a byte later than it does.
static void body_there(struct act *act) {
    if (!open_shared()) return;
    act->rings = 1;
    memset(shared + 1, 's', shared_size - sizeof *shared);
    act->response.body = (struct mayfly_bytes){(char *)(shared + 1), act->number};
}
static void body_past(struct act *act) {
    if (!open_shared()) return;
    act->rings = 1;
    act->response.body = (struct mayfly_bytes){shared_end() - 63, 64};
}

// Answers from there, while another request of shared-spoil changes every part of it back and forth.
static void race(struct act *act) {
    if (!open_shared()) return;
    act->rings = 1;
    shared->header.name.data = shared->name;
    shared->header.value.data = shared->value;
    shared->response.headers = &shared->header;
    shared->response.body.data = shared->value;
    act->ring.argument = &shared->response;
}
static void spoil(struct act *act) {
    if (!open_shared()) return;
    volatile struct shared *there = shared;
    for (uint64_t i = 0; i < act->number; ++i) {
        int good = i & 1;
        there->response.status = good ? 200 : 99;
        there->response.header_count = good ? 1 : UINT32_MAX;
        there->response.body.size = good ? 8 : (size_t)1 << 62;
        there->header.name.size = good ? 8 : (size_t)1 << 62;
        there->header.value.size = good ? 8 : 0;
        for (size_t at = 0; at < sizeof there->name; ++at) {
            there->name[at] = good ? 'x' : ':';
            there->value[at] = good ? 'v' : '\n';
        }
        // About as long as the host takes to read it, so that it sees either state, and often both.
        for (volatile int pause = 0; pause < 500; ++pause)
            ;
    }
}

// System calls with buffers there; the second of each pair has one that leaves it.
static void print_from(struct act *act) {
    (void)act;
    if (!open_shared()) return;
    memcpy(shared_end() - 7, "shared\n", 7);
    say("%lld", (long long)CALL(SYS_write, 1, shared_end() - 7, 7));
    say(" %lld\n", (long long)CALL(SYS_write, 1, shared_end() - 7, 8));
}
static void time_into(struct act *act) {
    (void)act;
    if (!open_shared()) return;
    say("%lld", (long long)CALL(SYS_clock_gettime, CLOCK_REALTIME, shared_end() - 16, 0));
    say(" %lld\n", (long long)CALL(SYS_clock_gettime, CLOCK_REALTIME, shared_end() - 8, 0));
}

// Every call that could take it away or change it, and then its use.
static void remap(struct act *act) {
    const uint64_t size = open_shared() ? shared_size : 0, read_exec = PROT_READ | PROT_EXEC;
    (void)act;
    if (!size) return;
    say("%lld", (long long)CALL(SYS_munmap, shared, size, 0));
    say(" %lld", (long long)CALL(SYS_mprotect, shared, size, read_exec));
    say(" %lld", (long long)call6(SYS_mmap, address_of(shared), size, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, UINT64_MAX, 0));
    say(" %lld", (long long)call6(SYS_mremap, address_of(shared), size, size, MREMAP_MAYMOVE, 0, 0));
    say(" %lld", (long long)CALL(SYS_madvise, shared, size, MADV_DONTNEED));
    say(" %llu\n", (unsigned long long)++shared->sum);
}

static void exec(struct act *act) {
    (void)act;
    if (!open_shared()) return;
    unsigned char *code = (unsigned char *)(shared + 1);
    *code = 0xc3; // ret
    ((void (*)(void))(uintptr_t)code)();
    say("it ran\n");
}

static void past(struct act *act) {
    (void)act;
    if (open_shared()) say("%d\n", *(volatile char *)shared_end());
}

const struct behaviour shared_behaviours[] = {
    {"shared", where},
    {"shared-add", add},
    {"shared-answer", answer_from},
    {"shared-body", body_there},
    {"shared-body-past", body_past},
    {"shared-race", race},
    {"shared-spoil", spoil},
    {"shared-print", print_from},
    {"shared-time", time_into},
    {"shared-remap", remap},
    {"shared-exec", exec},
    {"shared-past", past},
    {NULL, NULL},
};
