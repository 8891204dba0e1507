/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Small HTTP servers that know nothing of Mayfly. How they wait is the argument:
 *
 *   accept    one connection after the other, blocking
 *   once      the same, and every connection is closed after its first answer
 *   poll      poll over the listening socket and the connections
 *   epoll     level-triggered epoll
 *   edge      edge-triggered epoll
 *   thread    a thread for each connection, started by an accepting one, and one that only sleeps
 *   tick      epoll that wakes every 20 ms, as a server with a clock does
 *
 * What they answer is the path:
 *
 *   /count          how many requests this process has answered
 *   /echo           the body
 *   /large?N        N bytes, in as many writes as it takes
 *   /chunked        three chunks
 *   /close          an answer that ends with the connection
 *   /sleep?N        after N milliseconds
 *   /bare?S         a head alone, of status S
 *   /bare?S,N       the same, which names the length N: for what has no body, as answers to HEAD
 *   /raw            the body, which is a whole answer
 *   /partial        half an answer, then the connection is closed
 *   /nonsense       bytes that are no answer
 *   /silent         nothing, and the connection is closed
 *   /never          nothing
 *   /spin           nothing, busily
 *   /exit           the program ends
 *   /thread         from another thread, which this one waits for
 *   /behind         the first leaves work to a thread, as to a compiler; how many requests came before it was done
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 32, BUFFER = 1 << 21 };

struct connection {
    int fd;
    size_t size;
    char *buffer;
};

static int counter;
static size_t bytes; /* of all bodies */
static int closes_each;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int send_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t sent = write(fd, data, size);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            poll(&writable, 1, -1);
            continue;
        }
        if (sent <= 0) return 0;
        data += sent;
        size -= (size_t)sent;
    }
    return 1;
}

static int answer(int fd, const char *body, size_t size) {
    char head[128];
    int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n%s\r\n", size,
                          closes_each ? "connection: close\r\n" : "");
    return send_all(fd, head, (size_t)length) && send_all(fd, body, size) && !closes_each;
}

static void *in_a_thread(void *argument) {
    *(int *)argument = 42;
    return NULL;
}

static int is_begun, came_before;
static atomic_int is_done;

static void *work(void *unused) {
    for (volatile long i = 0; i < 5000000; i++)
        continue;
    is_done = 1;
    return unused;
}

static int behind(void) {
    pthread_t thread;
    if (!is_begun) {
        is_begun = 1;
        if (pthread_create(&thread, NULL, work, NULL) || pthread_detach(thread)) die("a thread");
    } else if (!is_done) {
        came_before++;
    }
    return came_before;
}

/* Answers one request; whether the connection stays open. */
static int serve(int fd, const char *path, const char *body, size_t size) {
    char text[64];
    counter++;
    bytes += size;
    const char *query = strchr(path, '?');
    long number = query ? strtol(query + 1, NULL, 10) : 0;
    size_t name = query ? (size_t)(query - path) : strlen(path);
#define IS(what) (name == sizeof(what) - 1 && !memcmp(path, what, name))
    if (IS("/count")) return answer(fd, text, (size_t)snprintf(text, sizeof text, "%d", counter));
    if (IS("/bytes")) return answer(fd, text, (size_t)snprintf(text, sizeof text, "%zu", bytes));
    if (IS("/echo")) return answer(fd, body, size);
    if (IS("/large")) {
        char *large = malloc((size_t)number);
        for (long i = 0; i < number; i++)
            large[i] = (char)('a' + i % 26);
        int open = answer(fd, large, (size_t)number);
        free(large);
        return open;
    }
    if (IS("/chunked")) {
        const char *chunks =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHello\r\n1\r\n \r\n6\r\nWorld!\r\n0\r\n\r\n";
        return send_all(fd, chunks, strlen(chunks));
    }
    if (IS("/close")) {
        const char *all = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
        send_all(fd, all, strlen(all));
        return 0;
    }
    if (IS("/sleep")) {
        struct timespec moment = {number / 1000, number % 1000 * 1000000};
        nanosleep(&moment, NULL);
        return answer(fd, "slept", 5);
    }
    if (IS("/bare")) {
        const char *comma = query ? strchr(query, ',') : NULL;
        char head[128], named[64] = "";
        if (comma) snprintf(named, sizeof named, "content-length: %ld\r\n", strtol(comma + 1, NULL, 10));
        int length =
            snprintf(head, sizeof head, "HTTP/1.1 %ld Bare\r\ncontent-type: text/bare\r\n%s\r\n", number, named);
        return send_all(fd, head, (size_t)length);
    }
    if (IS("/raw")) return send_all(fd, body, size);
    if (IS("/partial")) {
        const char *half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        send_all(fd, half, strlen(half));
        return 0;
    }
    if (IS("/nonsense")) return send_all(fd, "\0\1\2\3 nonsense\r\n\r\n", 17);
    if (IS("/silent")) return 0;
    if (IS("/never")) return 1;
    if (IS("/spin"))
        for (volatile int i = 0;; i++)
            continue;
    if (IS("/exit")) exit(3);
    if (IS("/thread")) {
        pthread_t thread;
        int value = 0;
        if (pthread_create(&thread, NULL, in_a_thread, &value)) return answer(fd, "none", 4);
        pthread_join(thread, NULL);
        return answer(fd, text, (size_t)snprintf(text, sizeof text, "%d", value));
    }
    if (IS("/behind")) return answer(fd, text, (size_t)snprintf(text, sizeof text, "%d", behind()));
    return answer(fd, "Hello World!", 12);
#undef IS
}

