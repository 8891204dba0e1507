/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Talks to a server outside: remote PORT CLOSED-PORT [MODE]. The first byte on a connection selects what the
 * server does. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "say.h"

static struct sockaddr_in to;
static char buffer[1 << 20];

static int dial(int flags) {
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    int result = connect(fd, (struct sockaddr *)&to, sizeof to);
    if (result != 0 && errno != EINPROGRESS) printf("connect: error %d\n", errno);
    return fd;
}

static int dial_for(char what) {
    int fd = dial(0);
    if (write(fd, &what, 1) != 1) printf("no server\n");
    return fd;
}

static int so_error(int fd) {
    int error = -1;
    socklen_t len = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

// Reads this many bytes, or to the end.
static size_t read_all(int fd, char *to, size_t len) {
    size_t done = 0;
    while (done < len) {
        ssize_t got = read(fd, to + done, len - done);
        if (got <= 0) break;
        done += got;
    }
    return done;
}

static void echo(void) {
    int fd = dial_for('e');
    struct sockaddr_in name;
    socklen_t len = sizeof name;
    SAY(getpeername(fd, (struct sockaddr *)&name, &len));
    printf("%s %d\n", inet_ntoa(name.sin_addr), name.sin_port == to.sin_port);
    SAY(getsockname(fd, (struct sockaddr *)&name, &len));
    printf("%s %d\n", inet_ntoa(name.sin_addr), name.sin_port != 0);
    int on = 1;
    SAY(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    SAY(connect(fd, (struct sockaddr *)&to, sizeof to));
    SAY(listen(fd, 1));
    SAY(bind(fd, (struct sockaddr *)&name, sizeof name));
    SAY(write(fd, "hello", 5));
    SAY(recv(fd, buffer, 3, MSG_WAITALL | MSG_PEEK));
    SAY(recv(fd, buffer, 5, MSG_WAITALL));
    printf("%.5s\n", buffer);
    struct iovec out[3] = {{"ab", 2}, {"", 0}, {"cde", 3}}, in[2] = {{buffer, 2}, {buffer + 100, 50}};
    SAY(writev(fd, out, 3));
    struct pollfd poll_in = {fd, POLLIN, 0};
    SAY(poll(&poll_in, 1, 5000));
    int there = 0;
    SAY(ioctl(fd, FIONREAD, &there));
    SAY(there);
    SAY(readv(fd, in, 2));
    printf("%.2s%.3s\n", buffer, buffer + 100);
    SAY(recv(fd, buffer, 1, MSG_DONTWAIT));
    struct timeval time = {0, 20000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    SAY(read(fd, buffer, 1));
    time.tv_usec = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    SAY(read(fd, UNMAPPED, 0));
    SAY(write(fd, "last", 4));
    SAY(shutdown(fd, SHUT_WR));
    SAY(write(fd, "x", 1));
    SAY(read_all(fd, buffer, 100));
    SAY(read(fd, buffer, 1));
    SAY(write(fd, UNMAPPED, 1));
    close(fd);
}

static void without_waiting(void) {
    int fd = dial(SOCK_NONBLOCK);
    printf("connect: %d\n", errno == EINPROGRESS);
    struct pollfd out = {fd, POLLOUT | POLLIN, 0};
    SAY(poll(&out, 1, 5000));
    SAY(out.revents);
    SAY(so_error(fd));
    SAY(connect(fd, (struct sockaddr *)&to, sizeof to));
    SAY(connect(fd, (struct sockaddr *)&to, sizeof to));
    SAY(read(fd, buffer, 1));
    SAY(send(fd, "e", 1, 0));
    SAY(write(fd, "abc", 3));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    SAY(select(fd + 1, &set, NULL, NULL, NULL));
    SAY(read(fd, buffer, 100));
    SAY(shutdown(fd, SHUT_RDWR));
    out.events = POLLIN | POLLOUT | POLLRDHUP;
    // The server closes too, which is not another event.
    SAY(poll(&out, 1, 5000));
    close(fd);
    // The result is found even without a query.
    fd = dial(SOCK_NONBLOCK);
    while (send(fd, "e?", 2, 0) < 0 && errno == EAGAIN) {
    }
    struct sockaddr_in name;
    socklen_t len = sizeof name;
    SAY(getpeername(fd, (struct sockaddr *)&name, &len));
    while (recv(fd, buffer, 1, 0) < 0 && errno == EAGAIN) {
    }
    printf("%c\n", buffer[0]);
    close(fd);
}

static int wait_for(int epoll, int time) {
    struct epoll_event event = {0};
    int count = epoll_wait(epoll, &event, 1, time);
    return count <= 0 ? count : (int)event.events;
}

static void edges(void) {
    int epoll = epoll_create1(0);
    int fd = dial(SOCK_NONBLOCK);
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.fd = fd}};
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    SAY(wait_for(epoll, 5000));
    SAY(wait_for(epoll, 30));
    SAY(write(fd, "eab", 3));
    SAY(wait_for(epoll, 5000));
    SAY(wait_for(epoll, 30)); // it has not been read, and nothing has come
    SAY(write(fd, "cd", 2));
    SAY(wait_for(epoll, 5000));
    SAY(read(fd, buffer, 100));
    SAY(read(fd, buffer, 100));
    SAY(wait_for(epoll, 30));
    SAY(shutdown(fd, SHUT_WR));
    // The own end, and that the other side has received it, may be edges of their own for EPOLLOUT.
    int ready = 0;
    for (int edges_left = 4; edges_left > 0 && !(ready & EPOLLIN); edges_left--)
        ready = wait_for(epoll, 5000);
    SAY(ready & (EPOLLIN | EPOLLRDHUP));
    SAY(read(fd, buffer, 100));
    close(fd);
    // While the connection is open.
    fd = dial_for('e');
    event.events = EPOLLIN;
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    SAY(wait_for(epoll, 10));
    SAY(write(fd, "x", 1));
    SAY(wait_for(epoll, 5000));
    SAY(wait_for(epoll, 5000));
    SAY(read(fd, buffer, 1));
    SAY(wait_for(epoll, 10));
    close(fd);
    SAY(wait_for(epoll, 10));
    close(epoll);
}

static void large(void) {
    for (size_t i = 0; i < sizeof buffer; i++)
        buffer[i] = (char)(i * 7 + i / 1000);
    int fd = dial_for('c');
    for (int i = 0; i < 3; i++)
        SAY(write(fd, buffer, sizeof buffer));
    shutdown(fd, SHUT_WR);
    char sum[64] = "";
    read_all(fd, sum, sizeof sum - 1);
    printf("%s\n", sum);
    close(fd);
    // More than the buffers in between hold, non-blocking.
    fd = dial_for('d');
    fcntl(fd, F_SETFL, O_NONBLOCK);
    size_t sent = 0;
    for (;;) {
        ssize_t part = write(fd, buffer, sizeof buffer);
        if (part < 0) break;
        sent += part;
    }
    printf("full: %d %d\n", errno == EAGAIN, sent > 100000);
    struct pollfd out = {fd, POLLOUT, 0};
    SAY(poll(&out, 1, 5000));
    SAY_OK(write(fd, buffer, sizeof buffer));
    close(fd);
    fd = dial_for('l');
    size_t total = 0;
    unsigned sums = 0;
    for (;;) {
        ssize_t got = recv(fd, buffer, 100001, MSG_WAITALL);
        if (got <= 0) break;
        total += got;
        for (ssize_t i = 0; i < got; i++)
            sums = sums * 31 + (unsigned char)buffer[i];
    }
    printf("%zu %u\n", total, sums);
    close(fd);
    char name[] = "/tmp/remote-XXXXXX";
    int file = mkstemp(name);
    unlink(name);
    for (int i = 0; i < 5000; i++)
        buffer[i] = (char)(i * 7);
    ssize_t size = write(file, buffer, 5000);
    fd = dial_for('e');
    off_t offset = 0;
    ssize_t moved = sendfile(fd, file, &offset, 100000);
    printf("sendfile: %d\n", moved == size && offset == size);
    static char back[1 << 16];
    shutdown(fd, SHUT_WR);
    printf("%d\n", read_all(fd, back, sizeof back) == (size_t)size && memcmp(back, buffer, size) == 0);
    close(fd);
}

static void failures(int closed) {
    struct sockaddr_in good = to;
    to.sin_port = htons(closed);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    SAY(connect(fd, (struct sockaddr *)&to, sizeof to));
    SAY(read(fd, buffer, 1));
    SAY(connect(fd, (struct sockaddr *)&good, sizeof good));
    SAY(write(fd, "e!", 2));
    SAY(read(fd, buffer, 1));
    close(fd);
    fd = dial(SOCK_NONBLOCK);
    struct pollfd out = {fd, POLLOUT, 0};
    SAY(poll(&out, 1, 5000));
    SAY(out.revents & POLLERR);
    SAY(so_error(fd));
    SAY(so_error(fd));
    SAY(connect(fd, (struct sockaddr *)&good, sizeof good));
    SAY(poll(&out, 1, 5000));
    SAY(so_error(fd));
    close(fd);
    to = good;
    fd = dial_for('r');
    SAY(read(fd, buffer, 1));
    SAY(read(fd, buffer, 1));
    SAY(write(fd, "x", 1));
    out.fd = fd;
    out.events = POLLIN | POLLOUT | POLLRDHUP;
    SAY(poll(&out, 1, 0));
    SAY(out.revents);
    close(fd);
}

static void *read_slowly(void *fd) {
    char bytes[8] = "";
    ssize_t got = read_all((int)(long)fd, bytes, 4);
    return (void *)(got == 4 && memcmp(bytes, "slow", 4) == 0 ? 1L : 0L);
}

static void threads(void) {
    pthread_t all[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&all[i], NULL, read_slowly, (void *)(long)dial_for('s'));
    // A thread that waits for something else continues meanwhile.
    int fd = dial_for('e');
    for (int i = 0; i < 20; i++)
        if (write(fd, "ping", 4) != 4 || read(fd, buffer, 4) != 4) printf("lost\n");
    for (int i = 0; i < 4; i++) {
        void *fine;
        pthread_join(all[i], &fine);
        printf("thread: %ld\n", (long)fine);
    }
}

// Destinations that are not on the list.
static void elsewhere(char **addresses) {
    for (; *addresses; addresses++) {
        struct sockaddr_in other = to;
        char *port = strchr(*addresses, ':');
        *port = 0;
        inet_aton(*addresses, &other.sin_addr);
        other.sin_port = htons(atoi(port + 1));
        for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
            int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
            SAY(connect(fd, (struct sockaddr *)&other, sizeof other));
            close(fd);
        }
    }
}

