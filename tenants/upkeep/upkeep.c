/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An HTTP server that has something to do between requests, without the SDK. It waits for connections and for its tasks
 * by poll. The path selects the answer, or what is done MS after it:
 *
 *   /visits       the number of requests so far
 *   /done         how many tasks have run
 *   /late         by how many milliseconds the last one was late
 *   /count        how far the thread of /spin has counted
 *   /spin         starts a thread that counts and never rests
 *   /task?MS      a task runs, by the timeout of poll
 *   /thread?MS    a task runs, on a thread that sleeps
 *   /talk?MS      something is written to the request's connection that answers nothing
 *   /close?MS     the request's connection is closed
 *   /exit?MS      the program ends
 *
 * Where the environment has DONE, a task adds a byte to that file when it runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 32, TEXT = 2048 };

static int connections[MOST];
static struct {
    long at_ms;
    char what;
    int fd;
} tasks[MOST];
static int task_count;
static int visits;
static atomic_int done;
static atomic_long late_ms;
static atomic_ulong count;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void note_done(long was_late_ms) {
    const char *path = getenv("DONE");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd >= 0) {
        if (write(fd, "x", 1) != 1) perror("write");
        close(fd);
    }
    atomic_store(&late_ms, was_late_ms);
    atomic_fetch_add(&done, 1);
}

static void *never_rest(void *nothing) {
    for (;;)
        atomic_fetch_add(&count, 1);
    return nothing;
}

static void *sleep_and_do(void *argument) {
    long ms = (long)argument, at_ms = now_ms() + ms;
    struct timespec moment = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&moment, NULL);
    note_done(now_ms() - at_ms);
    return NULL;
}

static void start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument)) die("pthread_create");
    pthread_detach(thread);
}

static void forget(int fd) {
    for (int i = 0; i < MOST; i++)
        if (connections[i] == fd) connections[i] = -1;
    close(fd);
}

static void do_task(int number) {
    static const char unasked[] = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nunasked";
    long was_late_ms = now_ms() - tasks[number].at_ms;
    switch (tasks[number].what) {
    case 't':
        if (write(tasks[number].fd, unasked, sizeof unasked - 1) < 0) perror("write");
        break;
    case 'c':
        forget(tasks[number].fd);
        break;
    case 'e':
        exit(3);
    default:
        break;
    }
    tasks[number] = tasks[--task_count];
    note_done(was_late_ms);
}

static int is(const char *path, const char *what) { return !strcmp(path, what); }

static void add_task(char what, long ms, int fd) {
    if (task_count == MOST) die("too many tasks");
    tasks[task_count].at_ms = now_ms() + ms;
    tasks[task_count].what = what;
    tasks[task_count++].fd = fd;
}

static void serve(int fd) {
    char text[TEXT] = "", path[TEXT] = "/", body[64] = "yes";
    ssize_t got = read(fd, text, sizeof text - 1);
    if (got <= 0) {
        forget(fd);
        return;
    }
    sscanf(text, "%*s %2047s", path);
    char *query = strchr(path, '?');
    if (query) *query++ = 0;
    long ms = query ? atol(query) : 0;
    visits++;
    if (is(path, "/visits")) snprintf(body, sizeof body, "%d", visits);
    if (is(path, "/done")) snprintf(body, sizeof body, "%d", atomic_load(&done));
    if (is(path, "/late")) snprintf(body, sizeof body, "%ld", atomic_load(&late_ms));
    if (is(path, "/count")) snprintf(body, sizeof body, "%lu", atomic_load(&count));
    if (is(path, "/spin")) start(never_rest, NULL);
    if (is(path, "/thread")) start(sleep_and_do, (void *)ms);
    if (is(path, "/task")) add_task('d', ms, -1);
    if (is(path, "/talk")) add_task('t', ms, fd);
    if (is(path, "/close")) add_task('c', ms, fd);
    if (is(path, "/exit")) add_task('e', ms, -1);
    int size = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body);
    if (write(fd, text, (size_t)size) != size) die("write");
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16))
        die("listen");
    for (int i = 0; i < MOST; i++)
        connections[i] = -1;
    for (;;) {
        struct pollfd fds[MOST + 1];
        long left_ms = -1;
        for (int i = 0; i < MOST; i++)
            fds[i] = (struct pollfd){.fd = connections[i], .events = POLLIN};
        fds[MOST] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int i = 0; i < task_count; i++) {
            long ms = tasks[i].at_ms - now_ms();
            if (left_ms < 0 || ms < left_ms) left_ms = ms < 0 ? 0 : ms;
        }
        int ready = poll(fds, MOST + 1, (int)left_ms);
        if (ready < 0 && errno != EINTR) die("poll");
        for (int i = task_count - 1; i >= 0; i--)
            if (tasks[i].at_ms <= now_ms()) do_task(i);
        if (ready <= 0) continue;
        for (int i = 0; i < MOST; i++)
            if (fds[i].revents && connections[i] == fds[i].fd && fds[i].fd >= 0) serve(fds[i].fd);
        if (fds[MOST].revents) {
            int fd = accept(listener, NULL, NULL);
            for (int i = 0; i < MOST && fd >= 0; i++)
                if (connections[i] < 0) {
                    connections[i] = fd;
                    fd = -1;
                }
            if (fd >= 0) close(fd);
        }
    }
}
