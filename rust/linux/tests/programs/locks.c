// SPDX-License-Identifier: MIT OR Apache-2.0
// Locks that the kernel passes on: FUTEX_LOCK_PI and related operations, and the mutexes that C libraries build on
// them.
#include "say.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

static unsigned word;
static volatile int handled;
static void handler(int number) { handled += number == SIGUSR1; }

static long futex(unsigned *at, int operation, const struct timespec *until) {
    return syscall(SYS_futex, at, operation, 0, until, NULL, 0) ? -errno : 0;
}

static void await_waiter(void) {
    while (!(__atomic_load_n(&word, __ATOMIC_SEQ_CST) & FUTEX_WAITERS))
        usleep(100);
}

static int owned;
static void *take(void *result) {
    *(long *)result = futex(&word, FUTEX_LOCK_PI, NULL);
    owned = (word & FUTEX_TID_MASK) == (unsigned)gettid();
    return (void *)futex(&word, FUTEX_UNLOCK_PI, NULL);
}

static void *leave(void *result) {
    *(long *)result = futex(&word, FUTEX_LOCK_PI, NULL);
    // It exits as the owner, while another thread waits.
    await_waiter();
    return NULL;
}

static volatile int go;
static void *hold(void *result) {
    *(long *)result = futex(&word, FUTEX_LOCK_PI, NULL);
    while (!go)
        usleep(100);
    return (void *)futex(&word, FUTEX_UNLOCK_PI, NULL);
}

static void raw(void) {
    unsigned self = gettid();
    struct timespec past = {1, 0}, soon, wrong = {0, 1000000000};
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
    SAY(futex(&word, FUTEX_LOCK_PI, NULL));
    SAY(word == self);
    SAY(futex(&word, FUTEX_LOCK_PI, NULL));
    SAY(futex(&word, FUTEX_TRYLOCK_PI, NULL));
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
    SAY(word);
    SAY(futex(&word, FUTEX_TRYLOCK_PI, NULL));
    SAY(word == self);
    SAY(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, NULL));
    SAY(futex(UNMAPPED, FUTEX_LOCK_PI, NULL));
    SAY(futex((unsigned *)((char *)&word + 1), FUTEX_LOCK_PI, NULL));
    SAY(futex(&word, FUTEX_LOCK_PI, &wrong));
    word = 99999999;
    SAY(futex(&word, FUTEX_LOCK_PI, NULL));
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
    word = 0;
    // Passed on to a waiting thread.
    long result = 77;
    pthread_t thread;
    SAY(futex(&word, FUTEX_LOCK_PI, NULL));
    pthread_create(&thread, NULL, take, &result);
    await_waiter();
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
    void *unlocked;
    pthread_join(thread, &unlocked);
    SAY(result);
    SAY(owned);
    SAY(unlocked);
    SAY(word);
    // A waiter that times out.
    pthread_create(&thread, NULL, hold, &result);
    while (!__atomic_load_n(&word, __ATOMIC_SEQ_CST))
        usleep(100);
    SAY(futex(&word, FUTEX_TRYLOCK_PI, NULL));
    SAY(futex(&word, FUTEX_LOCK_PI, &past));
    go = 1;
    pthread_join(thread, &unlocked);
    SAY(unlocked);
    SAY(word);
    // Its owner exits.
    pthread_create(&thread, NULL, leave, &result);
    while (!__atomic_load_n(&word, __ATOMIC_SEQ_CST))
        usleep(100);
    SAY(futex(&word, FUTEX_LOCK_PI, NULL));
    pthread_join(thread, NULL);
    printf("owner %d died %d\n", (word & FUTEX_TID_MASK) == self, (word & FUTEX_OWNER_DIED) != 0);
    word = self;
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
    SAY(word);
    clock_gettime(CLOCK_MONOTONIC, &soon);
    SAY(futex(&word, FUTEX_LOCK_PI2, &soon));
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
}

static void *take_interrupted(void *result) {
    *(long *)result = futex(&word, FUTEX_LOCK_PI, NULL);
    return NULL;
}

// A handler that runs while a thread waits does not end its wait.
static void interrupted(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction(SIGUSR1, &action, NULL);
    long result = 77;
    pthread_t thread;
    futex(&word, FUTEX_LOCK_PI, NULL);
    pthread_create(&thread, NULL, take_interrupted, &result);
    await_waiter();
    pthread_kill(thread, SIGUSR1);
    while (!handled)
        usleep(100);
    SAY(result);
    SAY(futex(&word, FUTEX_UNLOCK_PI, NULL));
    pthread_join(thread, NULL);
    SAY(result);
    word = 0;
}

static pthread_mutex_t mutex;
static long counter;

static void *add(void *times) {
    for (long i = 0; i < *(long *)times; i++) {
        pthread_mutex_lock(&mutex);
        long old = counter;
        if (i % 16 == 0) sched_yield();
        counter = old + 1;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void *abandon(void *unused) {
    (void)unused;
    pthread_mutex_lock(&mutex);
    return NULL;
}

static void mutexes(int robust) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    SAY(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT));
    if (robust) SAY(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    SAY(pthread_mutex_init(&mutex, &attributes));
    SAY(pthread_mutex_lock(&mutex));
    SAY(pthread_mutex_trylock(&mutex));
    struct timespec past = {1, 0};
    SAY(pthread_mutex_unlock(&mutex));
    pthread_t threads[4];
    long times = 200;
    counter = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add, &times);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    SAY(counter);
    if (robust) {
        pthread_create(&threads[0], NULL, abandon, NULL);
        pthread_join(threads[0], NULL);
        SAY(pthread_mutex_lock(&mutex));
        SAY(pthread_mutex_consistent(&mutex));
        SAY(pthread_mutex_unlock(&mutex));
    } else {
        // A condition variable, whose waiters continue to wait for the mutex.
        pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
        SAY(pthread_mutex_lock(&mutex));
        SAY(pthread_cond_timedwait(&condition, &mutex, &past));
        SAY(pthread_mutex_unlock(&mutex));
    }
    SAY(pthread_mutex_lock(&mutex));
    SAY(pthread_mutex_unlock(&mutex));
    SAY(pthread_mutex_destroy(&mutex));
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    raw();
    interrupted();
    mutexes(0);
    mutexes(1);
    return 0;
}
