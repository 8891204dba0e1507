// SPDX-License-Identifier: MIT OR Apache-2.0
// Clocks, identity, limits, signals, threads and the system: everything that neither maps memory nor names a file.
#include "say.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

static long nanoseconds(struct timespec t) { return t.tv_sec * 1000000000L + t.tv_nsec; }

static void clocks(void) {
    struct timespec a, b, res;
    for (int id = -1; id < 13; id++) {
        if (id == 8 || id == 9) continue; // alarm clocks depend on a hardware clock
        long result = syscall(SYS_clock_gettime, id, &a);
        printf("clock %d: %ld, resolution %ld", id, result, syscall(SYS_clock_getres, id, &res));
        if (result == 0) {
            syscall(SYS_clock_gettime, id, &b);
            printf(", valid %d, forward %d", a.tv_nsec >= 0 && a.tv_nsec < 1000000000,
                   nanoseconds(b) >= nanoseconds(a));
        }
        printf("\n");
    }
    struct timeval tv;
    struct timezone tz;
    SAY(syscall(SYS_gettimeofday, &tv, &tz));
    time_t now = 0;
    SAY_OK(syscall(SYS_time, &now));
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &a);
    printf("same time: %d %d\n", labs(a.tv_sec - tv.tv_sec) < 2, labs(a.tv_sec - now) < 2);
    SAY(syscall(SYS_gettimeofday, NULL, NULL));
    SAY(syscall(SYS_clock_gettime, CLOCK_REALTIME, UNMAPPED));
    SAY(syscall(SYS_clock_getres, CLOCK_REALTIME, NULL));
    SAY(syscall(SYS_gettimeofday, UNMAPPED, NULL));
    SAY(syscall(SYS_time, UNMAPPED));
    struct tms tms;
    SAY_OK(times(&tms));
    printf("children's times: %ld %ld\n", (long)tms.tms_cutime, (long)tms.tms_cstime);
    struct timespec moment = {0, 1000}, wrong = {0, 1000000000}, negative = {-1, 0};
    SAY(syscall(SYS_nanosleep, &moment, NULL));
    SAY(syscall(SYS_nanosleep, &wrong, NULL));
    SAY(syscall(SYS_nanosleep, &negative, NULL));
    SAY(syscall(SYS_nanosleep, UNMAPPED, NULL));
    SAY(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &moment, NULL));
    SAY(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL));
    SAY(syscall(SYS_clock_nanosleep, 99, 0, &moment, NULL));
}

static void identity(void) {
    printf("one process: %d %d %d\n", getpid() == syscall(SYS_gettid), getpid() > 0, getppid() >= 0);
    printf("ids agree: %d %d\n", getuid() == geteuid(), getgid() == getegid());
    unsigned r, e, s;
    SAY(syscall(SYS_getresuid, &r, &e, &s));
    printf("%d\n", r == getuid() && e == r && s == r);
    SAY(syscall(SYS_getresuid, UNMAPPED, &e, &s));
    SAY(getpgid(0) == getpgid(getpid()));
    SAY(getpgid(99999999));
    // No children.
    int status;
    for (int pid = -2; pid < 2; pid++)
        SAY(syscall(SYS_wait4, pid, &status, WNOHANG, NULL));
    SAY(syscall(SYS_wait4, -1, UNMAPPED, 0, UNMAPPED));
    SAY(syscall(SYS_wait4, INT_MIN, &status, 0, NULL));
    SAY(syscall(SYS_wait4, -1, &status, WEXITED, NULL));
    for (int which = -1; which < 5; which++)
        for (int id = -1; id < 2; id++)
            if (which != P_PIDFD || id < 0) SAY(syscall(SYS_waitid, which, id, NULL, WEXITED | WNOHANG, NULL));
    SAY(syscall(SYS_waitid, P_ALL, 0, NULL, WNOHANG, NULL));
    SAY(syscall(SYS_waitid, P_ALL, 0, NULL, WEXITED | 0x100, NULL));
    SAY(syscall(SYS_getgroups, -1, NULL));
    struct utsname name;
    SAY(uname(&name));
    printf("%s %s\n", name.sysname, name.machine);
    SAY(syscall(SYS_uname, UNMAPPED));
    struct sysinfo info;
    SAY(sysinfo(&info));
    printf("memory %d\n", info.totalram > 0 && info.mem_unit > 0);
    char text[17] = "";
    SAY(prctl(PR_SET_NAME, "a rather long name"));
    SAY(prctl(PR_GET_NAME, text));
    printf("name %s\n", text);
    SAY(prctl(PR_SET_NAME, UNMAPPED));
    SAY(prctl(12345, 0, 0, 0, 0));
    unsigned long base = 0;
    SAY(syscall(SYS_arch_prctl, 0x1003, &base));
    printf("fs base is set: %d\n", base != 0);
    SAY(syscall(SYS_arch_prctl, 0x1001, 0x12345000UL));
    SAY(syscall(SYS_arch_prctl, 0x1004, &base));
    printf("gs base %lx\n", base);
    SAY(syscall(SYS_arch_prctl, 0x1002, -1L));
    SAY(syscall(SYS_arch_prctl, 0x1002, NONCANONICAL));
    SAY(syscall(SYS_arch_prctl, 0x7777, 0));
    SAY(syscall(SYS_arch_prctl, 0x1003, UNMAPPED));
}

