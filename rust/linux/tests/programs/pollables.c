/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Pipes, counters, timers and epoll, natively and in a machine. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>

#include "say.h"

static char buffer[1 << 17];

static int polled(int fd, int events) {
    struct pollfd entry = {fd, (short)events, 0};
    int count = poll(&entry, 1, 0);
    return count < 0 ? -errno : entry.revents;
}

enum { ALL = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND };

static long fill(int fd) {
    long total = 0, got;
    while ((got = write(fd, buffer, 4096)) > 0)
        total += got;
    return total;
}

static void pipes(void) {
    int ends[2], waiting = 0;
    SAY(syscall(SYS_pipe2, ends, 0x12345));
    SAY(pipe2(UNMAPPED, 0));
    SAY(pipe2(ends, O_NONBLOCK | O_CLOEXEC));
    SAY(fcntl(ends[0], F_GETFD));
    SAY(fcntl(ends[0], F_GETFL));
    SAY(fcntl(ends[1], F_GETFL));
    SAY(fcntl(ends[0], F_GETPIPE_SZ));
    SAY(polled(ends[0], ALL));
    SAY(polled(ends[1], ALL));
    SAY(read(ends[0], buffer, 10));
    SAY(read(ends[1], buffer, 10));
    SAY(write(ends[0], buffer, 10));
    SAY(write(ends[1], "hello world", 11));
    SAY(write(ends[1], UNMAPPED, 11));
    SAY(ioctl(ends[0], FIONREAD, &waiting));
    SAY(waiting);
    SAY(polled(ends[0], ALL));
    SAY(read(ends[0], UNMAPPED, 3));
    SAY(read(ends[0], buffer, 0));
    SAY(read(ends[0], buffer, 5));
    SAY(memcmp(buffer, "hello", 5));
    struct iovec parts[2] = {{buffer, 2}, {buffer + 10, 20}};
    SAY(readv(ends[0], parts, 2));
    SAY(memcmp(buffer + 10, "orld", 4));
    SAY(lseek(ends[0], 0, SEEK_CUR));
    SAY(pread(ends[0], buffer, 1, 0));
    SAY(fill(ends[1]));
    SAY(write(ends[1], buffer, 1));
    SAY(polled(ends[1], ALL));
    SAY(read(ends[0], buffer, 4095));
    SAY(polled(ends[1], ALL));
    SAY(write(ends[1], buffer, 4096));
    SAY(read(ends[0], buffer, 1));
    SAY(polled(ends[1], ALL));
    SAY(write(ends[1], buffer, 10000));
    SAY(fcntl(ends[1], F_SETPIPE_SZ, 100));
    SAY(fcntl(ends[1], F_SETPIPE_SZ, 100000));
    SAY(write(ends[1], buffer, 100000));
    int copy = dup(ends[1]);
    SAY(close(ends[1]));
    SAY(polled(ends[0], ALL));
    SAY(close(copy));
    SAY(polled(ends[0], ALL));
    SAY(read(ends[0], buffer, sizeof buffer));
    SAY(read(ends[0], buffer, sizeof buffer));
    SAY(read(ends[0], buffer, sizeof buffer));
    SAY(close(ends[0]));
    signal(SIGPIPE, SIG_IGN);
    SAY(pipe(ends));
    SAY(close(ends[0]));
    SAY(polled(ends[1], ALL));
    SAY(write(ends[1], "x", 1));
    struct stat status;
    SAY(fstat(ends[1], &status));
    SAY(status.st_mode);
    char name[64], wanted[64];
    ssize_t length = readlink("/proc/self/fd/99", name, sizeof name);
    snprintf(wanted, sizeof wanted, "/proc/self/fd/%d", ends[1]);
    length = readlink(wanted, name, sizeof name - 1);
    name[length > 0 ? length : 0] = 0;
    snprintf(wanted, sizeof wanted, "pipe:[%lu]", (unsigned long)status.st_ino);
    SAY(strcmp(name, wanted));
    SAY(close(ends[1]));
}

static void *late(void *argument) {
    int *ends = argument;
    usleep(20000);
    long total = 0, got;
    while ((got = read(ends[0], buffer, 30000)) > 0)
        total += got;
    return (void *)total;
}

static void *later(void *argument) {
    usleep(20000);
    return (void *)write(*(int *)argument, "late", 4);
}

