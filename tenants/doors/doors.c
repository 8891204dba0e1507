/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An HTTP server that listens on several addresses, without the SDK. It handles its arguments in their order:
 *
 *   once            every connection is closed after its first answer
 *   listen=ADDRESS  listens there: 127.0.0.1:80, [::]:80, /path, @abstract; port 0 is any
 *   only6=ADDRESS   the same, for IPv6 alone
 *   share=ADDRESS   the same, with SO_REUSEPORT
 *   thread=ADDRESS  the same, and a thread of its own accepts there
 *   idle=ADDRESS    listens there, and never accepts
 *   again=N         calls listen once more for the N-th listener
 *   close=N         closes it
 *   sleep=MS        sleeps
 *   later=MS,ADDRESS    listens there after MS, while it waits for connections
 *   tick=MS         wakes every MS while it waits for connections
 *
 * Then it waits for connections to all of them, by poll. The path selects the answer:
 *
 *   /who            number and argument of the listener, the connection's own address, the peer's
 *   /names          the addresses of all listeners
 *   /open?ADDRESS   listens there, from now on
 *   /close?N        closes the N-th listener
 *   /shut?N         ends its listening by shutdown
 *   /reopen?N       closes it, and listens again as its argument says
 *   /again?N        calls listen once more
 *   /ask?N          the answer of the N-th listener to /who, through loopback
 *   /accept?N       waits for the next connection to it
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, TEXT = 1024 };

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

static struct {
    int fd;
    int waits; /* It is waited for in the loop. */
    const char *how, *address;
} listeners[MOST];
static int count;
static struct { int fd, listener; } connections[MOST];
static int once, tick = -1;

static struct {
    long at_ms;
    const char *address;
} later;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(long ms) {
    struct timespec moment = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&moment, NULL);
}

static socklen_t parse(const char *text, union address *address) {
    memset(address, 0, sizeof *address);
    if (*text == '/' || *text == '@') {
        address->un.sun_family = AF_UNIX;
        strncpy(address->un.sun_path, text, sizeof address->un.sun_path - 1);
        if (*text == '@') address->un.sun_path[0] = 0;
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(text) + (*text == '/'));
    }
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon) die("an address without a port");
    uint16_t port = htons((uint16_t)atoi(colon + 1));
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    if (*host == '[') {
        host[strlen(host) - 1] = 0;
        address->v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port};
        if (inet_pton(AF_INET6, host + 1, &address->v6.sin6_addr) != 1) die(text);
        return sizeof address->v6;
    }
    address->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
    if (inet_pton(AF_INET, host, &address->v4.sin_addr) != 1) die(text);
    return sizeof address->v4;
}

static void name(const union address *address, char *text) {
    char host[64] = "";
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        snprintf(text, TEXT, "%s:%d", host, ntohs(address->v4.sin_port));
    } else if (address->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
        snprintf(text, TEXT, "[%s]:%d", host, ntohs(address->v6.sin6_port));
    } else {
        snprintf(text, TEXT, "unix");
    }
}

static void own_name(int fd, char *text) {
    union address address;
    socklen_t size = sizeof address;
    if (getsockname(fd, &address.any, &size)) die("getsockname");
    name(&address, text);
}

static int is(const char *how, const char *what) { return !strcmp(how, what); }

static int make_listener(const char *how, const char *text) {
    union address address;
    socklen_t size = parse(text, &address);
    int on = 1, fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (is(how, "only6")) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (is(how, "share") || is(how, "thread")) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, &address.any, size) || listen(fd, 16)) die(text);
    return fd;
}

static void answer(int fd, const char *body) {
    char text[TEXT * 5];
    int size = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n%s\r\n%s", strlen(body),
                        once ? "connection: close\r\n" : "", body);
    if (write(fd, text, (size_t)size) != size) die("write");
}

static void open_listener(const char *how, const char *address);
static int serve(int fd, int listener);

