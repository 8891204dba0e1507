/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Sockets within one program, natively and in a machine. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "say.h"

static char buffer[1 << 17];

static int polled(int fd) {
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    int count = poll(&entry, 1, 0);
    return count < 0 ? -errno : entry.revents;
}

// Waits for one of these events, or a hang-up. Natively, on a slow machine, the other end gets it later.
static void arrives(int fd, int events) {
    struct pollfd entry = {fd, (short)events, 0};
    poll(&entry, 1, 5000);
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) < 0 ? -errno : value;
}

static int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

static void pairs(void) {
    int ends[2], left;
    SAY(socketpair(AF_INET, SOCK_STREAM, 0, ends));
    SAY(socketpair(AF_UNIX, 77, 0, ends));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 5, ends));
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, UNMAPPED));
    SAY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends));
    SAY(fcntl(ends[0], F_GETFD));
    SAY(fcntl(ends[1], F_GETFL));
    SAY(polled(ends[0]));
    SAY(read(ends[0], buffer, 10));
    SAY(send(ends[0], "hello", 5, 0));
    SAY(write(ends[0], " world", 6));
    SAY(polled(ends[1]));
    SAY(ioctl(ends[1], FIONREAD, &left));
    SAY(left);
    SAY(recv(ends[1], buffer, 5, MSG_PEEK));
    SAY(recv(ends[1], buffer, 7, 0));
    SAY(memcmp(buffer, "hello w", 7));
    SAY(recv(ends[1], UNMAPPED, 7, 0));
    struct iovec parts[2] = {{buffer, 2}, {buffer + 100, 50}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    SAY(recvmsg(ends[1], &message, 0));
    SAY(message.msg_flags);
    SAY(memcmp(buffer + 100, "ld", 2));
    parts[0].iov_len = 1;
    parts[1].iov_len = 3;
    SAY(sendmsg(ends[1], &message, 0));
    SAY(writev(ends[1], parts, 2));
    SAY(recv(ends[0], buffer, 100, MSG_WAITALL | MSG_DONTWAIT));
    struct stat status;
    SAY(fstat(ends[0], &status));
    SAY(status.st_mode);
    SAY(lseek(ends[0], 0, SEEK_CUR));
    SAY(option(ends[0], SOL_SOCKET, SO_TYPE));
    SAY(option(ends[0], SOL_SOCKET, SO_DOMAIN));
    SAY(option(ends[0], SOL_SOCKET, SO_PROTOCOL));
    SAY(option(ends[0], SOL_SOCKET, SO_ERROR));
    SAY(option(ends[0], SOL_SOCKET, 9999));
    SAY(shutdown(ends[0], 9));
    SAY(shutdown(ends[0], SHUT_WR));
    SAY(polled(ends[0]));
    SAY(polled(ends[1]));
    SAY(send(ends[0], "x", 1, MSG_NOSIGNAL));
    SAY(read(ends[1], buffer, 10));
    SAY(write(ends[1], "abc", 3));
    SAY(close(ends[1]));
    SAY(polled(ends[0]));
    SAY(read(ends[0], buffer, 10));
    SAY(read(ends[0], buffer, 10));
    SAY(close(ends[0]));
    // Closing with unread data.
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    write(ends[0], "abc", 3);
    SAY(close(ends[1]));
    SAY(polled(ends[0]));
    SAY(read(ends[0], buffer, 10));
    SAY(read(ends[0], buffer, 10));
    SAY(write(ends[0], "abc", 3));
    close(ends[0]);
    // Messages.
    for (int kind = SOCK_DGRAM; kind <= SOCK_SEQPACKET; kind += SOCK_SEQPACKET - SOCK_DGRAM) {
        SAY(socketpair(AF_UNIX, kind | SOCK_NONBLOCK, 0, ends));
        SAY(send(ends[0], "one", 3, 0));
        SAY(send(ends[0], "twelve", 6, 0));
        SAY(ioctl(ends[1], FIONREAD, &left));
        SAY(recv(ends[1], buffer, 100, MSG_PEEK));
        SAY(recv(ends[1], buffer, 100, 0));
        message.msg_iovlen = 1;
        parts[0].iov_len = 2;
        SAY(recvmsg(ends[1], &message, MSG_TRUNC));
        SAY(message.msg_flags & MSG_TRUNC);
        SAY(recv(ends[1], buffer, 100, 0));
        SAY(polled(ends[0]));
        SAY(close(ends[1]));
        SAY(polled(ends[0]));
        SAY(send(ends[0], "x", 1, 0));
        SAY(recv(ends[0], buffer, 100, 0));
        SAY(close(ends[0]));
    }
    // Edge-triggered events.
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends);
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP | EPOLLET, {.u64 = 7}};
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    SAY(epoll_wait(epoll, &event, 1, 0));
    write(ends[1], "abc", 3);
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(event.events);
    SAY(epoll_wait(epoll, &event, 1, 0));
    write(ends[1], "abc", 3);
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(read(ends[0], buffer, 100));
    SAY(epoll_wait(epoll, &event, 1, 0));
    shutdown(ends[1], SHUT_WR);
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(event.events);
    SAY(epoll_wait(epoll, &event, 1, 0));
    close(ends[1]);
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(event.events);
    close(ends[0]);
    close(epoll);
}

