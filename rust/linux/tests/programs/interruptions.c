/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Signals during waiting calls, timers that send signals, and the threads that get them, natively and in a machine. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "handlers.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { FUTEX_WAIT };

static char stack[64 << 10];

static int word;

static void change_word(int number, siginfo_t *info, void *context) {
    word++;
    (void)number, (void)info, (void)context;
}

static void in_ms(int ms) {
    struct itimerval timer = {.it_value = {0, ms * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Repeats the signal until `in_ms(0)`, for calls that only a signal ends: on a slow machine the first signal may come
 * before the call. */
static void every_ms(int ms) {
    struct itimerval timer = {{0, ms * 1000}, {0, ms * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void interruptions(void) {
    for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
        printf("flags %x\n", (unsigned)flags);
        handle(SIGALRM, change_word, flags);
        struct timespec long_time = {5, 0}, rest = {0, 0};
        word = 0;
        every_ms(20);
        SAY(nanosleep(&long_time, &rest));
        SAY(rest.tv_sec < 5 && rest.tv_sec + rest.tv_nsec > 0);
        SAY(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &long_time, &rest));
        SAY(syscall(SYS_futex, &word, FUTEX_WAIT, word, NULL, NULL, 0));
        SAY(syscall(SYS_futex, &word, FUTEX_WAIT, word, &long_time, NULL, 0));
        SAY(poll(NULL, 0, -1));
        SAY(poll(NULL, 0, 3000));
        SAY(pause());
        in_ms(0);
        SAY(word >= 7);
    }
}

static void suspending(void) {
    handle(SIGUSR1, note, SA_RESTART);
    handle(SIGALRM, note, SA_RESTART);
    set_mask(SIG_BLOCK, SIGUSR1);
    set_mask(SIG_BLOCK, SIGALRM);
    raise(SIGUSR1);
    unsigned long only_alarm = ~(1UL << (SIGALRM - 1)) & ~(1UL << (SIGUSR1 - 1));
    SAY(syscall(SYS_rt_sigsuspend, &only_alarm, 8));
    printf("mask %lx\n", mask());
    in_ms(20);
    SAY(syscall(SYS_rt_sigsuspend, &only_alarm, 8));
    printf("mask %lx\n", mask());
    in_ms(20);
    SAY(syscall(SYS_ppoll, NULL, 0, NULL, &only_alarm, 8));
    raise(SIGUSR1);
    SAY(syscall(SYS_ppoll, NULL, 0, NULL, &only_alarm, 8));
    struct timespec moment = {0, 1000000};
    SAY(syscall(SYS_ppoll, NULL, 0, &moment, &only_alarm, 8));
    printf("mask %lx\n", mask());
    /* An ignored signal ends no call. */
    signal(SIGALRM, SIG_IGN);
    in_ms(5);
    moment.tv_nsec = 20000000;
    SAY(nanosleep(&moment, NULL));
    set_mask(SIG_SETMASK, 0);
}

/* One expiration is enough: on a slow machine an interval may pass before the timer is deleted. */
static volatile int noted;
static timer_t timer;
static int overrun;

static void note_timer(int number, siginfo_t *info, void *context) {
    if (noted++) return;
    overrun = timer_getoverrun(timer);
    printf("signal %d code %d value %d, overrun %d\n", number, info->si_code, info->si_value.sival_int,
           info->si_overrun > 0);
    (void)context;
}

static void timers(void) {
    SAY(alarm(100));
    SAY(alarm(0) > 50);
    struct itimerval interval = {{0, 5000}, {0, 5000}}, now;
    handle(SIGALRM, change_word, 0);
    word = 0;
    SAY(setitimer(ITIMER_REAL, &interval, NULL));
    while (word < 3)
        pause();
    SAY(getitimer(ITIMER_REAL, &now));
    SAY(now.it_interval.tv_usec);
    interval.it_value.tv_sec = 100;
    SAY(setitimer(ITIMER_REAL, &interval, NULL));
    SAY(getitimer(ITIMER_REAL, &now));
    SAY(now.it_value.tv_sec <= 100 && now.it_value.tv_sec > 50);
    SAY(alarm(0) > 50);
    SAY(getitimer(ITIMER_REAL, &now));
    SAY(now.it_value.tv_usec);
    SAY(setitimer(7, &interval, NULL));

    handle(SIGUSR1, note_timer, 0);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value = {.sival_int = 5}};
    struct itimerspec once = {{0, 0}, {0, 3000000}}, often = {{0, 2000000}, {0, 2000000}}, left;
    SAY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SAY(timer_gettime(timer, &left));
    SAY(left.it_value.tv_nsec);
    /* Unblocked only during the wait: it must not arrive between the check and the wait. */
    set_mask(SIG_BLOCK, SIGUSR1);
    SAY(timer_settime(timer, 0, &once, NULL));
    unsigned long nothing = 0;
    while (!noted)
        syscall(SYS_rt_sigsuspend, &nothing, 8);
    noted = 0;
    SAY(timer_settime(timer, 0, &often, NULL));
    struct timespec moment = {0, 30000000};
    SAY(nanosleep(&moment, NULL));
    set_mask(SIG_SETMASK, 0);
    SAY(overrun >= 10);
    SAY(timer_delete(timer));
    SAY(syscall(SYS_timer_gettime, 99, &left));
    /* An absolute time in the past expires at once. */
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
    event.sigev_value.sival_int = 6;
    SAY(timer_create(CLOCK_REALTIME, &event, &timer));
    once.it_value = (struct timespec){1, 0};
    /* Blocked meanwhile: on a slow machine the signal may be late. */
    set_mask(SIG_BLOCK, event.sigev_signo);
    noted = 0;
    SAY(timer_settime(timer, TIMER_ABSTIME, &once, NULL));
    SAY(nanosleep(&moment, NULL));
    set_mask(SIG_SETMASK, 0);
    SAY(timer_delete(timer));
    event.sigev_notify = SIGEV_NONE;
    SAY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    once.it_value = (struct timespec){100, 0};
    SAY(timer_settime(timer, 0, &once, NULL));
    SAY(timer_gettime(timer, &left));
    SAY(left.it_value.tv_sec > 50);
    SAY(timer_delete(timer));
}

static atomic_int started, handled, enough;
static _Atomic(pid_t) handler_tid;

static void note_thread(int number, siginfo_t *info, void *context) {
    handler_tid = (pid_t)syscall(SYS_gettid);
    handled++;
    (void)number, (void)info, (void)context;
}

static void *wait_in_futex(void *argument) {
    static int word;
    *(pid_t *)argument = (pid_t)syscall(SYS_gettid);
    printf("mask of a new thread %lx\n", mask());
    stack_t stack;
    unsigned long set = 1;
    syscall(SYS_rt_sigpending, &set, 8);
    printf("pending %lx\n", set);
    sigaltstack(NULL, &stack);
    SAY(stack.ss_flags);
    set_mask(SIG_SETMASK, 0);
    started = 1;
    SAY(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0));
    started = 2;
    SAY(pause());
    started = 3;
    struct timespec moment = {0, 1000000};
    while (!enough)
        nanosleep(&moment, NULL);
    sigset_t set_of_one;
    sigemptyset(&set_of_one);
    sigaddset(&set_of_one, SIGUSR2);
    set_mask(SIG_BLOCK, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set_of_one, NULL);
    started = 4;
    SAY(sigwaitinfo(&set_of_one, NULL));
    return NULL;
}

static void until(int state) {
    struct timespec moment = {0, 1000000};
    while (started < state)
        nanosleep(&moment, NULL);
}

/* Repeats the signal: the first may arrive before the call that it is to interrupt. */
static void interrupt_until(int state, pid_t tid) {
    struct timespec moment = {0, 20000000};
    handler_tid = 0;
    do {
        if (tid)
            syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
        else
            kill(getpid(), SIGUSR1);
        nanosleep(&moment, NULL);
    } while (started < state || !handler_tid);
}

static void threads(void) {
    handle(SIGUSR1, note_thread, 0);
    stack_t new = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&new, NULL);
    set_mask(SIG_BLOCK, SIGUSR1);
    raise(SIGUSR1);
    pthread_t thread;
    pid_t tid = 0;
    pthread_create(&thread, NULL, wait_in_futex, &tid);
    until(1);
    SAY(handled);
    /* To the thread, and to the process, of which only the other thread accepts it. */
    interrupt_until(2, tid);
    SAY(handler_tid == tid);
    interrupt_until(3, 0);
    SAY(handler_tid == tid);
    handled = 0;
    enough = 1;
    until(4);
    pthread_kill(thread, SIGUSR2);
    pthread_join(thread, NULL);
    SAY(syscall(SYS_tgkill, getpid(), 1 << 30, SIGUSR1));
    SAY(syscall(SYS_tgkill, getpid() + 1, getpid(), SIGUSR1));
    SAY(syscall(SYS_tkill, -1, SIGUSR1));
    set_mask(SIG_SETMASK, 0);
    SAY(handled > 0);
    SAY(handler_tid == getpid());
    new.ss_flags = SS_DISABLE;
    sigaltstack(&new, NULL);
}

/* A thread that makes no call gets signals too: this is how Go interrupts a loop. */
static void *spin(void *argument) {
    *(pid_t *)argument = (pid_t)syscall(SYS_gettid);
    started = 1;
    double x = 1.5;
    while (!handled)
        x = x * 1.0000001 + 0.25;
    return (void *)(long)(x > 1);
}

static int spinning(void) {
    handle(SIGURG, note_thread, SA_ONSTACK | SA_RESTART);
    pthread_t thread;
    pid_t tid = 0;
    void *result;
    pthread_create(&thread, NULL, spin, &tid);
    until(1);
    SAY(syscall(SYS_tgkill, getpid(), tid, SIGURG));
    pthread_join(thread, &result);
    SAY((long)result);
    SAY(handler_tid == tid);
    handled = 0;
    handle(SIGALRM, note_thread, 0);
    in_ms(20);
    spin(&tid);
    SAY(handler_tid == getpid());
    return 0;
}

static volatile int counted;

static void count_quietly(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    counted++;
}

static void *write_much(void *fd) {
    static char much[1 << 20];
    long total = 0, sent;
    while ((sent = write(*(int *)fd, much, sizeof much)) > 0)
        total += sent;
    return (void *)(long)(sent == -1 && errno == EPIPE && total < (long)sizeof much);
}

static void *write_after_some(void *fd) {
    struct timespec moment = {0, 1000000};
    while (counted < 3)
        nanosleep(&moment, NULL);
    return (void *)(long)write(*(int *)fd, "late", 4);
}

struct interrupter {
    pthread_t whom;
    atomic_int done;
};

/* Repeated, in case the first arrives before the call. */
static void *interrupt(void *argument) {
    struct interrupter *interrupter = argument;
    struct timespec moment = {0, 20000000};
    do {
        nanosleep(&moment, NULL);
        pthread_kill(interrupter->whom, SIGUSR2);
    } while (!interrupter->done);
    return NULL;
}

/* SIGPIPE, and reads that a handler interrupts. */
static void broken_pipes(void) {
    int ends[2];
    char buffer[16];
    void *result;
    pthread_t thread;
    handle(SIGPIPE, count_quietly, 0);
    SAY(pipe(ends));
    close(ends[0]);
    SAY(write(ends[1], "x", 1));
    SAY(counted);
    close(ends[1]);
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    close(ends[0]);
    SAY(send(ends[1], "x", 1, MSG_NOSIGNAL));
    SAY(counted);
    SAY(send(ends[1], "x", 1, 0));
    SAY(counted);
    close(ends[1]);
    /* A thread that waits for space gets it too. */
    SAY(pipe(ends));
    pthread_create(&thread, NULL, write_much, &ends[1]);
    struct timespec moment = {0, 20000000};
    nanosleep(&moment, NULL);
    close(ends[0]);
    pthread_join(thread, &result);
    SAY((long)result);
    SAY(counted);
    close(ends[1]);
    signal(SIGPIPE, SIG_IGN);
    SAY(pipe(ends));
    close(ends[0]);
    SAY(write(ends[1], "x", 1));
    close(ends[1]);

    struct interrupter to = {.whom = pthread_self()};
    SAY(pipe(ends));
    counted = 0;
    handle(SIGUSR2, count_quietly, 0);
    pthread_create(&thread, NULL, interrupt, &to);
    SAY(read(ends[0], buffer, sizeof buffer));
    to.done = 1;
    pthread_join(thread, NULL);
    SAY(counted > 0);
    counted = 0;
    to.done = 0;
    handle(SIGUSR2, count_quietly, SA_RESTART);
    pthread_t later;
    pthread_create(&thread, NULL, interrupt, &to);
    pthread_create(&later, NULL, write_after_some, &ends[1]);
    SAY(read(ends[0], buffer, sizeof buffer));
    to.done = 1;
    pthread_join(thread, NULL);
    pthread_join(later, &result);
    SAY((long)result);
    SAY(counted > 0);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 1 && !strcmp(argv[1], "spinning")) return spinning();
    interruptions();
    suspending();
    timers();
    threads();
    broken_pipes();
    return 0;
}
