/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A program with the SDK. A second thread works on its requests, a third one sleeps, and with the argument "spin" a
 * fourth one spins.
 *
 *   /           the worker thread's result for the path: its length, and the number of its jobs so far
 *   /sleep      the same after a second
 *   /start      the same from a thread that is started for it
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "mayfly.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static size_t job, result;
static int has_job, has_result, jobs;

static void *work(void *nothing) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!has_job)
            pthread_cond_wait(&changed, &lock);
        has_job = 0;
        jobs++;
        result = job * 2;
        has_result = 1;
        pthread_cond_broadcast(&changed);
    }
    return nothing;
}

static void *sleep_again_and_again(void *nothing) {
    for (;;) {
        struct timespec moment = {0, 5000000};
        nanosleep(&moment, NULL);
    }
    return nothing;
}

static void *never_rest(void *nothing) {
    for (volatile unsigned long i = 0;; i++)
        continue;
    return nothing;
}

static void *started(void *argument) {
    *(size_t *)argument = 42;
    return NULL;
}

static void start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument)) perror("pthread_create");
}

static size_t ask(size_t what) {
    pthread_mutex_lock(&lock);
    job = what;
    has_job = 1;
    pthread_cond_broadcast(&changed);
    while (!has_result)
        pthread_cond_wait(&changed, &lock);
    has_result = 0;
    size_t answer = result;
    pthread_mutex_unlock(&lock);
    return answer;
}

int main(int argc, char **argv) {
    start(work, NULL);
    start(sleep_again_and_again, NULL);
    if (argc > 1 && !strcmp(argv[1], "spin")) start(never_rest, NULL);
    for (;;) {
        const struct mayfly_request *request = mayfly_wait();
        char text[64];
        size_t value = ask(request->path.size);
        if (request->path.size == 6 && !memcmp(request->path.data, "/sleep", 6)) {
            struct timespec moment = {1, 0};
            nanosleep(&moment, NULL);
        }
        if (request->path.size == 6 && !memcmp(request->path.data, "/start", 6)) {
            pthread_t thread;
            if (!pthread_create(&thread, NULL, started, &value)) pthread_join(thread, NULL);
        }
        int size = snprintf(text, sizeof text, "%zu %d", value, jobs);
        mayfly_respond(200, "text/plain", text, (size_t)size);
    }
}
