// SPDX-License-Identifier: MIT OR Apache-2.0
// Many threads that wait at the same time, and two that exchange a lot of data.

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

static int sockets[2];
static int never;
static int go;

static void *take_all(void *into) { return (void *)recv(sockets[1], into, CHUNK, MSG_WAITALL); }

// Both calls take many steps, each of which enables the other's next.
static void pass(void) {
    unsigned char *from = malloc(CHUNK), *into = malloc(CHUNK);
    for (int i = 0; i < CHUNK; i++)
        from[i] = (unsigned char)(i * 7 + i / 251);
    pthread_t taker;
    for (int round = 0; round < 4; round++) {
        memset(into, 0, CHUNK);
        socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
        pthread_create(&taker, NULL, take_all, into);
        ssize_t sent = send(sockets[0], from, CHUNK, 0);
        void *got;
        pthread_join(taker, &got);
        printf("sent %zd, got %zd, %s\n", sent, (ssize_t)got,
               memcmp(from, into, CHUNK) == 0 ? "the same" : "different");
        close(sockets[0]);
        close(sockets[1]);
    }
}

static atomic_int arrived;

static void *wait_for_nothing(void *unused) {
    atomic_fetch_add(&arrived, 1);
    struct epoll_event event;
    epoll_wait(never, &event, 1, -1);
    return unused;
}

// Many threads wait for many events, none of which happens. Any other event may make each of them check again.
static int stand_around(int threads, int things) {
    never = epoll_create1(0);
    for (int i = 0; i < things; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(never, EPOLL_CTL_ADD, eventfd(0, 0), &event) != 0) return 2;
    }
    go = eventfd(0, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, wait_for_nothing, NULL) != 0) return 3;
    }
    // By the end of the last sleep, all other threads wait.
    while (atomic_load(&arrived) < threads)
        poll(NULL, 0, 1);
    poll(NULL, 0, 1);
    if (write(1, "ready\n", 6) != 6) return 4;
    eventfd_write(go, 1);
    // Long enough that all are looked at before it is over, on slow machines, too.
    poll(NULL, 0, 50);
    _exit(write(1, "done\n", 5) != 5);
}

int main(int argc, char **argv) {
    if (argc == 4) return stand_around(atoi(argv[2]), atoi(argv[3]));
    pass();
    return 0;
}