static void limits(void) {
    struct rlimit limit;
    SAY(getrlimit(RLIMIT_STACK, &limit));
    printf("stack %d\n", limit.rlim_cur >= 1 << 20);
    SAY(getrlimit(RLIMIT_NOFILE, &limit));
    printf("files %d\n", limit.rlim_cur >= 256);
    SAY(syscall(SYS_getrlimit, 16, &limit));
    SAY(syscall(SYS_getrlimit, -1, &limit));
    SAY(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, NULL));
    SAY(syscall(SYS_prlimit64, 99999999, RLIMIT_NOFILE, NULL, &limit));
    SAY(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, UNMAPPED, NULL));
    SAY(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, UNMAPPED));
    struct rlimit low = {100, 200}, upside_down = {200, 100}, back;
    SAY(setrlimit(RLIMIT_CPU, &low));
    SAY(getrlimit(RLIMIT_CPU, &back));
    printf("%ld %ld\n", (long)back.rlim_cur, (long)back.rlim_max);
    SAY(setrlimit(RLIMIT_CPU, &upside_down));
    struct rusage usage;
    SAY(getrusage(RUSAGE_SELF, &usage));
    SAY(getrusage(RUSAGE_CHILDREN, &usage));
    SAY(getrusage(77, &usage));
    SAY(syscall(SYS_getrusage, RUSAGE_SELF, UNMAPPED));
}

static void signals(void) {
    struct {
        unsigned long handler, flags, restorer, mask;
    } new = {0x1234, 0x14000004, 0x5678, ~0UL}, old;
    SAY(syscall(SYS_rt_sigaction, SIGUSR1, &new, &old, 8));
    printf("was %lx %lx\n", old.handler, old.flags);
    SAY(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8));
    printf("is %lx %lx %lx %lx\n", old.handler, old.flags, old.restorer, old.mask);
    SAY(syscall(SYS_rt_sigaction, SIGKILL, &new, NULL, 8));
    SAY(syscall(SYS_rt_sigaction, SIGKILL, NULL, &old, 8));
    SAY(syscall(SYS_rt_sigaction, 0, NULL, &old, 8));
    SAY(syscall(SYS_rt_sigaction, 65, NULL, &old, 8));
    SAY(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 16));
    SAY(syscall(SYS_rt_sigaction, SIGUSR1, UNMAPPED, NULL, 8));
    unsigned long set = ~0UL, before = 7;
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, &before, 8));
    printf("mask was %lx\n", before);
    SAY(kill(getpid(), SIGTERM));
    SAY(raise(SIGUSR2));
    SAY(syscall(SYS_rt_sigpending, &set, 8));
    printf("pending %lx\n", set);
    SAY(syscall(SYS_rt_sigpending, &set, 9));
    signal(SIGTERM, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    SAY(syscall(SYS_rt_sigpending, &set, 8));
    printf("pending %lx\n", set);
    set = 0;
    SAY(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, &before, 8));
    printf("mask was %lx\n", before);
    SAY(syscall(SYS_rt_sigprocmask, 77, &set, NULL, 8));
    SAY(syscall(SYS_rt_sigprocmask, 77, NULL, NULL, 8));
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, UNMAPPED, NULL, 8));
    SAY(raise(SIGTERM));
    SAY(raise(SIGCHLD));
    SAY(kill(getpid(), 0));
    SAY(kill(99999999, 0));
    SAY(kill(getpid(), 65));
    SAY(kill(getpid(), -1));
    SAY(syscall(SYS_tgkill, getpid(), 99999999, 0));
    SAY(syscall(SYS_tgkill, -1, 1, 0));
    SAY(syscall(SYS_tkill, 0, 0));
    stack_t stack = {(void *)0x5000, 0, 1 << 16}, was;
    SAY(sigaltstack(NULL, &was));
    printf("stack %d %ld\n", was.ss_flags, (long)was.ss_size);
    SAY(sigaltstack(&stack, NULL));
    SAY(sigaltstack(NULL, &was));
    printf("stack %d %ld\n", was.ss_flags, (long)was.ss_size);
    stack.ss_size = 100;
    SAY(sigaltstack(&stack, NULL));
    stack.ss_flags = 64;
    SAY(sigaltstack(&stack, NULL));
    stack.ss_flags = SS_DISABLE;
    SAY(sigaltstack(&stack, NULL));
    SAY(sigaltstack(UNMAPPED, NULL));
}

