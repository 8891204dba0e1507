/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Datagrams within one program, natively and in a machine. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "say.h"

static char buffer[1 << 18];

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
} address_t;

static int polled(int fd) {
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    int count = poll(&entry, 1, 0);
    return count < 0 ? -errno : entry.revents;
}

// Waits until something has arrived. On the loopback interface that is at once, but for a slow machine.
static void arrives(int fd) {
    struct pollfd entry = {fd, POLLIN, 0};
    poll(&entry, 1, 5000);
}

static int error_of(int fd) {
    int error = -1;
    socklen_t len = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

static int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

static address_t loopback(int domain, int port) {
    address_t at;
    memset(&at, 0, sizeof at);
    at.any.sa_family = domain;
    at.v4.sin_port = htons(port);
    if (domain == AF_INET)
        at.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        at.v6.sin6_addr = in6addr_loopback;
    return at;
}

static socklen_t size_of(const address_t *at) { return at->any.sa_family == AF_INET ? sizeof at->v4 : sizeof at->v6; }

static int at(int domain, int flags, address_t *address) {
    int fd = socket(domain, SOCK_DGRAM | flags, 0);
    *address = loopback(domain, 0);
    socklen_t len = sizeof *address;
    if (bind(fd, &address->any, size_of(address)) || getsockname(fd, &address->any, &len)) printf("no address\n");
    return fd;
}

static int port_of(int fd) {
    address_t name;
    socklen_t len = sizeof name;
    return getsockname(fd, &name.any, &len) ? -1 : ntohs(name.v4.sin_port);
}

static const char *host_of(const address_t *at) {
    static char text[64];
    const void *host = at->any.sa_family == AF_INET ? (void *)&at->v4.sin_addr : (void *)&at->v6.sin6_addr;
    return inet_ntop(at->any.sa_family, host, text, sizeof text);
}

// Receives, and prints whether it comes from this port, and from where.
static void from(int fd, int port) {
    address_t sender;
    socklen_t len = sizeof sender;
    arrives(fd);
    SAY(recvfrom(fd, buffer, 100, MSG_DONTWAIT, &sender.any, &len));
    printf("%d %s %d\n", len, host_of(&sender), ntohs(sender.v4.sin_port) == port);
}

static void network(int domain) {
    address_t one, other, name, nowhere = loopback(domain, 0);
    socklen_t len;
    int a = at(domain, SOCK_NONBLOCK, &one), b = at(domain, SOCK_NONBLOCK, &other);
    socklen_t size = size_of(&one);
    SAY(polled(a));
    SAY(recv(a, buffer, 10, 0));
    SAY(send(a, "x", 1, 0));
    SAY(bind(a, &one.any, size));
    SAY(sendto(a, "hello", 5, 0, &other.any, size));
    arrives(b);
    SAY(polled(b));
    int left;
    SAY(ioctl(b, FIONREAD, &left));
    SAY(left);
    from(b, port_of(a));
    SAY(polled(b));
    // Several, of which one is empty and one is cut off.
    SAY(sendto(a, "", 0, 0, &other.any, size));
    SAY(sendto(a, "first", 5, 0, &other.any, size));
    SAY(sendto(a, "second", 6, 0, &other.any, size));
    SAY(sendto(a, "third", 5, 0, &other.any, size));
    arrives(b);
    SAY(ioctl(b, FIONREAD, &left));
    SAY(left);
    SAY(recv(b, buffer, 10, 0));
    arrives(b);
    SAY(recv(b, buffer, 3, MSG_PEEK));
    SAY(recv(b, buffer, 3, MSG_TRUNC | MSG_PEEK));
    SAY(recv(b, buffer, 3, 0));
    SAY(memcmp(buffer, "fir", 3));
    struct iovec parts[2] = {{buffer, 2}, {buffer + 10, 2}};
    struct msghdr message = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = parts, .msg_iovlen = 2};
    arrives(b);
    SAY(recvmsg(b, &message, MSG_TRUNC));
    SAY(message.msg_flags);
    SAY(message.msg_namelen == size && name.v4.sin_port == one.v4.sin_port);
    SAY(memcmp(buffer, "se", 2) || memcmp(buffer + 10, "co", 2));
    SAY(read(b, buffer, 0));
    arrives(b);
    SAY(read(b, buffer, 100));
    SAY(recv(b, buffer, 100, 0));
    // In parts, and with a bad buffer.
    parts[0] = (struct iovec){"ab", 2};
    parts[1] = (struct iovec){"cde", 3};
    message.msg_name = &other;
    message.msg_namelen = size;
    SAY(sendmsg(a, &message, 0));
    arrives(b);
    SAY(recv(b, buffer, 100, 0));
    SAY(memcmp(buffer, "abcde", 5));
    SAY(sendto(a, UNMAPPED, 5, 0, &other.any, size));
    SAY(sendto(a, "x", 1, 0, UNMAPPED, size));
    SAY(sendto(a, "x", 1, 0, &other.any, 3));
    if (domain == AF_INET) SAY(sendto(a, "x", 1, MSG_OOB, &other.any, size));
    SAY(recv(b, buffer, 100, 0));
    // The receiver's buffer is bad: the message is lost.
    SAY(sendto(a, "lost", 4, 0, &other.any, size));
    arrives(b);
    SAY(recv(b, UNMAPPED, 4, 0));
    // Large ones.
    memset(buffer, 'l', 70000);
    long most = domain == AF_INET ? 65507 : 65527;
    SAY(sendto(a, buffer, most + 1, 0, &other.any, size));
    SAY(sendto(a, buffer, most, 0, &other.any, size) == most);
    arrives(b);
    SAY(recv(b, buffer, sizeof buffer, 0) >= 65507);
    // What finds no space is lost; the sender does not wait.
    int sent = 0, received = 0;
    for (int i = 0; i < 2000; i++)
        sent += sendto(a, buffer, 1000, 0, &other.any, size) == 1000;
    while (recv(b, buffer, 2000, 0) == 1000)
        received++;
    printf("%d of them, %d\n", sent, received > 0 && received < 2000);
    // To no socket: an unconnected one never learns.
    nowhere.v4.sin_port = htons(9);
    SAY(sendto(a, "x", 1, 0, &nowhere.any, size));
    SAY(error_of(a));
    nowhere.v4.sin_port = 0;
    SAY(sendto(a, "x", 1, 0, &nowhere.any, size));
    // Connected ones.
    int c = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    SAY(getpeername(c, &name.any, (len = sizeof name, &len)));
    SAY(port_of(c));
    SAY(connect(c, &other.any, size));
    SAY(port_of(c) != 0);
    SAY(getsockname(c, &name.any, (len = sizeof name, &len)));
    printf("%s\n", host_of(&name));
    SAY(getpeername(c, &name.any, (len = sizeof name, &len)));
    SAY(memcmp(&name, &other, size));
    SAY(bind(c, &nowhere.any, size));
    SAY(write(c, "request", 7));
    from(b, port_of(c));
    name = loopback(domain, port_of(c));
    SAY(sendto(b, "answer", 6, 0, &name.any, size));
    SAY(sendto(a, "not from the peer", 17, 0, &name.any, size));
    arrives(c);
    SAY(recv(c, buffer, 100, 0));
    SAY(recv(c, buffer, 100, 0));
    SAY(sendto(c, "elsewhere", 9, 0, &one.any, size));
    from(a, port_of(c));
    // The peer is closed.
    SAY(close(b));
    SAY(send(c, "x", 1, 0));
    arrives(c);
    SAY(polled(c));
    SAY(recv(c, buffer, 100, 0));
    SAY(recv(c, buffer, 100, 0));
    SAY(send(c, "x", 1, 0));
    arrives(c);
    SAY(send(c, "x", 1, 0));
    SAY(send(c, "x", 1, 0));
    arrives(c);
    SAY(error_of(c));
    SAY(polled(c));
    // Another peer, and none.
    SAY(connect(c, &one.any, size));
    SAY(send(c, "again", 5, 0));
    from(a, port_of(c));
    address_t none = {.any = {.sa_family = AF_UNSPEC}};
    SAY(connect(c, &none.any, sizeof none.any));
    SAY(port_of(c));
    SAY(send(c, "x", 1, 0));
    SAY(getpeername(c, &name.any, (len = sizeof name, &len)));
    SAY(connect(c, &one.any, size));
    // The ends.
    SAY(shutdown(c, SHUT_WR));
    SAY(polled(c));
    SAY(send(c, "x", 1, 0));
    SAY(shutdown(c, SHUT_RD));
    SAY(polled(c));
    SAY(recv(c, buffer, 10, 0));
    SAY(shutdown(a, SHUT_RD));
    SAY(recv(a, buffer, 10, 0));
    SAY(listen(a, 1));
    SAY(accept(a, NULL, NULL));
    close(a);
    close(c);
    // Addresses that are in use.
    a = at(domain, 0, &one);
    b = socket(domain, SOCK_DGRAM, 0);
    SAY(bind(b, &one.any, size));
    SAY(set(a, SOL_SOCKET, SO_REUSEADDR, 1));
    SAY(set(b, SOL_SOCKET, SO_REUSEADDR, 1));
    SAY(bind(b, &one.any, size));
    close(a);
    close(b);
    // A socket without an address gets one when it sends; all addresses are its.
    a = at(domain, 0, &one);
    b = socket(domain, SOCK_DGRAM, 0);
    SAY(sendto(b, "x", 1, 0, &one.any, size));
    SAY(port_of(b) != 0);
    SAY(getsockname(b, &name.any, (len = sizeof name, &len)));
    printf("%s\n", host_of(&name));
    from(a, port_of(b));
    SAY(bind(b, &nowhere.any, size));
    name = loopback(domain, port_of(b));
    SAY(sendto(a, "back", 4, 0, &name.any, size));
    from(b, port_of(a));
    // To all addresses, which is to this machine.
    memset(&name, 0, sizeof name);
    name.any.sa_family = domain;
    name.v4.sin_port = htons(port_of(b));
    SAY(sendto(a, "zero", 4, 0, &name.any, size));
    from(b, port_of(a));
    // Edges.
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLET, {0}};
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, b, &event));
    SAY(epoll_wait(epoll, &event, 1, 0));
    name = loopback(domain, port_of(b));
    sendto(a, "one", 3, 0, &name.any, size);
    SAY(epoll_wait(epoll, &event, 1, 5000));
    SAY(event.events);
    SAY(epoll_wait(epoll, &event, 1, 0));
    sendto(a, "two", 3, 0, &name.any, size);
    SAY(epoll_wait(epoll, &event, 1, 5000));
    recv(b, buffer, 100, 0);
    recv(b, buffer, 100, 0);
    SAY(epoll_wait(epoll, &event, 1, 0));
    close(epoll);
    struct timeval timeout = {0, 20000};
    SAY(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    SAY(recv(b, buffer, 100, 0));
    // Several at a time.
    struct mmsghdr many[3] = {0};
    struct iovec words[3] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
    for (int i = 0; i < 3; i++)
        many[i].msg_hdr =
            (struct msghdr){.msg_name = &name, .msg_namelen = size, .msg_iov = &words[i], .msg_iovlen = 1};
    SAY(sendmmsg(a, many, 3, 0));
    for (int i = 0; i < 3; i++)
        words[i] = (struct iovec){buffer + 100 * i, 100};
    for (int i = 0; i < 3; i++)
        many[i].msg_hdr = (struct msghdr){.msg_iov = &words[i], .msg_iovlen = 1};
    for (int i = 0; i < 3; i++) {
        arrives(b);
        SAY(recvmmsg(b, many + i, 1, MSG_DONTWAIT, NULL));
    }
    SAY(many[0].msg_len * 100 + many[1].msg_len * 10 + many[2].msg_len);
    close(a);
    close(b);
}