/* Reads what there is and answers what is complete; whether the connection stays open. -1: it has said nothing yet. */
static int step(struct connection *it, int flags) {
    ssize_t got = recv(it->fd, it->buffer + it->size, BUFFER - 1 - it->size, flags);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return -1;
    if (got <= 0) return 0;
    it->size += (size_t)got;
    it->buffer[it->size] = 0;
    char *end = strstr(it->buffer, "\r\n\r\n");
    if (!end) return 1;
    char *length = strcasestr(it->buffer, "content-length:");
    size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    size_t head = (size_t)(end + 4 - it->buffer);
    if (it->size < head + body) return 1;
    char path[1024] = "/";
    sscanf(it->buffer, "%*s %1023s", path);
    it->size = 0;
    return serve(it->fd, path, it->buffer + head, body);
}

static void forget(struct connection *it) {
    close(it->fd);
    free(it->buffer);
    *it = (struct connection){.fd = -1};
}

static struct connection take(int listener, int flags) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | flags);
    return (struct connection){.fd = fd, .buffer = fd < 0 ? NULL : malloc(BUFFER)};
}

static void serve_whole(struct connection *it) {
    while (step(it, 0))
        continue;
    forget(it);
}

static void accepting(int listener) {
    for (;;) {
        struct connection it = take(listener, 0);
        if (it.fd >= 0) serve_whole(&it);
    }
}

static void polling(int listener) {
    struct connection all[CONNECTIONS];
    struct pollfd fds[CONNECTIONS + 1];
    for (int i = 0; i < CONNECTIONS; i++)
        all[i].fd = -1;
    for (;;) {
        for (int i = 0; i < CONNECTIONS; i++)
            fds[i] = (struct pollfd){.fd = all[i].fd, .events = POLLIN};
        fds[CONNECTIONS] = (struct pollfd){.fd = listener, .events = POLLIN};
        if (poll(fds, CONNECTIONS + 1, -1) <= 0) die("poll");
        for (int i = 0; i < CONNECTIONS; i++)
            if (fds[i].revents && !step(&all[i], MSG_DONTWAIT)) forget(&all[i]);
        if (!fds[CONNECTIONS].revents) continue;
        struct connection it = take(listener, SOCK_NONBLOCK);
        int i = 0;
        while (i < CONNECTIONS && all[i].fd >= 0)
            i++;
        if (it.fd >= 0 && i < CONNECTIONS) all[i] = it;
    }
}

static void event_loop(int listener, unsigned how, int timeout) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | how, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) die("epoll");
    for (;;) {
        struct epoll_event events[16];
        int ready = epoll_wait(epoll, events, 16, timeout);
        if (ready < 0 || (ready == 0 && timeout < 0)) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *it = events[i].data.ptr;
            if (it) {
                int open = step(it, 0);
                while (how & EPOLLET && open > 0)
                    open = step(it, 0);
                if (!open) {
                    forget(it);
                    free(it);
                }
                continue;
            }
            for (;;) {
                struct connection new = take(listener, SOCK_NONBLOCK);
                if (new.fd < 0) break;
                struct connection *kept = malloc(sizeof *kept);
                *kept = new;
                event = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP | how, .data.ptr = kept};
                epoll_ctl(epoll, EPOLL_CTL_ADD, kept->fd, &event);
            }
        }
    }
}

static void *sleep_for_ever(void *nothing) {
    for (;;) {
        struct timespec moment = {0, 10000000};
        nanosleep(&moment, NULL);
    }
    return nothing;
}

static void *serve_in_thread(void *argument) {
    struct connection *it = argument;
    serve_whole(it);
    free(it);
    return NULL;
}

static void threading(int listener) {
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_for_ever, NULL);
    for (;;) {
        struct connection *it = malloc(sizeof *it);
        *it = take(listener, 0);
        if (it->fd < 0 || pthread_create(&thread, NULL, serve_in_thread, it)) die("a connection");
        pthread_detach(thread);
    }
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "accept";
    int is_event_loop = !strcmp(how, "epoll") || !strcmp(how, "edge") || !strcmp(how, "tick");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (is_event_loop ? SOCK_NONBLOCK : 0), 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8000), .sin_addr.s_addr = htonl(INADDR_ANY)};
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) die("listen");
    closes_each = !strcmp(how, "once");
    if (!strcmp(how, "accept") || closes_each) accepting(listener);
    if (!strcmp(how, "poll")) polling(listener);
    if (!strcmp(how, "thread")) threading(listener);
    if (is_event_loop) event_loop(listener, strcmp(how, "edge") ? 0 : EPOLLET, strcmp(how, "tick") ? -1 : 20);
    fprintf(stderr, "no such way: %s\n", how);
    return 2;
}