// Addresses that the C library finds for names.
static void names(char **names) {
    for (; *names; names++) {
        struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
        int error = getaddrinfo(*names, "80", &wanted, &found);
        if (error) {
            printf("%s: none\n", *names);
            continue;
        }
        for (struct addrinfo *at = found; at; at = at->ai_next) {
            char text[100];
            getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
            printf("%s: %s\n", *names, text);
        }
        freeaddrinfo(found);
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    to = (struct sockaddr_in){AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}, {0}};
    if (argc > 3 && strcmp(argv[3], "elsewhere") == 0) {
        elsewhere(argv + 4);
        return 0;
    }
    if (argc > 3 && strcmp(argv[3], "names") == 0) {
        names(argv + 4);
        return 0;
    }
    if (argc > 3 && strcmp(argv[3], "wait") == 0) {
        int fd = dial_for('e');
        for (int i = 0; i < 3; i++)
            SAY(read(fd, buffer, 1));
        SAY(write(fd, "x", 1));
        return 0;
    }
    if (argc > 3 && strcmp(argv[3], "wait-edge") == 0) {
        int epoll = epoll_create1(0), fd = dial_for('e');
        struct epoll_event event = {EPOLLIN | EPOLLRDHUP | EPOLLET, {.fd = fd}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        SAY(wait_for(epoll, -1));
        SAY(so_error(fd));
        return 0;
    }
    echo();
    without_waiting();
    edges();
    large();
    failures(atoi(argv[2]));
    threads();
    return 0;
}
