// SPDX-License-Identifier: MIT OR Apache-2.0
// Sockets of different families and of one machine: IPv6 sockets and IPv4 listeners, resets, credentials, and options
// that servers set.
#include "say.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static int listener(int domain, const char *host, int only6, int *port) {
    struct sockaddr_in6 name6 = {.sin6_family = AF_INET6, .sin6_port = htons(*port)};
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t size = domain == AF_INET ? sizeof name : sizeof name6;
    void *address = domain == AF_INET ? (void *)&name : (void *)&name6;
    inet_pton(domain, host, domain == AF_INET ? (void *)&name.sin_addr : (void *)&name6.sin6_addr);
    int fd = socket(domain, SOCK_STREAM, 0);
    if (domain == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only6, sizeof only6);
    if (bind(fd, address, size) || listen(fd, 5)) return -1;
    getsockname(fd, address, &size);
    *port = ntohs(domain == AF_INET ? name.sin_port : name6.sin6_port);
    return fd;
}

static void print_host(const struct sockaddr_storage *name) {
    char text[64];
    const void *at = name->ss_family == AF_INET ? (void *)&((struct sockaddr_in *)name)->sin_addr
                                                : (void *)&((struct sockaddr_in6 *)name)->sin6_addr;
    printf(" %s", inet_ntop(name->ss_family, at, text, sizeof text));
}

// Whether clients bind to any address before they connect.
static int binds;

// Connects; prints the result, and the addresses of both ends. Returns the client.
static int reach(int from, const char *host, int port, int listening, int *server) {
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(from, host, from == AF_INET ? (void *)&to.sin_addr : (void *)&to6.sin6_addr);
    int fd = socket(from, SOCK_STREAM, 0);
    struct sockaddr_storage any = {.ss_family = from};
    if (binds) SAY(bind(fd, (void *)&any, from == AF_INET ? sizeof to : sizeof to6));
    int failed = from == AF_INET ? connect(fd, (void *)&to, sizeof to) : connect(fd, (void *)&to6, sizeof to6);
    printf("%s to %s: %s\n", from == AF_INET ? "4" : "6", host, failed ? strerrorname(errno) : "connected");
    if (failed) {
        close(fd);
        return -1;
    }
    struct sockaddr_storage accepted;
    socklen_t accepted_size = sizeof accepted;
    *server = accept4(listening, (void *)&accepted, &accepted_size, 0);
    print_host(&accepted);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_storage name;
        socklen_t size = sizeof name;
        if (i % 2)
            getpeername(i < 2 ? fd : *server, (void *)&name, &size);
        else
            getsockname(i < 2 ? fd : *server, (void *)&name, &size);
        print_host(&name);
    }
    puts("");
    return fd;
}

static void families(void) {
    static const struct {
        int domain;
        const char *host;
        int only6;
    } listeners[] = {{AF_INET, "127.0.0.1", 0}, {AF_INET, "0.0.0.0", 0}, {AF_INET6, "::", 0},
                     {AF_INET6, "::", 1},       {AF_INET6, "::1", 0},    {AF_INET6, "::ffff:127.0.0.1", 0}};
    for (size_t i = 0; i < sizeof listeners / sizeof *listeners; i++) {
        int port = 0, server;
        int fd = listener(listeners[i].domain, listeners[i].host, listeners[i].only6, &port);
        printf("listening on %s%s\n", listeners[i].host, listeners[i].only6 ? " alone" : "");
        static const char *const targets[] = {"127.0.0.1", "0.0.0.0"}, *const targets6[] = {"::1", "::ffff:127.0.0.1",
                                                                                            "::"};
        for (int t = 0; t < 2; t++) {
            int client = reach(AF_INET, targets[t], port, fd, &server);
            if (client >= 0) close(client), close(server);
        }
        for (int t = 0; t < 3; t++) {
            int client = reach(AF_INET6, targets6[t], port, fd, &server);
            if (client >= 0) close(client), close(server);
        }
        close(fd);
    }
}

static void resets(void) {
    int port = 0, server;
    int fd = listener(AF_INET, "127.0.0.1", 0, &port);
    for (int on = 0; on < 2; on++) {
        int client = reach(AF_INET, "127.0.0.1", port, fd, &server);
        struct linger linger = {on, 0};
        char byte;
        SAY(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
        close(client);
        struct pollfd waits = {server, POLLIN, 0};
        poll(&waits, 1, 1000);
        SAY(recv(server, &byte, 1, 0));
        SAY(recv(server, &byte, 1, 0));
        close(server);
    }
    close(fd);
}

static void timeouts(void) {
    int ends[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    struct timeval negative = {-1, 0}, told = {7, 7};
    socklen_t size = sizeof told;
    char byte;
    SAY(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &negative, sizeof negative));
    SAY(recv(ends[0], &byte, 1, 0));
    SAY(getsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &told, &size));
    printf("%ld %ld\n", (long)told.tv_sec, (long)told.tv_usec);
    close(ends[0]);
    close(ends[1]);
}

