// SPDX-License-Identifier: MIT OR Apache-2.0
// Clocks and timers of CPU time. Nothing here depends on the machine's speed: work is repeated until it shows.
#include "say.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>

static volatile int rounds, code, value;
static volatile pid_t taker;
static void count(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    rounds++, code = info->si_code, value = info->si_int, taker = gettid();
}

static long now(clockid_t clock) {
    struct timespec time;
    if (syscall(SYS_clock_gettime, clock, &time)) return -errno;
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void spin(long ns) {
    for (long end = now(CLOCK_THREAD_CPUTIME_ID) + ns; now(CLOCK_THREAD_CPUTIME_ID) < end;)
        ;
}

static void spin_until(int signals) {
    while (rounds < signals)
        now(CLOCK_PROCESS_CPUTIME_ID);
}

static long used(int who) {
    struct rusage usage;
    if (getrusage(who, &usage)) return -errno;
    return usage.ru_utime.tv_sec * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_sec * 1000000L +
           usage.ru_stime.tv_usec;
}

static void clocks(void) {
    struct timespec res;
    SAY(clock_getres(CLOCK_PROCESS_CPUTIME_ID, &res));
    printf("%ld %ld\n", (long)res.tv_sec, res.tv_nsec);
    SAY(clock_getres(CLOCK_THREAD_CPUTIME_ID, &res));
    printf("%ld %ld\n", (long)res.tv_sec, res.tv_nsec);
    long process = now(CLOCK_PROCESS_CPUTIME_ID), thread = now(CLOCK_THREAD_CPUTIME_ID);
    SAY(thread > 0 && process > 0);
    spin(3000000);
    SAY(now(CLOCK_PROCESS_CPUTIME_ID) - process >= 3000000);
    // A sleeping thread uses none.
    int slept = 0;
    for (long ms = 20; ms < 10000 && !slept; ms *= 2) {
        long wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        usleep(ms * 1000);
        slept = 2 * (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) < now(CLOCK_MONOTONIC) - wall;
    }
    SAY(slept);
    clockid_t clock = 0;
    SAY(clock_getcpuclockid(0, &clock));
    SAY(now(clock) >= process);
    SAY(clock_getcpuclockid(getpid(), &clock));
    SAY(now(clock) >= process);
    SAY(clock_getres(clock, &res));
    SAY(pthread_getcpuclockid(pthread_self(), &clock));
    SAY(now(clock) >= thread);
    SAY(now((clockid_t)(~99999999u << 3 | 2)));
    SAY(now((clockid_t)(~99999999u << 3 | 6)));
    SAY(now((clockid_t)(~0u << 3 | 7)));
    SAY(used(RUSAGE_SELF) >= 3000);
    SAY(used(RUSAGE_THREAD) >= 3000);
    SAY(used(RUSAGE_CHILDREN));
    struct rusage usage;
    SAY(getrusage(RUSAGE_SELF, &usage));
    SAY(usage.ru_maxrss > 0);
    struct tms times_used;
    spin(30000000);
    SAY_OK(times(&times_used));
    SAY(times_used.tms_utime + times_used.tms_stime > 0);
}

static void *work(void *clock) {
    spin(5000000);
    SAY(pthread_getcpuclockid(pthread_self(), clock));
    SAY(now(*(clockid_t *)clock) >= 5000000);
    return NULL;
}

static void threads(void) {
    long process = now(CLOCK_PROCESS_CPUTIME_ID), thread = now(CLOCK_THREAD_CPUTIME_ID);
    pthread_t other;
    clockid_t clock;
    pthread_create(&other, NULL, work, &clock);
    pthread_join(other, NULL);
    // In this order, so that time between the two reads does not count as this thread's.
    thread = now(CLOCK_THREAD_CPUTIME_ID) - thread, process = now(CLOCK_PROCESS_CPUTIME_ID) - process;
    // The other thread's time counts for the process, not for this thread.
    SAY(process >= 5000000);
    SAY(process - thread >= 5000000);
}

static void intervals(int which, int signal) {
    struct itimerval every = {{0, 1000}, {0, 1000}}, once = {{0, 0}, {0, 1000}}, off = {{0, 0}, {0, 0}}, left;
    struct itimerval far = {{7, 0}, {1000, 0}}, wrong = {{0, 0}, {0, 1000000}};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = count, action.sa_flags = SA_SIGINFO;
    sigaction(signal, &action, NULL);
    rounds = 0;
    SAY(setitimer(which, &wrong, NULL));
    SAY(setitimer(which, &every, &left));
    printf("%ld %ld\n", (long)left.it_value.tv_sec, (long)left.it_interval.tv_sec);
    spin_until(3);
    SAY(setitimer(which, &off, &left));
    printf("code %d interval %ld\n", code, (long)left.it_interval.tv_usec);
    rounds = 0;
    SAY(setitimer(which, &once, NULL));
    spin_until(1);
    SAY(getitimer(which, &left));
    printf("%ld %ld\n", (long)left.it_value.tv_sec, (long)left.it_value.tv_usec);
    SAY(setitimer(which, &far, NULL));
    spin(1000000);
    SAY(getitimer(which, &left));
    SAY(left.it_value.tv_sec <= 1000 && left.it_value.tv_sec > 900 && left.it_interval.tv_sec == 7);
    SAY(setitimer(which, &off, NULL));
    SAY(rounds);
}

static void timers(clockid_t clock) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = count, action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR1, &action, NULL);
    struct sigevent how;
    memset(&how, 0, sizeof how);
    how.sigev_notify = SIGEV_THREAD_ID, how.sigev_signo = SIGUSR1, how.sigev_value.sival_int = 77;
    how._sigev_un._tid = gettid();
    timer_t timer;
    struct itimerspec every = {{0, 1000000}, {0, 1000000}}, off = {{0, 0}, {0, 0}}, far = {{0, 0}, {500, 0}}, left;
    struct itimerspec passed = {{0, 0}, {0, 1}};
    rounds = 0;
    SAY(timer_create(clock, &how, &timer));
    SAY(timer_gettime(timer, &left));
    printf("%ld %ld\n", (long)left.it_value.tv_sec, left.it_value.tv_nsec);
    SAY(timer_settime(timer, 0, &every, NULL));
    spin_until(3);
    SAY(timer_settime(timer, 0, &off, &left));
    printf("code %d value %d here %d interval %ld\n", code, value, taker == gettid(), left.it_interval.tv_nsec);
    SAY(timer_settime(timer, 0, &far, NULL));
    SAY(timer_gettime(timer, &left));
    SAY(left.it_value.tv_sec <= 500 && left.it_value.tv_sec > 400);
    rounds = 0;
    SAY(timer_settime(timer, TIMER_ABSTIME, &passed, NULL));
    spin_until(1);
    SAY(timer_gettime(timer, &left));
    printf("%ld %ld\n", (long)left.it_value.tv_sec, left.it_value.tv_nsec);
    SAY(timer_delete(timer));
    SAY(timer_gettime(timer, &left));
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    clocks();
    threads();
    intervals(ITIMER_PROF, SIGPROF);
    intervals(ITIMER_VIRTUAL, SIGVTALRM);
    timers(CLOCK_PROCESS_CPUTIME_ID);
    timers(CLOCK_THREAD_CPUTIME_ID);
    timer_t timer;
    SAY(timer_create((clockid_t)(~99999999u << 3 | 6), NULL, &timer));
    return 0;
}
