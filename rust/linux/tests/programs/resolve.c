/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Asks the name server of /etc/resolv.conf: resolve NAME... */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <sys/socket.h>

#include "say.h"

static unsigned char buffer[1 << 16];

// A question for the addresses of a name.
static size_t question(unsigned char *at, int number, const char *name, int type) {
    unsigned char *end = at;
    unsigned char head[12] = {number >> 8, number, 1, 0, 0, 1};
    memcpy(end, head, sizeof head);
    end += sizeof head;
    while (*name) {
        size_t len = strcspn(name, ".");
        *end++ = len;
        memcpy(end, name, len);
        end += len;
        name += len + (name[len] == '.');
    }
    unsigned char tail[5] = {0, 0, type, 0, 1};
    memcpy(end, tail, sizeof tail);
    return end + sizeof tail - at;
}

// Prints the code and the last address of an answer.
static void tell(const char *how, const unsigned char *answer, ssize_t len) {
    if (len < 12) {
        printf("%s: no answer\n", how);
        return;
    }
    int count = answer[6] << 8 | answer[7];
    char text[16] = "";
    if (count) inet_ntop(AF_INET, answer + len - 4, text, sizeof text);
    printf("%s: number %d, code %d, %d records %s\n", how, answer[0] << 8 | answer[1], answer[3] & 15, count, text);
}

static void library(const char *name) {
    int len = res_query(name, C_IN, T_A, buffer, 512);
    if (len < 0)
        printf("res_query(%s): error %d\n", name, h_errno);
    else
        tell("res_query", buffer, len);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    int error = getaddrinfo(name, "80", &hints, &found);
    printf("getaddrinfo(%s): %d %s\n", name, error,
           error ? "" : inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    if (!error) freeaddrinfo(found);
}

static void datagrams(const char *name) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)}, from;
    inet_aton("127.0.0.53", &server.sin_addr);
    socklen_t len = sizeof from;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    size_t size = question(buffer, 7, name, T_A);
    SAY(sendto(fd, buffer, size, 0, (struct sockaddr *)&server, sizeof server) == (ssize_t)size);
    struct pollfd entry = {fd, POLLIN, 0};
    SAY(poll(&entry, 1, 1000));
    ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &len);
    tell("a datagram", buffer, got);
    printf("from %s:%d\n", inet_ntoa(from.sin_addr), ntohs(from.sin_port));
    SAY(connect(fd, (struct sockaddr *)&server, sizeof server));
    size = question(buffer, 8, name, T_AAAA);
    SAY(send(fd, buffer, size, 0) == (ssize_t)size);
    tell("a connected one", buffer, recv(fd, buffer, sizeof buffer, 0));
    SAY(send(fd, "what?", 5, 0));
    SAY(recv(fd, buffer, sizeof buffer, 0));
    // IPv6 sockets reach it too.
    int six = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
    inet_pton(AF_INET6, "::ffff:127.0.0.53", &mapped.sin6_addr);
    size = question(buffer, 9, name, T_A);
    SAY(sendto(six, buffer, size, 0, (struct sockaddr *)&mapped, sizeof mapped) == (ssize_t)size);
    tell("of IPv6", buffer, recv(six, buffer, sizeof buffer, 0));
    close(six);
    close(fd);
    // A server of the program's own on all addresses does not take its place; one at that address does.
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(53)};
        if (i) own.sin_addr = server.sin_addr;
        int other = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        SAY(bind(other, (struct sockaddr *)&own, sizeof own));
        size = question(buffer, 10, name, T_A);
        sendto(fd, buffer, size, 0, (struct sockaddr *)&server, sizeof server);
        SAY(recv(other, buffer, sizeof buffer, 0) > 0);
        SAY(recv(fd, buffer, sizeof buffer, 0) > 0);
        close(other);
        close(fd);
    }
}

static size_t read_all(int fd, unsigned char *to, size_t len) {
    size_t done = 0;
    while (done < len) {
        ssize_t got = read(fd, to + done, len - done);
        if (got <= 0) break;
        done += got;
    }
    return done;
}

static ssize_t next_answer(int fd) {
    unsigned char size[2];
    if (read_all(fd, size, 2) < 2) return -1;
    return read_all(fd, buffer, size[0] << 8 | size[1]);
}

static int dial(void) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_aton("127.0.0.53", &server.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    SAY(connect(fd, (struct sockaddr *)&server, sizeof server));
    return fd;
}

static void stream(const char *name) {
    int fd = dial();
    unsigned char message[512];
    size_t size = question(message + 2, 1, name, T_A);
    message[0] = 0;
    message[1] = size;
    // In two parts, and two at once.
    SAY(write(fd, message, 20));
    SAY(recv(fd, buffer, 1, MSG_DONTWAIT));
    SAY(write(fd, message + 20, size - 18) > 0);
    tell("a stream", buffer, next_answer(fd));
    memcpy(message + size + 2, message, size + 2);
    message[3] = 2;
    message[size + 5] = 3;
    SAY(write(fd, message, 2 * size + 4) > 0);
    tell("a stream", buffer, next_answer(fd));
    tell("a stream", buffer, next_answer(fd));
    SAY(shutdown(fd, SHUT_WR));
    SAY(read(fd, buffer, 1));
    close(fd);
    // Many long ones, all of which are asked before any answer is read, until there is space for no more.
    fd = dial();
    int asked = 0, answered = 0;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    char labels[192];
    memset(labels, 'a', sizeof labels);
    labels[60] = labels[121] = '.';
    labels[180] = 0;
    size = question(message + 2, 1, labels, T_A);
    message[1] = size;
    while (asked < 100000 && write(fd, message, size + 2) == (ssize_t)size + 2)
        asked++;
    fcntl(fd, F_SETFL, 0);
    SAY(shutdown(fd, SHUT_WR));
    while (next_answer(fd) > 0)
        answered++;
    printf("many: %d, %d\n", asked > 1000, asked - answered);
    close(fd);
    // What is no question.
    fd = dial();
    SAY(write(fd, "\0\2??", 4));
    SAY(read(fd, buffer, 1));
    close(fd);
    fd = dial();
    SAY(write(fd, message, 5));
    SAY(shutdown(fd, SHUT_WR));
    SAY(read(fd, buffer, 1));
    close(fd);
}

// To other hosts there are no datagrams.
static void elsewhere(const char *address) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(8125)}, own;
    socklen_t len = sizeof own;
    inet_aton(address, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    SAY(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to));
    SAY(connect(fd, (struct sockaddr *)&to, sizeof to));
    SAY(send(fd, "x", 1, 0));
    getsockname(fd, (struct sockaddr *)&own, &len);
    printf("%s\n", inet_ntoa(own.sin_addr));
    close(fd);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++)
        library(argv[i]);
    datagrams(argv[1]);
    stream(argv[1]);
    elsewhere("198.18.0.2");
    elsewhere("10.1.2.3");
    return 0;
}
