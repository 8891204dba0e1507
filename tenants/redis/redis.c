// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A tenant whose state is in a Redis server: it speaks RESP over its own TCP connection. The server is REDIS=HOST:PORT
// in the environment (default: 127.0.0.1:6379); the tenant's configuration has to list it under `outbound`.
//
//     POST .../set?KEY     keeps the body: 204
//     GET  .../get?KEY     200 and the value, or 404
//     POST .../incr?KEY    200 and the new number
//     POST .../push?KEY    puts the body into a list: 200 and the list's size
//     GET  .../pop?KEY     takes from a list, and waits up to 5 seconds for something to be put there: 200, or 404
//
// 502 with the reason if Redis cannot be reached. A connection is kept from request to request where the program's
// state is (`"ephemeral": false`); otherwise each request makes its own, since a reset takes it away.

#define _DEFAULT_SOURCE
#include "mayfly.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { VALUE_MAX = 1 << 20, LINE_BYTES = 512, COMMAND_PARTS_MAX = 4 };

static int redis = -1;
static char host[256] = "127.0.0.1", port[8] = "6379";
static const char *problem; // Why Redis cannot be reached.

static void hang_up(void) {
    close(redis);
    redis = -1;
}

// A connection with Redis, or 0.
static int dial(void) {
    if (redis >= 0) return 1;
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(host, port, &wanted, &found);
    if (error != 0) {
        problem = gai_strerror(error);
        return 0;
    }
    for (struct addrinfo *at = found; at && redis < 0; at = at->ai_next) {
        redis = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (redis >= 0 && connect(redis, at->ai_addr, at->ai_addrlen) != 0) {
            problem = strerror(errno);
            hang_up();
        }
    }
    freeaddrinfo(found);
    if (redis < 0) return 0;
    int on = 1;
    setsockopt(redis, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return 1;
}

static int send_all(const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t sent = send(redis, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        bytes += sent;
        size -= (size_t)sent;
    }
    return 1;
}

static int receive_all(char *bytes, size_t size) {
    while (size > 0) {
        ssize_t got = recv(redis, bytes, size, 0);
        if (got <= 0) return 0;
        bytes += got;
        size -= (size_t)got;
    }
    return 1;
}

// A line without its CR LF.
static int receive_line(char *line) {
    for (size_t at = 0; at < LINE_BYTES; ++at) {
        if (!receive_all(line + at, 1)) return 0;
        if (at > 0 && line[at] == '\n') {
            line[at - 1] = 0;
            return 1;
        }
    }
    return 0;
}

static char value[VALUE_MAX + 2];

// What Redis has answered.
struct reply {
    char kind; // That of RESP: + - : $ *; 'n' for none; 0 if the connection is no good.
    struct mayfly_bytes bytes;
};

static struct reply receive_reply(void) {
    static char line[LINE_BYTES];
    if (!receive_line(line)) return (struct reply){0};
    const long size = strtol(line + 1, NULL, 10);
    switch (line[0]) {
    case '+':
    case '-':
    case ':':
        return (struct reply){line[0], {line + 1, strlen(line + 1)}};
    case '$':
        if (size < 0) return (struct reply){.kind = 'n'};
        if (size > VALUE_MAX || !receive_all(value, (size_t)size + 2)) return (struct reply){0};
        return (struct reply){'$', {value, (size_t)size}};
    case '*': {
        // Of a list the last element is what is asked for here.
        struct reply last = {.kind = 'n'};
        for (long left = size; left > 0; --left) {
            last = receive_reply();
            if (last.kind == 0) break;
        }
        return last;
    }
    default:
        return (struct reply){0};
    }
}

static int send_command(const struct mayfly_bytes *parts, int count) {
    char head[32];
    if (!send_all(head, (size_t)snprintf(head, sizeof head, "*%d\r\n", count))) return 0;
    for (int i = 0; i < count; ++i) {
        const int size = snprintf(head, sizeof head, "$%zu\r\n", parts[i].size);
        if (!send_all(head, (size_t)size) || !send_all(parts[i].data, parts[i].size) || !send_all("\r\n", 2)) return 0;
    }
    return 1;
}

// Has Redis do something. A kept connection may have been closed meanwhile: then a new one is tried.
static struct reply ask(const struct mayfly_bytes *parts, int count) {
    for (int is_kept = redis >= 0; dial(); is_kept = 0) {
        const struct reply reply = send_command(parts, count) ? receive_reply() : (struct reply){0};
        if (reply.kind != 0) return reply;
        problem = "the connection was lost";
        hang_up();
        if (!is_kept) break;
    }
    return (struct reply){0};
}

static void respond_text(uint32_t status, const char *text) {
    mayfly_respond(status, "text/plain", text, strlen(text));
}

static int ends_with(struct mayfly_bytes path, const char *end) {
    const size_t size = strlen(end);
    return path.size >= size && memcmp((const char *)path.data + path.size - size, end, size) == 0;
}

static void serve(const struct mayfly_request *request) {
    static const struct {
        const char *path, *method, *command, *timeout;
        int has_body;
    } commands[] = {
        {"/set", "POST", "SET", NULL, 1},    {"/get", "GET", "GET", NULL, 0},  {"/incr", "POST", "INCR", NULL, 0},
        {"/push", "POST", "RPUSH", NULL, 1}, {"/pop", "GET", "BLPOP", "5", 0},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i) {
        if (!ends_with(request->path, commands[i].path)) continue;
        if (!mayfly_equal(request->method, commands[i].method)) {
            respond_text(405, "another method\n");
            return;
        }
        struct mayfly_bytes parts[COMMAND_PARTS_MAX] = {{commands[i].command, strlen(commands[i].command)},
                                                        request->query};
        int count = 2;
        if (commands[i].has_body) parts[count++] = request->body;
        if (commands[i].timeout)
            parts[count++] = (struct mayfly_bytes){commands[i].timeout, strlen(commands[i].timeout)};
        const struct reply reply = ask(parts, count);
        if (reply.kind == 0) {
            fprintf(stderr, "redis: %s:%s: %s\n", host, port, problem); // The tenant's log.
            respond_text(502, problem);
        } else if (reply.kind == 'n') {
            respond_text(404, "nothing there\n");
        } else if (reply.kind == '-') {
            mayfly_respond(400, "text/plain", reply.bytes.data, reply.bytes.size);
        } else if (reply.kind == '+') {
            mayfly_respond(204, NULL, NULL, 0);
        } else {
            mayfly_respond(200, "text/plain", reply.bytes.data, reply.bytes.size);
        }
        return;
    }
    respond_text(404, "no such path\n");
}

int main(void) {
    const char *at = getenv("REDIS");
    const char *colon = at ? strrchr(at, ':') : NULL;
    if (colon && (size_t)(colon - at) < sizeof host) {
        snprintf(host, sizeof host, "%.*s", (int)(colon - at), at);
        snprintf(port, sizeof port, "%s", colon + 1);
    }
    for (;;)
        serve(mayfly_wait());
}