static void waiting(void) {
    int ends[2];
    pthread_t thread;
    void *result;
    static char large[300000];
    SAY(pipe(ends));
    pthread_create(&thread, NULL, late, ends);
    SAY(write(ends[1], large, sizeof large));
    SAY(close(ends[1]));
    pthread_join(thread, &result);
    SAY((long)result);
    close(ends[0]);
    SAY(pipe(ends));
    pthread_create(&thread, NULL, later, &ends[1]);
    SAY(read(ends[0], buffer, 100));
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, later, &ends[1]);
    struct pollfd entry = {ends[0], POLLIN, 0};
    SAY(poll(&entry, 1, 5000));
    SAY(entry.revents);
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
}

static void counters(void) {
    uint64_t value = 5;
    SAY(eventfd(0, 0x100));
    int fd = eventfd(3, EFD_NONBLOCK);
    SAY(fcntl(fd, F_GETFL));
    SAY(polled(fd, ALL));
    SAY(write(fd, &value, 8));
    SAY(write(fd, &value, 7));
    SAY(read(fd, &value, 4));
    SAY(read(fd, &value, 8));
    SAY(value);
    SAY(read(fd, &value, 8));
    SAY(polled(fd, ALL));
    value = UINT64_MAX;
    SAY(write(fd, &value, 8));
    value = UINT64_MAX - 1;
    SAY(write(fd, &value, 8));
    SAY(polled(fd, ALL));
    value = 1;
    SAY(write(fd, &value, 8));
    SAY(read(fd, UNMAPPED, 8));
    SAY(read(fd, &value, 8));
    SAY(value == UINT64_MAX - 1);
    SAY(lseek(fd, 0, SEEK_SET));
    struct stat status;
    SAY(fstat(fd, &status));
    SAY(status.st_mode);
    close(fd);
    fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    SAY(read(fd, &value, 8));
    SAY(value);
    SAY(read(fd, &value, 8));
    SAY(read(fd, &value, 8));
    close(fd);
}

static void timers(void) {
    uint64_t value = 0;
    SAY(timerfd_create(77, 0));
    SAY(timerfd_create(CLOCK_MONOTONIC, 1));
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    SAY(read(fd, &value, 8));
    SAY(polled(fd, ALL));
    struct itimerspec bad = {{0, 0}, {0, 1000000000}};
    SAY(timerfd_settime(fd, 0, &bad, NULL));
    struct itimerspec setting = {{0, 20000000}, {0, 30000000}}, old;
    SAY(timerfd_settime(fd, 0, &setting, &old));
    SAY(old.it_value.tv_nsec);
    SAY(timerfd_gettime(fd, &old));
    SAY(old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 30000000);
    SAY(old.it_interval.tv_nsec);
    struct pollfd entry = {fd, POLLIN, 0};
    SAY(poll(&entry, 1, 5000));
    SAY(entry.revents);
    SAY(read(fd, &value, 4));
    SAY(read(fd, &value, 8));
    SAY(value >= 1);
    usleep(45000);
    SAY(read(fd, &value, 8));
    SAY(value >= 2);
    SAY(write(fd, &value, 8));
    struct itimerspec past = {{0, 0}, {1, 0}};
    SAY(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, NULL));
    /* On a slow machine it may be late. */
    SAY(poll(&entry, 1, 5000));
    SAY(read(fd, &value, 8));
    SAY(value);
    SAY(read(fd, &value, 8));
    SAY(timerfd_gettime(fd, &old));
    SAY(old.it_value.tv_nsec);
    SAY(timerfd_settime(0, 0, &past, NULL));
    SAY(timerfd_settime(1000, 0, &past, NULL));
    close(fd);
    fd = timerfd_create(CLOCK_REALTIME, 0);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_nsec += 30000000;
    if (now.tv_nsec >= 1000000000) now.tv_nsec -= 1000000000, now.tv_sec++;
    struct itimerspec at = {{0, 0}, now};
    SAY(timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL));
    SAY(read(fd, &value, 8));
    SAY(value);
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 9}};
    struct itimerspec twice = {{0, 30000000}, {0, 20000000}};
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    SAY(timerfd_settime(fd, 0, &twice, NULL));
    SAY(epoll_wait(epoll, &event, 1, -1));
    SAY(epoll_wait(epoll, &event, 1, 50));
    SAY(read(fd, &value, 8));
    SAY(epoll_wait(epoll, &event, 1, 5000));
    SAY(event.events);
    close(epoll);
    close(fd);
}

static int waited(int epoll, int most, int ms) {
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, most, ms);
    for (int i = 0; i < count; i++)
        printf("  %x %lu\n", events[i].events, (unsigned long)events[i].data.u64);
    return count;
}