static void options(int fd) {
    SAY(option(fd, SOL_SOCKET, SO_REUSEADDR));
    SAY(set(fd, SOL_SOCKET, SO_REUSEADDR, 5));
    SAY(option(fd, SOL_SOCKET, SO_REUSEADDR));
    SAY(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, buffer, 3));
    SAY(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, UNMAPPED, 4));
    SAY(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, buffer, -1));
    SAY(set(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
    SAY(set(fd, SOL_SOCKET, SO_SNDBUF, 10000));
    SAY(option(fd, SOL_SOCKET, SO_SNDBUF));
    SAY(set(fd, SOL_SOCKET, SO_RCVBUF, 1));
    SAY(option(fd, SOL_SOCKET, SO_RCVBUF));
    SAY(set(fd, SOL_SOCKET, SO_TYPE, 1));
    SAY(set(fd, SOL_SOCKET, SO_ERROR, 1));
    SAY(set(fd, IPPROTO_TCP, TCP_NODELAY, 7));
    SAY(option(fd, IPPROTO_TCP, TCP_NODELAY));
    SAY(option(fd, IPPROTO_TCP, TCP_KEEPIDLE));
    SAY(set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15));
    SAY(set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 0));
    SAY(option(fd, IPPROTO_TCP, TCP_KEEPIDLE));
    SAY(set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15));
    SAY(set(fd, IPPROTO_TCP, TCP_KEEPCNT, 500));
    SAY(set(fd, IPPROTO_TCP, TCP_QUICKACK, 1));
    SAY(set(fd, IPPROTO_TCP, 9999, 1));
    SAY(set(fd, IPPROTO_IP, IP_TOS, 16));
    SAY(option(fd, IPPROTO_IP, IP_TOS));
    SAY(set(fd, 9999, 1, 1));
    struct linger linger = {1, 5}, told = {0, 0};
    socklen_t length = sizeof told;
    SAY(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    SAY(getsockopt(fd, SOL_SOCKET, SO_LINGER, &told, &length));
    SAY(told.l_onoff * 100 + told.l_linger);
    linger.l_onoff = 0;
    SAY(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    struct timeval timeout = {0, 30000}, seen = {9, 9};
    SAY(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    length = sizeof seen;
    SAY(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &seen, &length));
    SAY(seen.tv_sec);
    timeout.tv_usec = 2000000;
    SAY(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout));
    timeout.tv_usec = 0;
    SAY(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    length = 2;
    int value = 0;
    SAY(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length));
    SAY(length);
}

static void *echo(void *argument) {
    int listener = *(int *)argument;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ssize_t got;
    while ((got = recv(fd, buffer, sizeof buffer, 0)) > 0)
        send(fd, buffer, got, 0);
    shutdown(fd, SHUT_WR);
    close(fd);
    return NULL;
}

