// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Time and memory without end, and, to compare, with one.

#define _GNU_SOURCE
#include "faults.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

// -- Time --

static void loop(struct act *act) {
    (void)act;
    __asm__ volatile("1: jmp 1b");
}
static void loop_syscall(struct act *act) {
    (void)act;
    for (;;)
        CALL(SYS_getpid, 0, 0, 0);
}
static void loop_mmap(struct act *act) {
    (void)act;
    for (;;) {
        volatile char *page = mmap(NULL, FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)page == MAP_FAILED) continue;
        *page = 1;
        munmap((void *)page, FAULTS_PAGE);
    }
}
static void loop_doorbell(struct act *act) {
    act->ring.operation = UINT64_MAX;
    for (;;)
        faults_ring(&act->ring);
}
static void loop_write(struct act *act) {
    (void)act;
    for (;;)
        CALL(SYS_write, 1, "loop\n", 5);
}
static void block_sleep(struct act *act) {
    const int64_t centuries[2] = {INT64_MAX, 999999999};
    say("%lld\n", (long long)CALL(SYS_nanosleep, centuries, 0, 0)), (void)act;
}
static void block_futex(struct act *act) {
    static uint32_t word;
    say("%lld\n", (long long)CALL(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0)), (void)act;
}
static void block_pause(struct act *act) { say("%lld\n", (long long)CALL(SYS_pause, 0, 0, 0)), (void)act; }
static void block_poll(struct act *act) { say("%lld\n", (long long)CALL(SYS_poll, 0, 0, -1)), (void)act; }

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}
static void spin(struct act *act) {
    uint64_t start = monotonic_ns(), end = start + act->number * UINT64_C(1000000);
    while (monotonic_ns() < end)
        for (volatile int i = 0; i < 10000; ++i) {
        }
    say("%llu\n", (unsigned long long)((monotonic_ns() - start) / 1000000));
}

// Answers what takes NUMBER steps to compute, without an exit of the machine.
static void work(struct act *act) {
    uint64_t value = 1;
    for (uint64_t i = 0; i < act->number; ++i) {
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        __asm__ volatile("" : "+r"(value)); // Step by step.
    }
    say("%llu\n", (unsigned long long)value);
}
// The same with a system call, a wrong ring of the doorbell and a page fault in each step.
static void work_exits(struct act *act) {
    uint64_t value = 1;
    struct ring ring = {UINT64_MAX, NULL, MAYFLY_ABI, host->doorbell, 0};
    for (uint64_t i = 0; i < act->number; ++i) {
        volatile uint64_t *page = mmap(NULL, FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)page == MAP_FAILED) continue;
        *page = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        if (faults_ring(&ring) == -ENOSYS) value = *page;
        munmap((void *)page, FAULTS_PAGE);
    }
    say("%llu\n", (unsigned long long)value);
}

// -- Memory --

