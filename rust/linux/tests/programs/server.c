/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A server that waits in one of several ways. It answers each read with its size, and exits on `quit`. The way `name`
   answers each read on its only connection with the peer's address, from accept and from getpeername. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "say.h"

static char buffer[1 << 16];

// Whether the connection stays open.
static int serve(int fd) {
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    if (got >= 4 && memcmp(buffer, "quit", 4) == 0) exit(7);
    if (got >= 5 && memcmp(buffer, "large", 5) == 0) {
        static char large[3 << 20];
        memset(large, 'x', sizeof large);
        return write(fd, large, sizeof large) == 1 << 20 && write(fd, large, 1 << 20) == 1 << 20;
    }
    if (got >= 5 && memcmp(buffer, "close", 5) == 0) return 0;
    char answer[32];
    struct iovec parts[2] = {{answer, snprintf(answer, sizeof answer, "%zd", got)}, {"\n", 1}};
    return writev(fd, parts, 2) > 0;
}

static void by_epoll(int listener, unsigned flags) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.fd = listener}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[8];
        int count = epoll_wait(epoll, events, 8, -1);
        if (count < 1) exit(99);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int new = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                struct epoll_event event = {EPOLLIN | flags, {.fd = new}};
                if (new >= 0) epoll_ctl(epoll, EPOLL_CTL_ADD, new, &event);
            } else if (!serve(fd)) {
                close(fd);
            }
        }
    }
}

static void by_poll(int listener) {
    struct pollfd all[16] = {{listener, POLLIN, 0}};
    int count = 1;
    for (;;) {
        if (poll(all, count, -1) < 1) exit(99);
        for (int i = count - 1; i > 0; i--)
            if (all[i].revents && !serve(all[i].fd)) {
                close(all[i].fd);
                all[i] = all[--count];
            }
        if (all[0].revents) all[count++] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
    }
}

static void by_select(int listener) {
    fd_set all;
    FD_ZERO(&all);
    FD_SET(listener, &all);
    for (;;) {
        fd_set ready = all;
        if (select(64, &ready, NULL, NULL, NULL) < 1) exit(99);
        for (int fd = 0; fd < 64; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == listener) {
                int new = accept(listener, NULL, NULL);
                FD_SET(new, &all);
            } else if (!serve(fd)) {
                FD_CLR(fd, &all);
                close(fd);
            }
        }
    }
}

static void *one(void *argument) {
    int fd = (int)(long)argument;
    while (serve(fd)) {
    }
    close(fd);
    return NULL;
}

static void by_threads(int listener) {
    for (;;) {
        pthread_t thread;
        pthread_create(&thread, NULL, one, (void *)(long)accept(listener, NULL, NULL));
        pthread_detach(thread);
    }
}

static void name(int listener) {
    struct sockaddr_in peers[2];
    socklen_t sizes[2] = {sizeof *peers, sizeof *peers};
    int fd = accept(listener, (struct sockaddr *)&peers[0], &sizes[0]);
    while (read(fd, buffer, sizeof buffer) > 0) {
        if (getpeername(fd, (struct sockaddr *)&peers[1], &sizes[1]) || sizes[0] != sizeof *peers) exit(99);
        for (int i = 0; i < 2; i++) {
            char text[INET_ADDRSTRLEN];
            inet_ntop(AF_INET, &peers[i].sin_addr, text, sizeof text);
            dprintf(fd, "%s:%d%s", text, ntohs(peers[i].sin_port), i ? "\n" : " ");
        }
    }
}

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "epoll";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4)) return 1;
    if (!strcmp(way, "edge")) by_epoll(listener, EPOLLET | EPOLLOUT | EPOLLRDHUP);
    if (!strcmp(way, "poll")) by_poll(listener);
    if (!strcmp(way, "select")) by_select(listener);
    if (!strcmp(way, "threads")) by_threads(listener);
    if (!strcmp(way, "name")) name(listener);
    by_epoll(listener, 0);
}