static void receive(int fd) {
    char byte, control[128] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    SAY(recvmsg(fd, &message, 0));
    printf("flags %d, size %zu:", message.msg_flags, message.msg_controllen);
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        printf(" type %d", head->cmsg_type);
        if (head->cmsg_type == SCM_CREDENTIALS) {
            struct ucred *from = (void *)CMSG_DATA(head);
            printf(" mine %d", from->pid == getpid() && from->uid == getuid() && from->gid == getgid());
        } else {
            close(*(int *)CMSG_DATA(head));
        }
    }
    puts("");
}

static void send_with(int fd, struct ucred *credentials, int descriptor) {
    char control[128] = {0};
    struct iovec vector = {"x", 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control};
    struct cmsghdr *head = (void *)control;
    if (credentials) {
        *head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof *credentials), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
        memcpy(CMSG_DATA(head), credentials, sizeof *credentials);
        message.msg_controllen = CMSG_SPACE(sizeof *credentials);
        head = (void *)(control + message.msg_controllen);
    }
    if (descriptor >= 0) {
        *head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof descriptor), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(head), &descriptor, sizeof descriptor);
        message.msg_controllen += CMSG_SPACE(sizeof descriptor);
    }
    SAY(sendmsg(fd, &message, 0));
}

static void credentials(void) {
    int ends[2], on = 1;
    for (int kind = 0; kind < 2; kind++) {
        socketpair(AF_UNIX, kind ? SOCK_SEQPACKET : SOCK_STREAM, 0, ends);
        struct ucred own = {getpid(), getuid(), getgid()};
        send_with(ends[1], &own, -1);
        receive(ends[0]);
        SAY(setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
        SAY(send(ends[1], "x", 1, 0));
        receive(ends[0]);
        send_with(ends[1], &own, 0);
        receive(ends[0]);
        send_with(ends[1], NULL, 0);
        receive(ends[0]);
        close(ends[0]);
        close(ends[1]);
    }
}

static long option(int fd, int level, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd, level, name, &value, &size) ? -1 : value;
}

static void options(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), fd6 = socket(AF_INET6, SOCK_STREAM, 0), one = 1;
    char name[16] = {0};
    socklen_t size = sizeof name;
    SAY(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
    SAY(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size));
    printf("%s %u\n", name, size);
    SAY(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "no such", 7));
    SAY(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "", 0));
    SAY(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one));
    SAY(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one));
    SAY(option(fd, SOL_SOCKET, SO_TIMESTAMPNS));
    SAY(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one));
    SAY(option(fd, SOL_SOCKET, SO_ZEROCOPY));
    SAY(option(fd, IPPROTO_IP, IP_MULTICAST_TTL));
    SAY(option(fd, IPPROTO_IP, IP_MULTICAST_LOOP));
    SAY(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof one));
    SAY(option(fd6, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
    SAY(option(fd6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS));
    SAY(setsockopt(fd6, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof one));
    SAY(setsockopt(fd6, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof one));
    unsigned long cookie = 0;
    size = sizeof cookie;
    SAY(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size));
    SAY(cookie != 0);
    close(fd);
    close(fd6);
}

// Sends the writing end of a pipe, closes it, and receives it where its number cannot be stored: it must be closed.
static void unwritable(int asks_for_sender) {
    int ends[2], pipes[2], free_one = dup(0);
    close(free_one);
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    SAY(pipe(pipes));
    SAY(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &asks_for_sender, sizeof asks_for_sender));
    char byte = 'x';
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr head;
    } control = {{0}};
    control.head =
        (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &pipes[1], sizeof(int));
    struct iovec vector = {&byte, 1};
    struct msghdr out = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    SAY(sendmsg(ends[0], &out, 0));
    close(pipes[1]);
    struct msghdr in = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = UNMAPPED, .msg_controllen = 128};
    SAY(recvmsg(ends[1], &in, 0));
    printf("flags %d, size %zu\n", in.msg_flags, in.msg_controllen);
    SAY(read(pipes[0], &byte, 1));
    close(ends[0]);
    close(ends[1]);
    close(pipes[0]);
    printf("same %d\n", dup(0) == free_one);
    close(free_one);
}

int main(void) {
    families();
    binds = 1;
    families();
    binds = 0;
    resets();
    timeouts();
    credentials();
    unwritable(0);
    unwritable(1);
    options();
    return 0;
}