static int control(int epoll, int operation, int fd, unsigned events, uint64_t data) {
    struct epoll_event event = {events, {.u64 = data}};
    return epoll_ctl(epoll, operation, fd, &event);
}

static void sets(void) {
    int ends[2];
    uint64_t value = 1;
    SAY(syscall(SYS_epoll_create, 0));
    SAY(epoll_create1(7));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int event = eventfd(0, EFD_NONBLOCK);
    pipe2(ends, O_NONBLOCK);
    SAY(waited(epoll, 8, 0));
    SAY(waited(epoll, 0, 0));
    SAY(waited(epoll, -1, 0));
    SAY(waited(event, 1, 0));
    SAY(waited(1000, 1, 0));
    SAY(waited(epoll, 8, 10));
    SAY(control(epoll, EPOLL_CTL_ADD, 1000, EPOLLIN, 0));
    SAY(control(1000, EPOLL_CTL_ADD, event, EPOLLIN, 0));
    SAY(control(event, EPOLL_CTL_ADD, event, EPOLLIN, 0));
    SAY(control(epoll, EPOLL_CTL_ADD, epoll, EPOLLIN, 0));
    SAY(control(epoll, EPOLL_CTL_ADD, 0, EPOLLIN, 0));
    SAY(control(epoll, EPOLL_CTL_DEL, event, EPOLLIN, 0));
    SAY(control(epoll, EPOLL_CTL_MOD, event, EPOLLIN, 0));
    SAY(control(epoll, 9, event, EPOLLIN, 0));
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, event, NULL));
    SAY(control(epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLOUT, 1));
    SAY(control(epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLOUT, 1));
    SAY(waited(epoll, 8, 0));
    SAY(write(event, &value, 8));
    SAY(waited(epoll, 8, 0));
    SAY(waited(epoll, 8, 0));
    SAY(control(epoll, EPOLL_CTL_MOD, event, EPOLLIN | EPOLLET, 2));
    SAY(waited(epoll, 8, 0));
    SAY(waited(epoll, 8, 0));
    SAY(write(event, &value, 8));
    SAY(waited(epoll, 8, 0));
    SAY(read(event, &value, 8));
    SAY(waited(epoll, 8, 0));
    SAY(control(epoll, EPOLL_CTL_MOD, event, EPOLLIN | EPOLLONESHOT, 3));
    SAY(write(event, &value, 8));
    SAY(waited(epoll, 8, 0));
    SAY(write(event, &value, 8));
    SAY(waited(epoll, 8, 0));
    SAY(control(epoll, EPOLL_CTL_MOD, event, EPOLLIN | EPOLLONESHOT, 4));
    SAY(waited(epoll, 8, 0));
    SAY(control(epoll, EPOLL_CTL_MOD, event, EPOLLIN | EPOLLEXCLUSIVE, 4));
    SAY(control(epoll, EPOLL_CTL_DEL, event, 0, 0));
    SAY(control(epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 4));
    SAY(control(epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLEXCLUSIVE, 4));
    SAY(waited(epoll, 8, 0));
    SAY(control(epoll, EPOLL_CTL_MOD, event, EPOLLIN, 4));
    SAY(epoll_wait(epoll, UNMAPPED, 1, 0));
    SAY(control(epoll, EPOLL_CTL_DEL, event, 0, 0));

    // Pipes, edge-triggered.
    SAY(control(epoll, EPOLL_CTL_ADD, ends[0], EPOLLIN | EPOLLRDHUP | EPOLLET, 10));
    SAY(control(epoll, EPOLL_CTL_ADD, ends[1], EPOLLOUT | EPOLLET, 11));
    SAY(waited(epoll, 8, 0));
    SAY(write(ends[1], "abc", 3));
    SAY(waited(epoll, 8, 0));
    SAY(read(ends[0], buffer, 1));
    SAY(waited(epoll, 8, 0));
    SAY(write(ends[1], "abc", 3));
    SAY(waited(epoll, 8, 0));
    SAY(fill(ends[1]) > 0);
    SAY(waited(epoll, 8, 0));
    SAY(read(ends[0], buffer, sizeof buffer) > 0);
    SAY(waited(epoll, 8, 0));
    // A registration belongs to the open file.
    int copy = dup(ends[0]);
    SAY(close(ends[0]));
    SAY(write(ends[1], "abc", 3));
    SAY(waited(epoll, 8, 0));
    SAY(control(epoll, EPOLL_CTL_DEL, ends[0], 0, 0));
    SAY(control(epoll, EPOLL_CTL_ADD, copy, EPOLLIN, 12));
    SAY(waited(epoll, 1, 0));
    SAY(close(copy));
    SAY(waited(epoll, 8, 0));
    SAY(close(ends[1]));
    SAY(waited(epoll, 8, 0));

    // Ready descriptors take turns.
    int many[3];
    for (int i = 0; i < 3; i++) {
        many[i] = eventfd(1, 0);
        SAY(control(epoll, EPOLL_CTL_ADD, many[i], EPOLLIN, 20 + i));
    }
    for (int i = 0; i < 4; i++)
        SAY(waited(epoll, 2, 0));
    for (int i = 0; i < 3; i++)
        close(many[i]);

    // Nested epolls.
    int outer = epoll_create1(0);
    SAY(control(outer, EPOLL_CTL_ADD, epoll, EPOLLIN, 30));
    SAY(control(epoll, EPOLL_CTL_ADD, outer, EPOLLIN, 31));
    SAY(polled(epoll, ALL));
    SAY(control(epoll, EPOLL_CTL_ADD, event, EPOLLIN, 32));
    SAY(waited(outer, 8, 0));
    SAY(polled(outer, ALL));
    SAY(read(event, &value, 8));
    SAY(waited(outer, 8, 0));
    SAY(control(outer, EPOLL_CTL_MOD, epoll, EPOLLIN | EPOLLET, 33));
    SAY(write(event, &value, 8));
    SAY(waited(outer, 8, 0));
    SAY(waited(outer, 8, 0));
    SAY(write(event, &value, 8));
    SAY(waited(outer, 8, 0));
    int chain[8];
    chain[0] = epoll_create1(0);
    for (int i = 1; i < 8; i++) {
        chain[i] = epoll_create1(0);
        SAY(control(chain[i], EPOLL_CTL_ADD, chain[i - 1], EPOLLIN, 0));
    }
    for (int i = 0; i < 8; i++)
        close(chain[i]);
    copy = dup(epoll);
    SAY(waited(copy, 8, 0));
    SAY(close(epoll));
    SAY(waited(copy, 8, 0));
    SAY(read(copy, buffer, 8));
    char name[64] = {0}, path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", copy);
    SAY(readlink(path, name, sizeof name - 1));
    puts(name);
    close(copy);
    close(outer);

    // Waiting for another thread.
    epoll = epoll_create1(0);
    pthread_t thread;
    pipe(ends);
    SAY(control(epoll, EPOLL_CTL_ADD, ends[0], EPOLLIN, 40));
    pthread_create(&thread, NULL, later, &ends[1]);
    SAY(waited(epoll, 8, -1));
    pthread_join(thread, NULL);
    close(epoll);
    close(event);
}

