/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* FIFOs within one program, natively and in a machine. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#include "say.h"

static char path[64], other[64], buffer[1 << 17];

static int polled(int fd) {
    struct pollfd entry = {fd, POLLIN | POLLOUT, 0};
    int count = poll(&entry, 1, 0);
    return count < 0 ? -errno : entry.revents;
}

static void files(void) {
    struct stat status;
    SAY(mkfifo("/nowhere/fifo", 0600));
    SAY(mkfifo(path, 0640));
    SAY(mkfifo(path, 0640));
    SAY(stat(path, &status));
    SAY(status.st_mode);
    SAY(status.st_nlink);
    SAY(status.st_size);
    ino_t inode = status.st_ino;
    SAY(chmod(path, 0600));
    SAY(rename(path, other));
    SAY(rename(other, path));
    SAY(stat(path, &status));
    SAY(status.st_mode);
    SAY(status.st_ino == inode);
    SAY(access(path, R_OK | W_OK));
    SAY(open(path, O_RDONLY | O_DIRECTORY));
    SAY(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    SAY(truncate(path, 0));
    SAY(mknod(other, S_IFIFO | 0600, 0));
    SAY(unlink(other));
    DIR *directory = opendir("/tmp");
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, path + 5) == 0) printf("type %d\n", entry->d_type == DT_FIFO);
    closedir(directory);
}

static void one_thread(void) {
    int left;
    SAY(open(path, O_WRONLY | O_NONBLOCK));
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    SAY(polled(reader));
    SAY(read(reader, buffer, 10));
    int writer = open(path, O_WRONLY);
    SAY(polled(writer));
    SAY(polled(reader));
    SAY(read(reader, buffer, 10));
    SAY(write(writer, "hello", 5));
    SAY(polled(reader));
    SAY(ioctl(reader, FIONREAD, &left));
    SAY(left);
    SAY(read(writer, buffer, 1));
    SAY(write(reader, "x", 1));
    SAY(lseek(reader, 0, SEEK_CUR));
    struct stat status, named;
    SAY(fstat(reader, &status));
    SAY(stat(path, &named));
    SAY(status.st_ino == named.st_ino && status.st_dev == named.st_dev && status.st_mode == named.st_mode);
    char link[64], target[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", reader);
    SAY(readlink(link, target, sizeof target) == (ssize_t)strlen(path) && strcmp(target, path) == 0);
    SAY(fcntl(reader, F_GETPIPE_SZ));
    // Several of each.
    int second = open(path, O_WRONLY | O_NONBLOCK), third = open(path, O_RDONLY);
    SAY(write(second, " world", 6));
    SAY(read(third, buffer, 7));
    SAY(memcmp(buffer, "hello w", 7));
    SAY(read(reader, buffer, 100));
    SAY(close(writer));
    SAY(polled(reader));
    SAY(read(reader, buffer, 100));
    SAY(write(second, "last", 4));
    SAY(close(second));
    SAY(polled(reader));
    SAY(read(third, buffer, 100));
    SAY(read(third, buffer, 100));
    SAY(read(reader, buffer, 100));
    SAY(polled(reader));
    // A new writer.
    writer = open(path, O_WRONLY | O_NONBLOCK);
    SAY(polled(reader));
    SAY(read(reader, buffer, 100));
    SAY(close(third));
    SAY(polled(writer));
    SAY(close(reader));
    SAY(polled(writer));
    SAY(write(writer, "x", 1));
    // What is written stays while a writer is there.
    reader = open(path, O_RDONLY | O_NONBLOCK);
    SAY(polled(writer));
    SAY(write(writer, "stays", 5));
    SAY(close(reader));
    reader = open(path, O_RDONLY | O_NONBLOCK);
    SAY(read(reader, buffer, 100));
    SAY(write(writer, "goes", 4));
    close(reader);
    close(writer);
    reader = open(path, O_RDONLY | O_NONBLOCK);
    SAY(read(reader, buffer, 100));
    close(reader);
    // Both directions.
    int both = open(path, O_RDWR);
    SAY(fcntl(both, F_GETFL) & O_ACCMODE);
    SAY(polled(both));
    SAY(write(both, "myself", 6));
    SAY(polled(both));
    SAY(read(both, buffer, 100));
    SAY(fcntl(both, F_SETFL, O_NONBLOCK));
    SAY(read(both, buffer, 100));
    int filled = 0;
    for (ssize_t part; (part = write(both, buffer, 4096)) > 0;)
        filled += part;
    SAY(filled);
    SAY(polled(both));
    SAY(read(both, buffer, 100000));
    // Edges.
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLET, {0}};
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, both, &event));
    SAY(epoll_wait(epoll, &event, 1, 0));
    writer = open(path, O_WRONLY);
    SAY(write(writer, "edge", 4));
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(epoll_wait(epoll, &event, 1, 0));
    SAY(write(writer, "edge", 4));
    SAY(epoll_wait(epoll, &event, 1, 0));
    close(epoll);
    close(writer);
    // Without a name.
    int copy = dup(both);
    close(both);
    SAY(unlink(path));
    SAY(read(copy, buffer, 100));
    SAY(write(copy, "nameless", 8));
    SAY(read(copy, buffer, 100));
    SAY(fstat(copy, &status));
    SAY(S_ISFIFO(status.st_mode) && status.st_nlink == 0);
    SAY(mkfifo(path, 0600));
    // A new one is another.
    reader = open(path, O_RDONLY | O_NONBLOCK);
    SAY(write(copy, "other", 5));
    SAY(read(reader, buffer, 100));
    close(reader);
    close(copy);
}