static void alloc_mmap(struct act *act) {
    for (act->number = 0;; ++act->number) {
        volatile char *block =
            mmap(NULL, 256 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)block == MAP_FAILED) break;
        for (size_t i = 0; i < 256; ++i)
            block[i * FAULTS_PAGE] = 1;
    }
    say("%llu MiB\n", (unsigned long long)act->number);
}
static void alloc_malloc(struct act *act) {
    for (act->number = 0;; ++act->number) {
        volatile char *block = malloc(1000);
        if (!block) break;
        for (size_t i = 0; i < 1000; ++i)
            block[i] = 1;
    }
    say("%llu kB\n", (unsigned long long)act->number);
}
static void alloc_brk(struct act *act) {
    uint64_t end = ((uint64_t)CALL(SYS_brk, 0, 0, 0) + FAULTS_PAGE - 1) & ~(FAULTS_PAGE - 1);
    for (act->number = 0; (uint64_t)CALL(SYS_brk, end + FAULTS_PAGE, 0, 0) == end + FAULTS_PAGE;
         ++act->number, end += FAULTS_PAGE)
        *(volatile char *)at(end) = 1;
    say("%llu pages\n", (unsigned long long)act->number);
}
static void alloc_maps(struct act *act) {
    // Neighbours differ in protection, so that they cannot merge.
    for (act->number = 0; act->number < 10000000; ++act->number) {
        void *page =
            mmap(NULL, FAULTS_PAGE, act->number % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) break;
    }
    say("%llu\n", (unsigned long long)act->number);
}
static void alloc_descriptors(struct act *act) {
    int64_t last = 0;
    for (act->number = 0; last >= 0; ++act->number)
        last = CALL(SYS_dup, 1, 0, 0);
    say("%llu, then %lld\n", (unsigned long long)act->number - 1, (long long)last);
}
static void alloc_thread(struct act *act) {
    const uint64_t arguments[8] = {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD};
    (void)act;
    say("%lld %lld, fork %lld\n", (long long)CALL(SYS_clone3, arguments, sizeof arguments, 0),
        (long long)CALL(SYS_clone, arguments[0], 0, 0), (long long)CALL(SYS_clone, SIGCHLD, 0, 0));
}
static void alloc_terabyte(struct act *act) {
    (void)act;
    void *block = mmap(NULL, (size_t)1 << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    say("%d\n", block == MAP_FAILED ? errno : 0);
}
static void touch_bytes(struct act *act, uint64_t size) {
    volatile char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((void *)block == MAP_FAILED) {
        say("error %d\n", errno);
        return;
    }
    for (uint64_t i = 0; i < size; i += FAULTS_PAGE)
        block[i] = 1;
    say("%llu\n", (unsigned long long)act->number);
}
static void touch(struct act *act) { touch_bytes(act, act->number << 20); }
static void touch_pages(struct act *act) { touch_bytes(act, act->number * FAULTS_PAGE); }
static void touch_hold(struct act *act) {
    const int64_t time[2] = {0, 300 * 1000 * 1000};
    touch(act);
    CALL(SYS_nanosleep, time, 0, 0);
}
static void region(struct act *act) {
    static volatile char *block;
    static uint64_t size;
    if (block == NULL) {
        size = act->number << 20;
        block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)block == MAP_FAILED) exit(7);
    }
    for (uint64_t i = 0; i < size; i += FAULTS_PAGE)
        block[i]++;
    say("%llu\n", (unsigned long long)(size >> 20));
}
static void write_file(struct act *act) {
    static char part[64 << 10];
    int64_t fd = CALL(SYS_open, "/tmp/large", 01 | 0100 /* O_WRONLY | O_CREAT */, 0600);
    uint64_t written = 0;
    while (written < act->number << 20) {
        int64_t size = CALL(SYS_write, fd, part, sizeof part);
        if (size <= 0) break;
        written += (uint64_t)size;
    }
    say("%llu\n", (unsigned long long)written);
}
static void touch_apart(struct act *act) {
    static volatile char *region;
    enum { APART = 2 << 20 };
    if (region == NULL)
        region =
            mmap(NULL, (size_t)64 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (uint64_t i = 0; i < act->number; i++)
        region[i * APART] = 1;
    say("%llu\n", (unsigned long long)act->number);
}

// clang-format off: a table for the eye.
const struct behaviour endless_behaviours[] = {
    {"loop", loop},
    {"loop-syscall", loop_syscall},
    {"loop-mmap", loop_mmap},
    {"loop-doorbell", loop_doorbell},
    {"loop-write", loop_write},
    {"sleep", block_sleep},
    {"futex", block_futex},
    {"pause", block_pause},
    {"poll", block_poll},
    {"spin", spin},
    {"work", work},
    {"work-exits", work_exits},
    {"alloc-mmap", alloc_mmap},
    {"alloc-malloc", alloc_malloc},
    {"alloc-brk", alloc_brk},
    {"alloc-maps", alloc_maps},
    {"alloc-descriptors", alloc_descriptors},
    {"alloc-thread", alloc_thread},
    {"alloc-terabyte", alloc_terabyte},
    {"touch", touch},
    {"touch-pages", touch_pages},
    {"touch-apart", touch_apart},
    {"touch-hold", touch_hold},
    {"region", region},
    {"write-file", write_file},
    {NULL, NULL},
};
// clang-format on