static void threads(void) {
    unsigned word = 5;
    struct timespec moment = {0, 1000}, wrong = {0, 1000000000};
    SAY(syscall(SYS_futex, &word, FUTEX_WAKE, 1));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT, 6, NULL));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &moment));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT, 5, &wrong));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 5, &moment, NULL, 0));
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 5, &moment, NULL, 1));
    SAY(syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
    SAY(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 1, 1, &word, 6));
    SAY(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 1, 1, &word, 5));
    SAY(syscall(SYS_futex, (char *)&word + 1, FUTEX_WAKE, 1));
    SAY(syscall(SYS_futex, UNMAPPED, FUTEX_WAIT, 5, &moment));
    SAY(syscall(SYS_futex, &word, 99, 5, NULL));
    SAY(syscall(SYS_set_tid_address, &word) == getpid());
    SAY(syscall(SYS_set_robust_list, UNMAPPED, 24));
    SAY(syscall(SYS_set_robust_list, UNMAPPED, 23));
    unsigned long mask[16];
    SAY(syscall(SYS_sched_getaffinity, 0, 4, mask));
    SAY(syscall(SYS_sched_getaffinity, 0, 12, mask));
    SAY(syscall(SYS_sched_getaffinity, 0, sizeof mask, UNMAPPED));
    SAY(syscall(SYS_sched_getaffinity, 99999999, sizeof mask, mask));
    SAY_OK(syscall(SYS_sched_getaffinity, 0, sizeof mask, mask));
    SAY(sched_yield());
    SAY(sched_getscheduler(0));
    struct sched_param param = {9};
    SAY(sched_getparam(0, &param));
    printf("priority %d\n", param.sched_priority);
    SAY(sched_get_priority_max(SCHED_OTHER));
    SAY(sched_get_priority_max(99));
    SAY_OK(getpriority(PRIO_PROCESS, 0));
    unsigned cpu = 99, node = 99;
    SAY(syscall(SYS_getcpu, &cpu, &node, NULL));
    printf("cpu exists %d\n", cpu < 4096 && node < 64);
    SAY_OK(syscall(SYS_membarrier, 0, 0, 0));
    SAY(syscall(SYS_membarrier, 1 << 4, 0, 0));
    SAY(syscall(SYS_membarrier, 1 << 3, 0, 0));
    SAY(syscall(SYS_membarrier, 0, 99, 0));
    SAY(syscall(SYS_membarrier, 3, 0, 0));
}

static void randomness(void) {
    char a[300] = {0}, b[300] = {0};
    SAY(getrandom(a, sizeof a, 0));
    SAY(getrandom(b, sizeof b, GRND_NONBLOCK));
    printf("differ %d\n", memcmp(a, b, sizeof a) != 0);
    SAY(getrandom(a, 0, 0));
    SAY(getrandom(a, 8, 64));
    SAY(getrandom(a, 8, GRND_RANDOM | 4));
    SAY(getrandom(UNMAPPED, 8, 0));
    SAY(getrandom(KERNEL, 8, 0));
    SAY(umask(022) == 022);
}

// Further calls that runtimes make.
static void runtimes(void) {
    struct sched_param param = {0};
    SAY(sched_setscheduler(0, SCHED_OTHER, &param));
    SAY(sched_setscheduler((int)syscall(SYS_gettid), SCHED_BATCH, &param));
    SAY(sched_setscheduler(0, SCHED_OTHER, &param));
    param.sched_priority = 5;
    SAY(sched_setscheduler(0, SCHED_OTHER, &param));
    SAY(sched_setscheduler(0, 77, &param));
    SAY(sched_setscheduler(99999999, SCHED_OTHER, &param));
    unsigned attributes[14] = {0};
    SAY(syscall(SYS_sched_getattr, 0, attributes, 48, 0));
    printf("size %u policy %u\n", attributes[0], attributes[1]);
    SAY(syscall(SYS_sched_getattr, 0, attributes, 40, 0));
    SAY(syscall(SYS_sched_setattr, 0, NULL, 0));
    SAY(setpriority(PRIO_PROCESS, 0, 0));
    SAY(setpriority(7, 0, 0));
    SAY_OK(syscall(SYS_ioprio_get, 1, 0));
    SAY(syscall(SYS_ioprio_get, 9, 0));
    SAY(prctl(PR_GET_SECCOMP));
    SAY(prctl(PR_SET_PDEATHSIG, 99));
    SAY(prctl(PR_CAPBSET_READ, 999));
    SAY(prctl(PR_GET_TIMERSLACK));
    SAY(prctl(PR_GET_KEEPCAPS));
    unsigned header[2] = {0x1234, 0};
    SAY(syscall(SYS_capget, header, NULL));
    printf("version %x\n", header[0]);
    SAY(syscall(SYS_capget, header, NULL));
    header[1] = 99999999;
    unsigned data[6];
    SAY(syscall(SYS_capget, header, data));
    SAY(umask(077));
    SAY(umask(022));
    static char pages[3 * PAGE] __attribute__((aligned(4096)));
    unsigned char present[3] = {0};
    pages[PAGE] = 1;
    SAY(mincore(pages, sizeof pages, present));
    printf("present %d\n", present[1] & 1);
    SAY(mincore(pages + 1, PAGE, present));
    SAY(mincore(pages, PAGE, UNMAPPED));
    SAY(mincore(UNMAPPED - 0x10, PAGE, present));
    SAY(personality(0xffffffff));
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    clocks();
    identity();
    limits();
    threads();
    runtimes();
    randomness();
    signals();
    return 0;
}