static void selecting(void) {
    int ends[2];
    pipe(ends);
    fd_set in, out, except;
    struct timeval none = {0, 0}, some = {0, 20000};
    int most = ends[1] + 1;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(ends[0], &in), FD_SET(ends[1], &in), FD_SET(ends[1], &out), FD_SET(ends[0], &except);
    SAY(select(most, &in, &out, &except, &none));
    SAY(FD_ISSET(ends[0], &in));
    SAY(FD_ISSET(ends[1], &in));
    SAY(FD_ISSET(ends[1], &out) != 0);
    FD_ZERO(&in);
    FD_SET(ends[0], &in);
    SAY(select(most, &in, NULL, NULL, &some));
    SAY(some.tv_usec);
    SAY(FD_ISSET(ends[0], &in));
    write(ends[1], "x", 1);
    FD_SET(ends[0], &in);
    SAY(select(most, &in, NULL, NULL, NULL));
    SAY(FD_ISSET(ends[0], &in) != 0);
    close(ends[1]);
    FD_ZERO(&in);
    FD_SET(ends[1], &in);
    SAY(select(most, &in, NULL, NULL, NULL));
    SAY(select(-1, NULL, NULL, NULL, NULL));
    SAY(select(0, NULL, NULL, NULL, &none));
    struct timespec bad = {0, 2000000000};
    SAY(pselect(0, NULL, NULL, NULL, &bad, NULL));
    FD_ZERO(&in);
    FD_SET(ends[0], &in);
    sigset_t mask;
    sigemptyset(&mask);
    SAY(pselect(most, &in, NULL, NULL, NULL, &mask));
    close(ends[0]);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    pipes();
    waiting();
    counters();
    timers();
    sets();
    selecting();
    return 0;
}