static void *writes(void *argument) {
    (void)argument;
    int fd = open(path, O_WRONLY);
    long sum = 0;
    for (int i = 0; i < 50; i++)
        sum += write(fd, buffer, 10000);
    close(fd);
    return (void *)sum;
}

static void *opens_and_closes(void *argument) {
    int fd = open(path, argument ? O_RDONLY : O_WRONLY);
    if (!argument && write(fd, "brief", 5) != 5) printf("not written\n");
    close(fd);
    return NULL;
}

static void *opens_soon(void *argument) {
    struct timespec time = {0, 30000000};
    nanosleep(&time, NULL);
    return opens_and_closes(argument);
}

static void nothing(int signal) { (void)signal; }

static volatile int stop;

// Again and again: a signal may come just before the call that it is to interrupt.
static void *interrupts(void *argument) {
    struct timespec time = {0, 5000000};
    while (!stop) {
        nanosleep(&time, NULL);
        pthread_kill(*(pthread_t *)argument, SIGUSR1);
    }
    return NULL;
}

static void threads(void) {
    pthread_t thread;
    void *sum;
    // A reader waits for a writer, or the other way round.
    pthread_create(&thread, NULL, writes, NULL);
    int fd = open(path, O_RDONLY);
    long total = 0;
    for (ssize_t got; (got = read(fd, buffer, 7000)) > 0;)
        total += got;
    pthread_join(thread, &sum);
    printf("%ld %ld\n", total, (long)sum);
    close(fd);
    for (int reads = 0; reads < 2; reads++) {
        pthread_create(&thread, NULL, opens_soon, reads ? path : NULL);
        fd = open(path, reads ? O_WRONLY : O_RDONLY);
        SAY(fd >= 0);
        if (!reads) {
            SAY(read(fd, buffer, 100));
            SAY(read(fd, buffer, 100));
        }
        pthread_join(thread, NULL);
        close(fd);
    }
    // A signal ends the wait, and nothing is left of it.
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t own = pthread_self();
    pthread_create(&thread, NULL, interrupts, &own);
    int interrupted = 0;
    while (interrupted < 3 && open(path, O_RDONLY) == -1 && errno == EINTR)
        interrupted++;
    SAY(interrupted);
    stop = 1;
    pthread_join(thread, NULL);
    SAY(open(path, O_WRONLY | O_NONBLOCK));
    // With SA_RESTART it goes on.
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    stop = 0;
    pthread_t second;
    pthread_create(&thread, NULL, interrupts, &own);
    pthread_create(&second, NULL, opens_soon, NULL);
    fd = open(path, O_RDONLY);
    SAY(read(fd, buffer, 100));
    stop = 1;
    pthread_join(thread, NULL);
    pthread_join(second, NULL);
    close(fd);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof path, "/tmp/mayfly-fifo-%d", getpid());
    snprintf(other, sizeof other, "/tmp/mayfly-fifo-other-%d", getpid());
    files();
    one_thread();
    threads();
    SAY(unlink(path));
    return 0;
}