static void network(int domain) {
    struct sockaddr_storage address, other;
    socklen_t length = domain == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6),
              size = sizeof other;
    memset(&address, 0, sizeof address);
    address.ss_family = domain;
    if (domain == AF_INET) {
        ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
        ((struct sockaddr_in6 *)&address)->sin6_addr = in6addr_loopback;
    }
    SAY(socket(domain, 99, 0));
    SAY(socket(domain, SOCK_STREAM, IPPROTO_UDP));
    SAY(socket(domain, SOCK_STREAM | 0x100, 0));
    int listener = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    options(listener);
    SAY(polled(listener));
    SAY(recv(listener, buffer, 1, 0));
    SAY(send(listener, buffer, 1, MSG_NOSIGNAL));
    SAY(accept(listener, NULL, NULL));
    SAY(getpeername(listener, (struct sockaddr *)&other, &size));
    SAY(bind(listener, (struct sockaddr *)&address, 3));
    SAY(bind(listener, (struct sockaddr *)&address, 4000));
    SAY(bind(listener, UNMAPPED, length));
    SAY(bind(0, (struct sockaddr *)&address, length));
    SAY(bind(listener, (struct sockaddr *)&address, length));
    SAY(bind(listener, (struct sockaddr *)&address, length));
    SAY(getsockname(listener, (struct sockaddr *)&address, &size));
    SAY(size);
    SAY(address.ss_family == domain && ((struct sockaddr_in *)&address)->sin_port != 0);
    SAY(option(listener, SOL_SOCKET, SO_ACCEPTCONN));
    SAY(listen(listener, 5));
    SAY(listen(listener, 10));
    SAY(option(listener, SOL_SOCKET, SO_ACCEPTCONN));
    SAY(polled(listener));
    SAY(fcntl(listener, F_SETFL, O_NONBLOCK));
    SAY(accept(listener, NULL, NULL));
    int rival = socket(domain, SOCK_STREAM, 0);
    SAY(bind(rival, (struct sockaddr *)&address, length));
    SAY(shutdown(rival, SHUT_RD));
    close(rival);
    // A connection.
    int client = socket(domain, SOCK_STREAM, 0);
    SAY(connect(client, (struct sockaddr *)&address, 3));
    SAY(connect(client, (struct sockaddr *)&address, length));
    SAY(connect(client, (struct sockaddr *)&address, length));
    SAY(polled(client));
    arrives(listener, POLLIN);
    SAY(polled(listener));
    size = 4;
    SAY(accept4(listener, NULL, NULL, 0x77777));
    int server = accept4(listener, (struct sockaddr *)&other, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    SAY(size);
    SAY(fcntl(server, F_GETFL));
    SAY(fcntl(server, F_GETFD));
    SAY(option(server, IPPROTO_TCP, TCP_NODELAY));
    size = sizeof other;
    struct sockaddr_storage mine;
    SAY(getsockname(client, (struct sockaddr *)&mine, &size));
    SAY(getpeername(server, (struct sockaddr *)&other, &size));
    SAY(memcmp(&mine, &other, length));
    SAY(getpeername(client, (struct sockaddr *)&other, &size));
    SAY(memcmp(&address, &other, length));
    SAY(getsockname(server, (struct sockaddr *)&other, &size));
    SAY(memcmp(&address, &other, length));
    SAY(recv(server, buffer, 100, 0));
    SAY(send(client, "request", 7, 0));
    arrives(server, POLLIN);
    SAY(polled(server));
    size = sizeof other;
    SAY(recvfrom(server, buffer, 3, 0, (struct sockaddr *)&other, &size));
    SAY(size);
    SAY(recv(server, buffer, 100, MSG_TRUNC));
    SAY(recv(server, buffer, 100, MSG_DONTWAIT));
    SAY(sendto(server, "answer", 6, 0, NULL, 0));
    SAY(recv(client, buffer, 6, MSG_WAITALL));
    SAY(shutdown(client, SHUT_WR));
    arrives(server, POLLRDHUP);
    SAY(polled(server));
    SAY(read(server, buffer, 10));
    SAY(write(server, "more", 4));
    SAY(close(server));
    arrives(client, 0);
    SAY(polled(client));
    SAY(read(client, buffer, 10));
    SAY(read(client, buffer, 10));
    SAY(close(client));
    // A non-blocking one.
    client = socket(domain, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SAY(connect(client, (struct sockaddr *)&address, length));
    arrives(client, POLLOUT);
    SAY(polled(client));
    SAY(option(client, SOL_SOCKET, SO_ERROR));
    SAY(connect(client, (struct sockaddr *)&address, length));
    SAY(connect(client, (struct sockaddr *)&address, length));
    arrives(listener, POLLIN);
    server = accept(listener, NULL, NULL);
    SAY(close(server));
    arrives(client, POLLRDHUP);
    SAY(polled(client));
    SAY(write(client, "x", 1));
    arrives(client, 0);
    SAY(write(client, "x", 1));
    SAY(close(client));
    // Another thread.
    fcntl(listener, F_SETFL, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, echo, &listener);
    client = socket(domain, SOCK_STREAM, 0);
    SAY(connect(client, (struct sockaddr *)&address, length));
    SAY(send(client, "there and back", 14, 0));
    SAY(recv(client, buffer, 100, 0));
    SAY(shutdown(client, SHUT_WR));
    SAY(recv(client, buffer, 100, 0));
    pthread_join(thread, NULL);
    close(client);
    // A timeout.
    struct timeval timeout = {0, 20000};
    SAY(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    SAY(accept(listener, NULL, NULL));
    // No listener.
    SAY(close(listener));
    client = socket(domain, SOCK_STREAM, 0);
    SAY(connect(client, (struct sockaddr *)&address, length));
    close(client);
    client = socket(domain, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SAY(connect(client, (struct sockaddr *)&address, length));
    arrives(client, POLLOUT);
    SAY(polled(client));
    SAY(option(client, SOL_SOCKET, SO_ERROR));
    SAY(option(client, SOL_SOCKET, SO_ERROR));
    close(client);
}

static void files(void) {
    int ends[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    int file = open("/tmp", O_RDWR | O_TMPFILE, 0600);
    char name[] = "/tmp/mayfly-sockets-XXXXXX";
    if (file < 0) {
        file = mkstemp(name);
        unlink(name);
    }
    SAY(write(file, "0123456789", 10));
    off_t offset = 2;
    SAY(sendfile(ends[0], file, &offset, 5));
    SAY(offset);
    SAY(recv(ends[1], buffer, 100, 0));
    SAY(memcmp(buffer, "23456", 5));
    SAY(lseek(file, 8, SEEK_SET));
    SAY(sendfile(ends[0], file, NULL, 100));
    SAY(lseek(file, 0, SEEK_CUR));
    SAY(sendfile(ends[0], file, NULL, 100));
    SAY(sendfile(ends[0], ends[1], NULL, 100));
    SAY(sendfile(99, file, NULL, 100));
    close(ends[1]);
    SAY(sendfile(ends[0], file, &offset, 5));
    close(ends[0]);
    close(file);
}

static void names(void) {
    struct sockaddr_un name = {AF_UNIX, ""}, other;
    socklen_t size = sizeof other, length = sizeof(sa_family_t) + 20;
    snprintf(name.sun_path + 1, 30, "mayfly-test-%07d", getpid() % 10000000);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(polled(listener));
    SAY(listen(listener, 1));
    SAY(getsockname(listener, (struct sockaddr *)&other, &size));
    SAY(size);
    SAY(bind(listener, (struct sockaddr *)&name, length));
    SAY(listen(listener, 1));
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(bind(client, (struct sockaddr *)&name, length));
    SAY(connect(client, (struct sockaddr *)&name, length));
    SAY(send(client, "x", 1, 0));
    size = sizeof other;
    int server = accept(listener, (struct sockaddr *)&other, &size);
    SAY(size);
    size = sizeof other;
    SAY(getpeername(client, (struct sockaddr *)&other, &size));
    SAY(size);
    SAY(recv(server, buffer, 10, 0));
    close(server);
    SAY(send(client, "x", 1, MSG_NOSIGNAL));
    close(client);
    close(listener);
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(client, (struct sockaddr *)&name, length));
    snprintf(name.sun_path, sizeof name.sun_path, "/none/socket");
    SAY(connect(client, (struct sockaddr *)&name, sizeof name));
    close(client);
    SAY(socket(AF_UNIX, SOCK_STREAM, 9));
    int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    SAY(polled(datagram));
    SAY(send(datagram, "x", 1, 0));
    SAY(recv(datagram, buffer, 1, 0));
    SAY(listen(datagram, 1));
    SAY(accept(datagram, NULL, NULL));
    close(datagram);
    // Datagrams that nothing receives.
    static char large[65508];
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    datagram = socket(AF_INET, SOCK_DGRAM, 0);
    SAY(sendto(datagram, large, 65507, 0, (struct sockaddr *)&port, sizeof port));
    SAY(sendto(datagram, large, 65508, 0, (struct sockaddr *)&port, sizeof port));
    close(datagram);
    datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un none[] = {{AF_UNIX, "/no/such/socket"}, {AF_UNIX, "/dev/null"}, {AF_UNIX, "\0no socket"}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        SAY(connect(datagram, (struct sockaddr *)&none[i], sizeof none[i]));
        SAY(sendto(datagram, "x", 1, 0, (struct sockaddr *)&none[i], sizeof none[i]));
    }
    close(datagram);
}

// Listens on many addresses and connects to each, until that is refused.
static void crowd(void) {
    struct sockaddr_un name = {AF_UNIX, ""};
    socklen_t length = sizeof(sa_family_t) + 6;
    for (int i = 0; i < 900; i++) {
        int listener = socket(AF_UNIX, SOCK_STREAM, 0);
        snprintf(name.sun_path + 1, 10, "%05d", i);
        if (bind(listener, (struct sockaddr *)&name, length) || listen(listener, 4096)) exit(1);
        for (int j = 0; j < 4000; j++) {
            int client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
            int result = connect(client, (struct sockaddr *)&name, length);
            close(client);
            if (result) {
                puts(i < 2 && errno == EAGAIN ? "crowded" : "odd");
                exit(0);
            }
        }
    }
    puts("endless");
    exit(2);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "crowd")) crowd();
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    signal(SIGPIPE, SIG_IGN);
    pairs();
    network(AF_INET);
    network(AF_INET6);
    files();
    names();
    return 0;
}