// An IPv6 socket receives what is sent to IPv4 addresses, unless it is for IPv6 alone.
static void families(void) {
    address_t v4 = loopback(AF_INET, 0), v6 = {.v6 = {.sin6_family = AF_INET6}}, name;
    socklen_t len = sizeof name;
    int six = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0), four = socket(AF_INET, SOCK_DGRAM, 0);
    SAY(bind(six, &v6.any, sizeof v6.v6));
    v4.v4.sin_port = htons(port_of(six));
    SAY(sendto(four, "four", 4, 0, &v4.any, sizeof v4.v4));
    from(six, port_of(four));
    SAY(getsockname(four, &name.any, &len));
    v6.v6.sin6_port = htons(port_of(four));
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.v6.sin6_addr);
    SAY(sendto(six, "back", 4, 0, &v6.any, sizeof v6.v6));
    from(four, port_of(six));
    close(six);
    six = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    SAY(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    v6 = (address_t){.v6 = {.sin6_family = AF_INET6}};
    SAY(bind(six, &v6.any, sizeof v6.v6));
    v4.v4.sin_port = htons(port_of(six));
    SAY(connect(four, &v4.any, sizeof v4.v4));
    SAY(send(four, "x", 1, 0));
    arrives(four);
    SAY(error_of(four));
    SAY(recv(six, buffer, 10, 0));
    close(six);
    close(four);
    // The most particular address receives.
    int wide = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), narrow = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    set(wide, SOL_SOCKET, SO_REUSEADDR, 1);
    set(narrow, SOL_SOCKET, SO_REUSEADDR, 1);
    address_t any = {.v4 = {.sin_family = AF_INET}};
    SAY(bind(wide, &any.any, sizeof any.v4));
    v4 = loopback(AF_INET, port_of(wide));
    SAY(bind(narrow, &v4.any, sizeof v4.v4));
    four = socket(AF_INET, SOCK_DGRAM, 0);
    SAY(sendto(four, "narrow", 6, 0, &v4.any, sizeof v4.v4));
    v4.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    SAY(sendto(four, "wide", 4, 0, &v4.any, sizeof v4.v4));
    arrives(narrow);
    arrives(wide);
    SAY(recv(narrow, buffer, 100, 0));
    SAY(recv(wide, buffer, 100, 0));
    close(wide);
    close(narrow);
    close(four);
}

