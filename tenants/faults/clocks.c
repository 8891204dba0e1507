// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Clocks by the C library, which reads them in the vDSO where there is one.

#define _GNU_SOURCE
#include "faults.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

static const clockid_t clocks[] = {CLOCK_REALTIME,        CLOCK_MONOTONIC,        CLOCK_MONOTONIC_RAW,
                                   CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
#define CLOCK_COUNT (sizeof clocks / sizeof *clocks)

static int64_t nanoseconds(const struct timespec *time) {
    return (int64_t)time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
}
static int64_t library(clockid_t clock) {
    struct timespec now = {0, 0};
    clock_gettime(clock, &now);
    return nanoseconds(&now);
}
static int64_t kernel(clockid_t clock) {
    struct timespec now = {0, 0};
    CALL(SYS_clock_gettime, clock, &now, 0);
    return nanoseconds(&now);
}

// Each clock, in nanoseconds.
static void clocks_now(struct act *act) {
    (void)act;
    for (size_t i = 0; i < CLOCK_COUNT; ++i)
        say("%d %lld\n", (int)clocks[i], (long long)library(clocks[i]));
    struct timeval now;
    gettimeofday(&now, NULL);
    say("gettimeofday %lld\n", (long long)now.tv_sec * 1000000 + (long long)now.tv_usec);
    say("time %lld\n", (long long)time(NULL));
    unsigned cpu = 7, node = 7;
    getcpu(&cpu, &node);
    say("getcpu %u %u\n", cpu, node);
}

// Reads clocks for NUMBER milliseconds: how often, how often one went back, and how far the library's is from the
// system call's then, outside of the time that the latter takes.
static void clocks_run(struct act *act) {
    int64_t last[CLOCK_COUNT], back = 0, count = 0;
    for (size_t i = 0; i < CLOCK_COUNT; ++i)
        last[i] = library(clocks[i]);
    int64_t end = library(CLOCK_MONOTONIC) + (int64_t)act->number * INT64_C(1000000);
    for (int64_t now = 0; now < end; ++count) {
        for (size_t i = 0; i < CLOCK_COUNT; ++i) {
            now = library(clocks[i]);
            if (now < last[i]) ++back;
            last[i] = now;
        }
        now = library(CLOCK_MONOTONIC);
    }
    int64_t before = library(CLOCK_MONOTONIC), called = kernel(CLOCK_MONOTONIC), after = library(CLOCK_MONOTONIC);
    int64_t off = before > called ? before - called : called > after ? called - after : 0;
    if (after < before) ++back;
    say("%lld %lld %lld\n", (long long)count, (long long)back, (long long)off);
}

// NUMBER times each clock between two system calls: the furthest that it was from the time in between.
static void clocks_agree(struct act *act) {
    for (size_t i = 0; i < CLOCK_COUNT; ++i) {
        int64_t furthest = 0;
        for (uint64_t round = 0; round < act->number; ++round) {
            int64_t before = kernel(clocks[i]), read = library(clocks[i]), after = kernel(clocks[i]);
            int64_t off = read < before ? before - read : read > after ? read - after : 0;
            if (off > furthest) furthest = off;
        }
        say("%d %lld\n", (int)clocks[i], (long long)furthest);
    }
}

// Works until it has used NUMBER milliseconds of CPU time; when it began and ended, by that clock.
static void clocks_cpu(struct act *act) {
    int64_t began = library(CLOCK_PROCESS_CPUTIME_ID), now = began;
    while (now < began + (int64_t)act->number * INT64_C(1000000))
        now = library(CLOCK_PROCESS_CPUTIME_ID);
    say("%lld %lld\n", (long long)began, (long long)now);
}

static volatile sig_atomic_t ticks;
static void tick(int number) { ticks += number == SIGPROF; }

// Spins without a call until NUMBER signals of a profiler's timer have come; what was left of an earlier request:
// handler, timer, signals.
static void clocks_profile(struct act *act) {
    struct sigaction action = {.sa_handler = tick}, before;
    struct itimerval every = {{0, 1000}, {0, 1000}}, left;
    int earlier = ticks;
    sigaction(SIGPROF, &action, &before);
    getitimer(ITIMER_PROF, &left);
    setitimer(ITIMER_PROF, &every, NULL);
    while (ticks < (sig_atomic_t)act->number)
        ;
    say("%d %lld %d\n", before.sa_handler == tick, (long long)left.it_interval.tv_usec, earlier);
}

// clang-format off: a table for the eye.
const struct behaviour clock_behaviours[] = {
    {"clocks", clocks_now},     {"clocks-run", clocks_run},         {"clocks-agree", clocks_agree},
    {"clocks-cpu", clocks_cpu}, {"clocks-profile", clocks_profile}, {NULL, NULL},
};
// clang-format on