static void reply(int fd, int listener, const char *path, const char *query) {
    char text[TEXT * 4] = "", one[TEXT], other[TEXT];
    int number = atoi(query);
    if (is(path, "/who")) {
        union address peer = {.any = {.sa_family = AF_UNIX}};
        socklen_t size = sizeof peer;
        getpeername(fd, &peer.any, &size);
        name(&peer, other);
        char *port = strrchr(other, ':');
        if (port) *port = 0;
        own_name(fd, one);
        snprintf(text, sizeof text, "%d %s %s %s", listener, listeners[listener].address, one, other);
    } else if (is(path, "/names")) {
        for (int i = 0; i < count; i++) {
            own_name(listeners[i].fd, one);
            strcat(strcat(text, i ? " " : ""), one);
        }
    } else if (is(path, "/open")) {
        open_listener("listen", strdup(query));
        snprintf(text, sizeof text, "%d", count - 1);
    } else if (is(path, "/close")) {
        close(listeners[number].fd);
        listeners[number].fd = -1;
    } else if (is(path, "/shut")) {
        if (shutdown(listeners[number].fd, SHUT_RDWR)) die("shutdown");
    } else if (is(path, "/reopen")) {
        close(listeners[number].fd);
        listeners[number].fd = make_listener(listeners[number].how, listeners[number].address);
    } else if (is(path, "/again")) {
        if (listen(listeners[number].fd, 8)) die("listen");
    } else if (is(path, "/ask")) {
        union address address;
        socklen_t size = sizeof address;
        if (getsockname(listeners[number].fd, &address.any, &size)) die("getsockname");
        int ask = socket(address.any.sa_family, SOCK_STREAM, 0);
        if (connect(ask, &address.any, size)) die("connect");
        dprintf(ask, "GET /who HTTP/1.1\r\n\r\n");
        int accepted = accept(listeners[number].fd, NULL, NULL);
        if (accepted < 0) die("accept");
        serve(accepted, number);
        ssize_t got = read(ask, one, sizeof one - 1);
        one[got > 0 ? got : 0] = 0;
        char *body = strstr(one, "\r\n\r\n");
        snprintf(text, sizeof text, "%s", body ? body + 4 : "nothing");
        close(ask);
        close(accepted);
    } else if (is(path, "/accept")) {
        int accepted = accept(listeners[number].fd, NULL, NULL);
        snprintf(text, sizeof text, "accepted %d", accepted >= 0);
    } else {
        snprintf(text, sizeof text, "Hello World!");
    }
    answer(fd, text);
}

/* Reads a request, which comes in one piece, and answers it; whether the connection stays open. */
static int serve(int fd, int listener) {
    char text[TEXT * 2], path[TEXT] = "/";
    ssize_t got = read(fd, text, sizeof text - 1);
    if (got <= 0) return 0;
    text[got] = 0;
    sscanf(text, "%*s %1023s", path);
    char *query = strchr(path, '?');
    if (query) *query++ = 0;
    reply(fd, listener, path, query ? query : "");
    return !once;
}

static void *serve_alone(void *argument) {
    int number = *(int *)argument;
    free(argument);
    for (;;) {
        int fd = accept4(listeners[number].fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) die("accept");
        while (serve(fd, number))
            continue;
        close(fd);
    }
    return NULL;
}

static void open_listener(const char *how, const char *address) {
    if (count == MOST) die("too many");
    int waits = !is(how, "thread") && !is(how, "idle");
    listeners[count].fd = make_listener(how, address);
    listeners[count].waits = waits;
    listeners[count].how = how;
    listeners[count].address = address;
    count++;
    if (is(how, "thread")) {
        pthread_t thread;
        int *number = malloc(sizeof *number);
        *number = count - 1;
        if (pthread_create(&thread, NULL, serve_alone, number)) die("pthread_create");
    }
}

static void serve_all(void) {
    for (;;) {
        struct pollfd fds[2 * MOST];
        for (int i = 0; i < MOST; i++) {
            int fd = i < count && listeners[i].waits ? listeners[i].fd : -1;
            fds[i] = (struct pollfd){.fd = fd, .events = POLLIN};
            fds[MOST + i] = (struct pollfd){.fd = connections[i].fd, .events = POLLIN};
        }
        long left = later.address ? later.at_ms - now_ms() : tick;
        int ready = poll(fds, 2 * MOST, later.address && left < 0 ? 0 : (int)left);
        if (ready < 0 && errno != EINTR) die("poll");
        if (later.address && now_ms() >= later.at_ms) {
            open_listener("listen", later.address);
            later.address = NULL;
        }
        for (int i = 0; i < MOST; i++) {
            if (fds[MOST + i].revents && !serve(connections[i].fd, connections[i].listener)) {
                close(connections[i].fd);
                connections[i].fd = -1;
            }
        }
        for (int i = 0; i < MOST; i++) {
            /* A request may have closed it. */
            if (!(fds[i].revents & POLLIN) || listeners[i].fd != fds[i].fd) continue;
            int fd = accept4(fds[i].fd, NULL, NULL, SOCK_CLOEXEC), place = 0;
            while (place < MOST - 1 && connections[place].fd >= 0)
                place++;
            if (fd < 0) continue;
            connections[place].fd = fd;
            connections[place].listener = i;
        }
    }
}

int main(int argc, char **argv) {
    for (int i = 0; i < MOST; i++)
        connections[i].fd = -1;
    for (int i = 1; i < argc; i++) {
        char *how = argv[i], *value = strchr(how, '=');
        if (value) *value++ = 0;
        if (is(how, "once")) {
            once = 1;
        } else if (!value) {
            die(how);
        } else if (is(how, "again")) {
            if (listen(listeners[atoi(value)].fd, 8)) die("listen");
        } else if (is(how, "close")) {
            close(listeners[atoi(value)].fd);
            listeners[atoi(value)].fd = -1;
        } else if (is(how, "sleep")) {
            sleep_ms(atol(value));
        } else if (is(how, "tick")) {
            tick = atoi(value);
        } else if (is(how, "later")) {
            later.at_ms = now_ms() + atol(value);
            later.address = strchr(value, ',') + 1;
        } else {
            open_listener(how, value);
        }
    }
    serve_all();
}