static void *answer(void *argument) {
    int fd = *(int *)argument;
    address_t sender;
    for (int i = 0; i < 100; i++) {
        socklen_t len = sizeof sender;
        ssize_t got = recvfrom(fd, buffer, 100, 0, &sender.any, &len);
        sendto(fd, buffer, got, 0, &sender.any, len);
    }
    return NULL;
}

static void threads(void) {
    address_t to;
    int server = at(AF_INET, 0, &to), client = socket(AF_INET, SOCK_DGRAM, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, answer, &server);
    SAY(connect(client, &to.any, sizeof to.v4));
    int fine = 0;
    for (int i = 0; i < 100; i++) {
        char text[16], back[16] = "";
        int len = snprintf(text, sizeof text, "number %d", i);
        if (send(client, text, len, 0) == len && recv(client, back, sizeof back, 0) == len)
            fine += !memcmp(text, back, len);
    }
    SAY(fine);
    pthread_join(thread, NULL);
    close(server);
    close(client);
}

static address_t named(const char *format, int number, socklen_t *len) {
    address_t name = {.local = {AF_UNIX, ""}};
    int abstract = *format == '@';
    int size = snprintf(name.local.sun_path + abstract, 90, format + abstract, getpid(), number);
    *len = sizeof(sa_family_t) + size + 1;
    return name;
}

