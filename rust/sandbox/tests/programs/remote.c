// SPDX-License-Identifier: MIT OR Apache-2.0
// Connections with the outside, made before the freeze.
#include "mayfly.h"
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static int spoken, waiting;
static int dial(const char *host, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(fd, (void *)&to, sizeof to) == 0 ? fd : -errno;
}
static int speaks(int fd) {
    char byte = 'x';
    return send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd, &byte, 1, 0) == 1 && byte == 'x';
}
static int result(ssize_t got) { return got < 0 ? -errno : (int)got; }
static void *wait_for_it(void *unused) {
    char byte;
    return (void *)(long)result(recv(waiting, &byte, 1, 0));
}
int main(int argc, char **argv) {
    int port = atoi(argv[1]);
    spoken = dial("127.0.0.1", port);
    waiting = dial("127.0.0.1", port);
    if (spoken < 0 || waiting < 0 || !speaks(spoken)) return 1;
    struct timeval long_time = {.tv_sec = 1000};
    setsockopt(waiting, SOL_SOCKET, SO_RCVTIMEO, &long_time, sizeof long_time);
    pthread_t thread;
    if (pthread_create(&thread, 0, wait_for_it, 0)) return 1;
    for (;;) {
        if (!mayfly_wait()) return 1;
        char text[300], byte, hosts[300] = "";
        void *waited;
        int first = result(recv(spoken, &byte, 1, 0)), then = result(recv(spoken, &byte, 1, 0));
        int sent = result(send(spoken, "x", 1, MSG_NOSIGNAL));
        pthread_join(thread, &waited);
        int again = dial("127.0.0.1", port);
        FILE *file = fopen("/etc/hosts", "r");
        fread(hosts, 1, sizeof hosts - 1, file);
        fclose(file);
        int size =
            sprintf(text, "%d %d %d, %ld, %d, %d, %d", first, then, sent, (long)waited, again >= 0 && speaks(again),
                    dial("192.0.2.1", port), strstr(hosts, "198.18.0.2 db.invalid") != 0);
        mayfly_respond(200, "text/plain", text, (size_t)size);
    }
}
