// SPDX-License-Identifier: MIT OR Apache-2.0
// Threads that wait and work across the freeze.
#include "mayfly.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static __thread double own = 1.5;
static int question = -1;
static double answer;
static void *work(void *of) {
    own += *(int *)of; /* in this thread's registers and memory */
    pthread_mutex_lock(&lock);
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1000;
        while (question != *(int *)of)
            pthread_cond_timedwait(&asked, &lock, &until);
        answer = own * 2;
        question = -1;
        pthread_cond_broadcast(&done);
    }
    return 0;
}
int main(void) {
    static int numbers[3] = {0, 1, 2};
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        if (pthread_create(&thread, 0, work, &numbers[i])) return 1;
    }
    for (;;) {
        if (!mayfly_wait()) return 1;
        char text[200];
        int size = 0;
        for (int i = 0; i < 3; i++) {
            pthread_mutex_lock(&lock);
            question = i;
            pthread_cond_broadcast(&asked);
            while (question != -1)
                pthread_cond_wait(&done, &lock);
            size += sprintf(text + size, "%g ", answer);
            pthread_mutex_unlock(&lock);
        }
        mayfly_respond(200, "text/plain", text, (size_t)size);
    }
}
