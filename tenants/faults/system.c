// SPDX-License-Identifier: MIT OR Apache-2.0
//
// System calls with arguments that are none, output in excess, and what must not repeat.

#define _GNU_SOURCE
#include "faults.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

// -- Ends --

static void ok(struct act *act) { (void)act; }
static void end_exit(struct act *act) { CALL(SYS_exit_group, act->number, 0, 0); }
static void end_thread(struct act *act) { CALL(SYS_exit, act->number, 0, 0); }
static void end_abort(struct act *act) {
    (void)act;
    abort();
}

// -- Calls --

static void syscall_any(struct act *act) {
    uint64_t a[6] = {0};
    if (act->request) {
        size_t size = act->request->body.size < sizeof a ? act->request->body.size : sizeof a;
        memcpy(a, act->request->body.data, size);
    }
    say("%lld\n", (long long)call6((int64_t)act->number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

static int ends_or_blocks(int64_t number) {
    static const int16_t numbers[] = {SYS_rt_sigreturn, SYS_pause, SYS_exit, SYS_exit_group, SYS_rt_sigsuspend,
                                      // See maps-wild.
                                      SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_brk};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i)
        if (numbers[i] == number) return 1;
    return 0;
}

// To these, a NULL is a timeout without end.
static int waits_for_null(int64_t number) {
    return number == SYS_select || number == SYS_pselect6 || number == SYS_ppoll;
}

static void syscalls_wild(struct act *act) {
    char *edge = before_gap(4);
    const uint64_t places[] = {0, LOW, KERNEL_HALF, NON_CANONICAL, UINT64_MAX - 7, UNMAPPED, address_of(edge)};
    (void)act;
    for (int64_t number = 0; number < 512; ++number) {
        if (ends_or_blocks(number)) continue;
        for (size_t i = 0; i < sizeof places / sizeof *places; ++i) {
            uint64_t p = places[i];
            if (p == 0 && waits_for_null(number)) continue;
            int64_t result = call6(number, p, p, p, p, p, p);
            if (result >= 0) say("%lld %zu: %lld\n", (long long)number, i, (long long)result);
            // A small number where an fd, a clock or an option is likely.
            result = call6(number, 1, p, 16, p, p, p);
            if (result >= 0) say("%lld 1 %zu: %lld\n", (long long)number, i, (long long)result);
        }
    }
}

static void maps_wild(struct act *act) {
    const uint64_t sizes[] = {0,
                              1,
                              FAULTS_PAGE - 1,
                              UINT64_C(1) << 46,
                              UINT64_C(1) << 47,
                              UINT64_C(1) << 63,
                              UINT64_MAX - FAULTS_PAGE + 1,
                              UINT64_MAX};
    const uint64_t addresses[] = {
        1, LOW, NON_CANONICAL - FAULTS_PAGE, NON_CANONICAL, KERNEL_HALF, UINT64_MAX - FAULTS_PAGE + 1};
    const uint64_t private_fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    (void)act;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
        say("mmap %zu: %lld\n", s,
            (long long)(call6(SYS_mmap, 0, sizes[s], 3, MAP_PRIVATE | MAP_ANONYMOUS, UINT64_MAX, 0) > 0));
        for (size_t a = 0; a < sizeof addresses / sizeof *addresses; ++a) {
            uint64_t address = addresses[a], size = sizes[s];
            say("%zu %zu:", s, a);
            say(" %lld", (long long)call6(SYS_mmap, address, size, 3, private_fixed, UINT64_MAX, 0));
            say(" %lld", (long long)CALL(SYS_munmap, address | 1, size, 0));
            say(" %lld", (long long)CALL(SYS_mprotect, address, size, UINT64_C(0xff)));
            say(" %lld", (long long)CALL(SYS_madvise, address, size, MADV_DONTNEED));
            say(" %lld\n", (long long)call6(SYS_mremap, address, size, size, MREMAP_MAYMOVE, 0, 0));
        }
    }
    const uint64_t wild_breaks[] = {1, NON_CANONICAL, UINT64_MAX};
    uint64_t now = (uint64_t)CALL(SYS_brk, 0, 0, 0);
    for (size_t i = 0; i < 3; ++i)
        say("brk %zu: %d\n", i, (uint64_t)CALL(SYS_brk, wild_breaks[i], 0, 0) == now);
}

static void forbidden(struct act *act) {
    (void)act;
    say("open %lld\n", (long long)CALL(SYS_open, "/etc/passwd", 0, 0));
    say("openat %lld\n", (long long)call6(SYS_openat, (uint64_t)-100, (uint64_t)(uintptr_t) "/etc/passwd", 0, 0, 0, 0));
    say("readlink %lld\n", (long long)CALL(SYS_readlink, "/proc/1/exe", text + sizeof text - 64, 64));
    say("socket %lld\n", (long long)CALL(SYS_socket, 2, 1, 0));
    say("fork %lld\n", (long long)CALL(SYS_fork, 0, 0, 0));
    say("execve %lld\n", (long long)CALL(SYS_execve, "/bin/true", 0, 0));
    say("ptrace %lld\n", (long long)call6(SYS_ptrace, 16, 1, 0, 0, 0, 0));
    say("kill %lld\n", (long long)CALL(SYS_kill, 1, 0, 0));
}

static void print_to(int fd, uint64_t kib) {
    char block[1024];
    memset(block, 'p', sizeof block);
    block[sizeof block - 1] = '\n';
    for (uint64_t i = 0; i < kib; ++i)
        CALL(SYS_write, fd, block, sizeof block);
}
static void print_out(struct act *act) { print_to(1, act->number); }
static void print_error(struct act *act) { print_to(2, act->number); }
static void print_lines(struct act *act) {
    char line[32];
    for (uint64_t i = 0; i < act->number; ++i)
        CALL(SYS_write, 1, line, snprintf(line, sizeof line, "line %llu\n", (unsigned long long)i));
}
static void print_binary(struct act *act) {
    static const char bytes[] = "a\0b\r\n\x1b[31mred\x1b[0m \x07\xff\xfe\xc3(\n\"quoted\" \\ {json}\n";
    (void)act;
    CALL(SYS_write, 1, bytes, sizeof bytes - 1);
}

// -- Chance and time --

static void hex(const char *label, const unsigned char *bytes, size_t size) {
    say("%s ", label);
    for (size_t i = 0; i < size; ++i)
        say("%02x", bytes[i]);
    say("\n");
}
static void random_now(struct act *act) {
    unsigned char bytes[16] = {0};
    if (act->request) hex("entropy", act->request->entropy, sizeof act->request->entropy);
    if (getauxval(AT_RANDOM)) hex("at-random", at(getauxval(AT_RANDOM)), 16);
    if (CALL(SYS_getrandom, bytes, sizeof bytes, 0) == sizeof bytes) hex("getrandom", bytes, sizeof bytes);
}
static void clock_line(const char *label, int64_t result, const struct timespec *time) {
    say("%s %lld %lld.%09ld\n", label, (long long)result, (long long)time->tv_sec, time->tv_nsec);
}
static void time_now(struct act *act) {
    struct timespec now = {0, 0};
    if (act->request)
        say("request %llu %llu\n", (unsigned long long)act->request->unix_ns,
            (unsigned long long)act->request->monotonic_ns);
    int result = clock_gettime(CLOCK_REALTIME, &now);
    clock_line("library-realtime", result, &now);
    result = clock_gettime(CLOCK_MONOTONIC, &now);
    clock_line("library-monotonic", result, &now);
    int64_t raw = CALL(SYS_clock_gettime, CLOCK_REALTIME, &now, 0);
    clock_line("call-realtime", raw, &now);
    raw = CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0);
    clock_line("call-monotonic", raw, &now);
}

// clang-format off: a table for the eye.
const struct behaviour system_behaviours[] = {
    {"ok", ok},
    {"exit", end_exit},
    {"exit-thread", end_thread},
    {"abort", end_abort},
    {"syscall", syscall_any},
    {"syscalls-wild", syscalls_wild},
    {"maps-wild", maps_wild},
    {"forbidden", forbidden},
    {"print", print_out},
    {"print-error", print_error},
    {"print-lines", print_lines},
    {"print-binary", print_binary},
    {"random", random_now},
    {"time", time_now},
    {NULL, NULL},
};
// clang-format on
