// SPDX-License-Identifier: MIT OR Apache-2.0
// The three standard descriptors: read, write, duplicate, query, poll.
#include "say.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

static void reading(void) {
    char byte;
    struct iovec vector = {&byte, 1};
    SAY(read(0, &byte, 1));
    SAY(read(0, UNMAPPED, 0));
    SAY(readv(0, &vector, 1));
    SAY(pread(0, &byte, 1, 5));
    SAY(pread(0, &byte, 1, -1));
    SAY(pread(1, &byte, 1, 0));
    SAY(read(1, &byte, 1));
    SAY(read(77, &byte, 1));
    SAY(read(-1, &byte, 1));
}

static void writing(void) {
    struct iovec good[3] = {{"one ", 4}, {NULL, 0}, {"two\n", 4}};
    struct iovec bad[2] = {{"half\n", 5}, {UNMAPPED, 5}};
    struct iovec negative[1] = {{"x", (size_t)-1}};
    fflush(stdout);
    SAY(write(1, "written\n", 8));
    SAY(writev(1, good, 3));
    SAY(writev(1, good, 0));
    fflush(stdout);
    SAY(writev(1, bad, 2));
    SAY(writev(1, negative, 1));
    SAY(writev(1, good, -1));
    SAY(writev(1, good, IOV_MAX + 1));
    SAY(writev(1, UNMAPPED, 1));
    SAY(write(1, UNMAPPED, 5));
    SAY(write(1, KERNEL, 5));
    SAY(write(1, NONCANONICAL, 5));
    SAY(write(1, UNMAPPED, 0));
    SAY(write(0, "x", 1));
    SAY(write(99, "x", 1));
    SAY(pwrite(1, "x", 1, 0));
    SAY(pwrite(1, "x", 1, -1));
    SAY(lseek(1, 0, SEEK_CUR));
    SAY(lseek(0, 0, SEEK_END));
    SAY(lseek(99, 0, SEEK_END));
}

static void descriptors(void) {
    SAY(dup(1));
    SAY(dup2(1, 10));
    SAY(dup2(1, 1));
    SAY(dup2(77, 1));
    SAY(dup2(77, 77));
    SAY(dup2(1, -1));
    SAY(dup3(1, 11, O_CLOEXEC));
    SAY(dup3(1, 1, 0));
    SAY(dup3(1, 12, O_APPEND));
    SAY(fcntl(11, F_GETFD));
    SAY(fcntl(10, F_GETFD));
    SAY(fcntl(10, F_SETFD, FD_CLOEXEC));
    SAY(fcntl(10, F_GETFD));
    SAY(fcntl(1, F_DUPFD, 5));
    SAY(fcntl(1, F_DUPFD_CLOEXEC, 5));
    SAY(fcntl(1, F_DUPFD, -1));
    SAY(fcntl(0, F_GETFL) & O_ACCMODE);
    SAY(fcntl(1, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    SAY(fcntl(10, F_SETFL, O_NONBLOCK));
    SAY(fcntl(1, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    SAY(fcntl(1, F_SETFL, 0));
    SAY(fcntl(1, 12345));
    SAY(fcntl(77, F_GETFD));
    SAY(close(10));
    SAY(close(10));
    SAY(close(-1));
    SAY(syscall(SYS_close_range, 3, ~0U, 0));
    SAY(syscall(SYS_close_range, 5, 4, 0));
    SAY(syscall(SYS_close_range, 5, 6, 64));
    SAY(dup(2));
    SAY(write(3, "by a duplicate\n", 15));
    SAY(close(3));
}

static void kinds(void) {
    struct stat st;
    struct statx stx;
    for (int fd = 0; fd < 3; fd++) {
        SAY(fstat(fd, &st));
        printf("%o %lx %ld\n", st.st_mode & S_IFMT, (unsigned long)st.st_rdev, (long)st.st_size);
        SAY(syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH));
        printf("%o\n", st.st_mode & S_IFMT);
        SAY(syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx));
        printf("%o %u %u\n", stx.stx_mode & S_IFMT, stx.stx_rdev_major, stx.stx_rdev_minor);
        SAY(isatty(fd));
        SAY(ioctl(fd, TIOCGWINSZ, UNMAPPED));
    }
    SAY(syscall(SYS_fstat, 77, &st));
    SAY(syscall(SYS_fstat, 1, UNMAPPED));
    SAY(syscall(SYS_newfstatat, 77, "", &st, AT_EMPTY_PATH));
    SAY(syscall(SYS_newfstatat, 1, "", &st, 0));
    SAY(ioctl(77, TIOCGWINSZ, UNMAPPED));
}

static void polling(void) {
    struct pollfd fds[4] = {{0, POLLIN, 7}, {1, POLLIN | POLLOUT, 7}, {-5, POLLIN, 7}, {77, POLLIN, 7}};
    SAY(poll(fds, 4, 0));
    for (int i = 0; i < 4; i++)
        printf("revents %d: %x\n", i, fds[i].revents);
    SAY(poll(fds + 1, 1, -1));
    fds[1].events = POLLIN;
    SAY(poll(fds + 1, 1, 0));
    SAY(poll(NULL, 0, 1));
    SAY(poll(UNMAPPED, 1, 0));
    struct timespec moment = {0, 1000}, wrong = {0, 1000000000};
    SAY(syscall(SYS_ppoll, fds, 1, &moment, NULL, 8));
    SAY(syscall(SYS_ppoll, fds, 1, &wrong, NULL, 8));
    SAY(syscall(SYS_ppoll, fds, 1, UNMAPPED, NULL, 8));
}

static void paths(const char *self) {
    char text[PATH_MAX], exact[4];
    struct stat st;
    ssize_t length = readlink("/proc/self/exe", text, sizeof text);
    printf("exe is argv[0]: %d\n", length == (ssize_t)strlen(self) && memcmp(text, self, strlen(self)) == 0);
    SAY(readlinkat(AT_FDCWD, "/proc/self/exe", exact, sizeof exact));
    SAY(readlink("/proc/self/exe", text, 0));
    SAY(readlink("/nowhere", text, sizeof text));
    SAY(readlink("", text, sizeof text));
    SAY(readlink(UNMAPPED, text, sizeof text));
    SAY(readlink("/proc/self/exe", UNMAPPED, sizeof text));
    SAY(open("/nowhere/at/all", O_RDONLY));
    SAY(openat(77, "relative", O_RDONLY));
    SAY(openat(1, "relative", O_RDONLY));
    SAY(openat(77, "/nowhere/at/all", O_RDONLY));
    SAY(open(UNMAPPED, O_RDONLY));
    SAY(open("", O_RDONLY));
    static char endless[2 * PATH_MAX];
    memset(endless, 'x', sizeof endless - 1);
    SAY(open(endless, O_RDONLY));
    SAY(stat("/nowhere", &st));
    SAY(access("/nowhere", F_OK));
    SAY(faccessat(1, "relative", F_OK, 0));
    SAY(chdir("/nowhere"));
    SAY(syscall(SYS_getcwd, text, 0));
    SAY(syscall(SYS_getcwd, UNMAPPED, PATH_MAX));
}

int main(int argc, char **argv) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    reading();
    writing();
    descriptors();
    kinds();
    polling();
    if (argc > 0) paths(argv[0]);
    return 0;
}