static void says_sender(int fd) {
    address_t sender;
    memset(&sender, 0, sizeof sender);
    socklen_t len = sizeof sender;
    SAY(recvfrom(fd, buffer, 100, MSG_DONTWAIT, &sender.any, &len));
    printf("%s%s\n", len > 0 ? "from a name" : "from none",
           len > 0 && sender.any.sa_family == AF_UNIX ? "" : ", or family");
}

static void local(const char *format) {
    socklen_t len, other_len, size;
    address_t one = named(format, 1, &len), other = named(format, 2, &other_len), name;
    int a = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), b = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    SAY(sendto(a, "x", 1, 0, &one.any, len));
    SAY(connect(a, &one.any, len));
    SAY(send(a, "x", 1, 0));
    SAY(bind(a, &one.any, len));
    SAY(bind(a, &one.any, len));
    SAY(bind(b, &one.any, len));
    SAY(polled(a));
    SAY(recv(a, buffer, 1, 0));
    SAY(sendto(b, "hello", 5, 0, &one.any, len));
    SAY(polled(a));
    says_sender(a);
    SAY(bind(b, &other.any, other_len));
    SAY(sendto(b, "hello", 5, 0, &one.any, len));
    says_sender(a);
    // The sender's address leads back.
    SAY(sendto(b, "ping", 4, 0, &one.any, len));
    size = sizeof name;
    SAY(recvfrom(a, buffer, 100, 0, &name.any, &size));
    SAY(size == other_len);
    SAY(sendto(a, "pong", 4, 0, &name.any, size));
    SAY(recv(b, buffer, 100, 0));
    // Another kind of socket.
    int stream = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(stream, &one.any, len));
    close(stream);
    // A connected socket receives from its peer alone.
    int c = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    SAY(connect(a, &other.any, other_len));
    SAY(getpeername(a, &name.any, (size = sizeof name, &size)));
    SAY(size == other_len);
    SAY(sendto(c, "x", 1, 0, &one.any, len));
    SAY(connect(c, &one.any, len));
    SAY(send(b, "x", 1, 0));
    SAY(sendto(b, "to a", 4, 0, &one.any, len));
    SAY(recv(a, buffer, 100, 0));
    SAY(send(a, "to b", 4, 0));
    SAY(write(a, "cut off", 7));
    SAY(recv(b, buffer, 100, 0));
    SAY(recv(b, buffer, 3, MSG_TRUNC));
    SAY(sendto(a, buffer, 212961, 0, &other.any, other_len));
    // A full queue.
    SAY(connect(c, &other.any, other_len));
    int sent = 0;
    while (send(c, buffer, 1000, 0) == 1000)
        sent++;
    printf("full: %d %d\n", errno == EAGAIN, sent > 0);
    SAY(polled(c) & POLLOUT);
    while (recv(b, buffer, 1000, 0) == 1000)
        sent--;
    SAY(sent);
    SAY(polled(c) & POLLOUT);
    SAY(send(c, "x", 1, 0));
    SAY(recv(b, buffer, 1000, 0));
    // Descriptors.
    int ends[2];
    SAY(pipe(ends));
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {"fd", 2};
    struct msghdr message = {.msg_name = &other,
                             .msg_namelen = other_len,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(head), &ends[1], sizeof(int));
    SAY(sendmsg(c, &message, 0));
    close(ends[1]);
    memset(control, 0, sizeof control);
    part.iov_base = buffer;
    message.msg_name = NULL;
    SAY(recvmsg(b, &message, 0));
    int received = -1;
    memcpy(&received, CMSG_DATA(head), sizeof(int));
    SAY(write(received, "through", 7));
    SAY(read(ends[0], buffer, 100));
    close(received);
    close(ends[0]);
    // The receiver ends reading, and then is gone.
    SAY(shutdown(b, SHUT_RD));
    SAY(polled(b));
    SAY(recv(b, buffer, 10, 0));
    SAY(send(c, "x", 1, MSG_NOSIGNAL));
    SAY(close(b));
    SAY(send(a, "x", 1, 0));
    SAY(send(a, "x", 1, 0));
    SAY(sendto(c, "x", 1, 0, &other.any, other_len));
    // A new socket at the same address is not the peer.
    b = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (*format != '@') unlink(other.local.sun_path);
    SAY(bind(b, &other.any, other_len));
    SAY(send(c, "x", 1, 0));
    SAY(connect(c, &other.any, other_len));
    SAY(send(c, "new", 3, 0));
    SAY(recv(b, buffer, 10, 0));
    address_t none = {.any = {.sa_family = AF_UNSPEC}};
    SAY(connect(c, &none.any, sizeof none.any));
    SAY(send(c, "x", 1, 0));
    if (*format != '@') {
        struct stat status;
        SAY(stat(other.local.sun_path, &status));
        SAY(S_ISSOCK(status.st_mode));
        SAY(chmod(other.local.sun_path, 0));
        SAY(unlink(other.local.sun_path));
        SAY(sendto(c, "x", 1, 0, &other.any, other_len));
        SAY(unlink(one.local.sun_path));
    }
    close(a);
    close(b);
    close(c);
}

