/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads and what they see of each other, natively and in a machine. The output does not depend on scheduling. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "say.h"

enum { WORKERS = 8, ROUNDS = 200 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int counter;
static int turn;
static __thread int mine = 7;

static void *count(void *argument) {
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        int seen = counter;
        if (i % 10 == 0) sched_yield();
        counter = seen + 1;
        pthread_mutex_unlock(&lock);
    }
    mine += (int)(long)argument;
    return (void *)(long)mine;
}

static void mutual_exclusion(void) {
    pthread_t threads[WORKERS];
    int sum = 0;
    for (long i = 0; i < WORKERS; i++)
        SAY(pthread_create(&threads[i], NULL, count, (void *)i));
    for (int i = 0; i < WORKERS; i++) {
        void *result;
        SAY(pthread_join(threads[i], &result));
        sum += (int)(long)result;
    }
    SAY(counter);
    SAY(sum);
    SAY(mine);
}

static void *take_turns(void *argument) {
    int me = (int)(long)argument;
    for (int i = 0; i < 5; i++) {
        pthread_mutex_lock(&lock);
        while (turn % 3 != me)
            pthread_cond_wait(&changed, &lock);
        printf("turn %d of %d\n", turn, me);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void conditions(void) {
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, take_turns, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    SAY(turn);
}

static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static struct timespec in_ms(clockid_t clock, long ms) {
    long long then = now(clock) + ms * 1000000LL;
    return (struct timespec){then / 1000000000LL, then % 1000000000LL};
}

static void timeouts(void) {
    long long start = now(CLOCK_MONOTONIC);
    struct timespec until = in_ms(CLOCK_REALTIME, 20);
    pthread_mutex_lock(&lock);
    SAY(pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT);
    SAY(now(CLOCK_MONOTONIC) - start >= 20000000LL);
    pthread_mutex_unlock(&lock);
    start = now(CLOCK_MONOTONIC);
    struct timespec moment = {0, 15000000};
    SAY(nanosleep(&moment, NULL));
    SAY(now(CLOCK_MONOTONIC) - start >= 15000000LL);
    int word = 0;
    SAY(syscall(SYS_futex, &word, 0, 1, NULL, NULL, 0));
    SAY(errno == EAGAIN);
    SAY(syscall(SYS_futex, &word, 0, 0, &moment, NULL, 0));
    SAY(errno == ETIMEDOUT);
    until = in_ms(CLOCK_MONOTONIC, 5);
    SAY(syscall(SYS_futex, &word, 9, 0, &until, NULL, 1));
    SAY(errno == ETIMEDOUT);
    until = in_ms(CLOCK_REALTIME, 5);
    SAY(syscall(SYS_futex, &word, 9 | 256, 0, &until, NULL, 1));
    SAY(errno == ETIMEDOUT);
}

/* The word on which threads start to wait, and two more. */
static int words[3];

static void *wait_for_word(void *argument) {
    (void)argument;
    long result = syscall(SYS_futex, &words[0], 0, 0, NULL, NULL, 0);
    return (void *)result;
}

static void requeue(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, wait_for_word, NULL);
    /* All threads that could be moved are waiting. */
    struct timespec moment = {0, 1000000};
    long moved = 0;
    while ((moved += syscall(SYS_futex, &words[0], 3, 0, (void *)4, &words[1], 0)) < 4)
        nanosleep(&moment, NULL);
    SAY(moved);
    SAY(syscall(SYS_futex, &words[1], 4, 1, (void *)2, &words[2], 0));
    SAY(syscall(SYS_futex, &words[1], 4, 1, (void *)2, &words[2], 1));
    SAY(errno == EAGAIN);
    SAY(syscall(SYS_futex, &words[2], 1, 10));
    /* words[2] += 3, and wakes its waiters if it was 0 before: there are none. */
    SAY(syscall(SYS_futex, &words[1], 5, 1, (void *)1, &words[2], 1 << 28 | 3 << 12));
    SAY(words[2]);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        SAY((long)result);
    }
}

static pthread_mutex_t robust;

static void *die_with_lock(void *argument) {
    (void)argument;
    pthread_mutex_lock(&robust);
    return NULL;
}

static void robustness(void) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    SAY(pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST));
    pthread_mutex_init(&robust, &kind);
    pthread_t thread;
    pthread_create(&thread, NULL, die_with_lock, NULL);
    pthread_join(thread, NULL);
    SAY(pthread_mutex_lock(&robust) == EOWNERDEAD);
    SAY(pthread_mutex_consistent(&robust));
    SAY(pthread_mutex_unlock(&robust));
}

static void *spin(void *stop) {
    double x = 1.5;
    while (!*(atomic_int *)stop)
        x = x * 1.0000001 + 0.25;
    return (void *)(long)(x > 1);
}

static void preemption(void) {
    atomic_int stop = 0;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, spin, &stop);
    struct timespec moment = {0, 20000000};
    nanosleep(&moment, NULL);
    stop = 1;
    for (int i = 0; i < 2; i++) {
        void *result;
        pthread_join(threads[i], &result);
        SAY((long)result);
    }
}

static void *identity(void *argument) {
    SAY(syscall(SYS_gettid) != getpid());
    char name[16] = "";
    pthread_setname_np(pthread_self(), "second");
    pthread_getname_np(pthread_self(), name, sizeof name);
    SAY(strcmp(name, "second"));
    return argument;
}

static void *wait_for_ever(void *argument) {
    pause();
    return argument;
}

static int as_many_as_possible(void) {
    for (int i = 1; i < 100; i++) {
        pthread_t thread;
        int error = pthread_create(&thread, NULL, wait_for_ever, NULL);
        if (error) return error == EAGAIN ? i : 100;
    }
    return 100;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "many")) return as_many_as_possible();
    if (argc > 1 && !strcmp(argv[1], "preemption")) {
        preemption();
        return 0;
    }
    mutual_exclusion();
    conditions();
    timeouts();
    requeue();
    robustness();
    pthread_t thread;
    pthread_create(&thread, NULL, identity, NULL);
    pthread_join(thread, NULL);
    SAY(syscall(SYS_gettid) == getpid());
    return 0;
}