static void *reads(void *argument) {
    char bytes[1000];
    long total = 0;
    for (int i = 0; i < 400; i++)
        total += recv(*(int *)argument, bytes, sizeof bytes, 0);
    return (void *)total;
}

// A sender waits for space, whether it is connected or not.
static void waits(void) {
    socklen_t len;
    address_t name = named("@mayfly-waits-%d-%d", 1, &len);
    int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    SAY(bind(receiver, &name.any, len));
    pthread_t thread;
    pthread_create(&thread, NULL, reads, &receiver);
    int sent = 0;
    for (int i = 0; i < 200; i++)
        sent += sendto(sender, buffer, 1000, 0, &name.any, len) == 1000;
    SAY(connect(sender, &name.any, len));
    for (int i = 0; i < 200; i++)
        sent += send(sender, buffer, 1000, 0) == 1000;
    void *total;
    pthread_join(thread, &total);
    printf("%d %ld\n", sent, (long)total);
    struct timeval timeout = {0, 20000};
    SAY(setsockopt(sender, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout));
    while (send(sender, buffer, 1000, 0) == 1000) {
    }
    printf("timeout: %d\n", errno == EAGAIN);
    close(receiver);
    close(sender);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    network(AF_INET);
    network(AF_INET6);
    families();
    threads();
    local("@mayfly-test-%d-%d");
    local("/tmp/mayfly-test-%d-%d");
    waits();
    return 0;
}
