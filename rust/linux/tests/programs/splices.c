// SPDX-License-Identifier: MIT OR Apache-2.0
// splice, tee, vmsplice; descriptors sent over sockets; signalfd, pidfd and inotify.
#include "say.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

static char text[1 << 16];
static int raised;
static void count(int number) { raised += number == SIGPIPE; }

static int polled(int fd) {
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    int got = poll(&entry, 1, 0);
    return got < 0 ? -errno : entry.revents;
}

// Bytes that can be read without waiting.
static const char *rest(int fd) {
    long got = read(fd, text, sizeof text - 1);
    if (got < 0) return errno == EAGAIN ? "(nothing)" : "(error)";
    text[got] = 0;
    return text;
}

static void *write_later(void *to) {
    usleep(20000);
    (void)!write(*(int *)to, "late", 4);
    return NULL;
}

static void splices(void) {
    int a[2], b[2], s[2], file = memfd_create("file", 0);
    SAY(pipe2(a, O_NONBLOCK) | pipe2(b, O_NONBLOCK) | socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
    SAY(write(file, "0123456789", 10));
    loff_t at = 3;
    SAY(splice(a[0], NULL, b[1], NULL, 0, 0));
    SAY(splice(a[0], NULL, b[1], NULL, 5, 1 << 20));
    SAY(splice(a[0], NULL, b[1], NULL, 5, 0));
    SAY(splice(a[0], &at, b[1], NULL, 5, 0));
    SAY(splice(a[1], NULL, b[1], NULL, 5, 0));
    SAY(splice(a[0], NULL, a[1], NULL, 5, 0));
    SAY(splice(file, &at, file, NULL, 5, 0));
    SAY(splice(99, NULL, a[1], NULL, 5, 0));
    SAY(splice(file, &at, a[1], NULL, 4, SPLICE_F_MOVE | SPLICE_F_MORE));
    SAY(at);
    SAY(splice(file, UNMAPPED, a[1], NULL, 4, 0));
    SAY(splice(file, &at, a[1], NULL, 100, 0));
    SAY(splice(file, &at, a[1], NULL, 100, 0));
    SAY(tee(a[0], b[1], 5, 0));
    SAY(tee(a[0], a[1], 5, 0));
    SAY(tee(a[0], b[1], 0, 0));
    SAY(tee(a[0], file, 5, 0));
    printf("%s\n", rest(b[0]));
    SAY(splice(a[0], NULL, b[1], NULL, 100, 0));
    printf("%s %s\n", rest(a[0]), rest(b[0]));
    SAY(tee(a[0], b[1], 5, 0));
    // To a socket, and from one.
    SAY(write(a[1], "through a socket", 16));
    SAY(splice(a[0], NULL, s[0], NULL, 100, 0));
    SAY(polled(s[1]) & POLLIN);
    SAY(splice(s[1], NULL, b[1], NULL, 9, 0));
    printf("%s\n", rest(b[0]));
    SAY(splice(s[1], NULL, b[1], NULL, 100, 0));
    printf("%s\n", rest(b[0]));
    SAY(splice(s[1], NULL, b[1], NULL, 100, 0));
    SAY(splice(s[1], NULL, s[0], NULL, 100, 0));
    // To a file.
    SAY(write(a[1], "abc", 3));
    at = 20;
    SAY(splice(a[0], NULL, file, &at, 100, 0));
    SAY(at);
    SAY(pread(file, text, 100, 20));
    SAY(write(a[1], "de", 2));
    SAY(splice(a[0], NULL, file, NULL, 100, 0));
    SAY(lseek(file, 0, SEEK_CUR));
    // A blocking one.
    int c[2];
    SAY(pipe(c));
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, &c[1]);
    SAY(splice(c[0], NULL, s[0], NULL, 100, 0));
    pthread_join(thread, NULL);
    printf("%s\n", rest(s[1]));
    struct iovec parts[2] = {{"vm", 2}, {"splice", 6}};
    SAY(vmsplice(a[1], parts, 2, 0));
    SAY(vmsplice(a[1], parts, 2, 1 << 20));
    SAY(vmsplice(file, parts, 1, 0));
    SAY(vmsplice(s[0], parts, 1, 0));
    char in[8] = "";
    struct iovec to = {in, 5};
    SAY(vmsplice(a[0], &to, 1, 0));
    printf("%s %s\n", in, rest(a[0]));
    SAY(vmsplice(a[0], &to, 1, SPLICE_F_NONBLOCK));
    // Ends.
    signal(SIGPIPE, count);
    SAY(write(a[1], "xy", 2));
    close(b[0]);
    SAY(splice(a[0], NULL, b[1], NULL, 5, 0));
    SAY(tee(a[0], b[1], 5, 0));
    SAY(vmsplice(b[1], parts, 1, 0));
    SAY(raised);
    close(a[1]);
    SAY(splice(a[0], NULL, s[0], NULL, 5, 0));
    SAY(splice(a[0], NULL, s[0], NULL, 5, 0));
    close(s[1]);
    SAY(write(c[1], "xy", 2));
    SAY(splice(c[0], NULL, s[0], NULL, 5, 0));
    close(a[0]), close(b[1]), close(c[0]), close(c[1]), close(s[0]), close(file);
}

static long send_fds(int to, const char *bytes, int count, const int *fds, int level, int kind) {
    char control[CMSG_SPACE(300 * sizeof(int))];
    memset(control, 0, sizeof control);
    struct iovec part = {(void *)bytes, strlen(bytes)};
    struct msghdr message = {NULL, 0, &part, 1, control, CMSG_SPACE(count * sizeof(int)), 0};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = level, head->cmsg_type = kind, head->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(head), fds, count * sizeof(int));
    return sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int got[300], got_count;

static void receive_fds(int from, int room, int bytes, int flags) {
    char control[CMSG_SPACE(300 * sizeof(int))];
    struct iovec part = {text, bytes};
    struct msghdr message = {NULL, 0, &part, 1, control, room, 0};
    long result = recvmsg(from, &message, flags | MSG_DONTWAIT);
    got_count = 0;
    if (result < 0) {
        printf("receive: error %d\n", errno);
        return;
    }
    printf("receive: %ld bytes, control %ld, flags %x", result, (long)message.msg_controllen, message.msg_flags);
    struct cmsghdr *head = room ? CMSG_FIRSTHDR(&message) : NULL;
    if (head) {
        got_count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(got, CMSG_DATA(head), got_count * sizeof(int));
        printf(", level %d kind %d, %d descriptors, cloexec %d", head->cmsg_level, head->cmsg_type, got_count,
               got_count ? fcntl(got[0], F_GETFD) : -1);
    }
    printf("\n");
}

static void descriptors(int kind) {
    int s[2], p[2], file = memfd_create("sent", 0);
    SAY(socketpair(AF_UNIX, kind, 0, s));
    SAY(pipe(p));
    int two[2] = {p[0], file}, wrong[1] = {99};
    SAY(send_fds(s[0], "x", 1, wrong, SOL_SOCKET, SCM_RIGHTS));
    SAY(send_fds(s[0], "x", 1, two, SOL_SOCKET, 77));
    SAY(send_fds(s[0], "other level", 1, two, 77, 77));
    receive_fds(s[1], 100, 100, 0);
    SAY(send_fds(s[0], "two", 2, two, SOL_SOCKET, SCM_RIGHTS));
    // They are the same open files, which stay open after these descriptors are closed.
    SAY(write(file, "12345", 5));
    close(file), close(p[0]);
    SAY(write(p[1], "piped", 5));
    receive_fds(s[1], CMSG_SPACE(2 * sizeof(int)), 100, MSG_CMSG_CLOEXEC);
    SAY(lseek(got[1], 0, SEEK_CUR));
    SAY(read(got[0], text, 10));
    close(got[0]);
    SAY(write(p[1], "x", 1));
    file = got[1];
    // In flight, and closed with their receiver.
    SAY(pipe(p));
    SAY(send_fds(s[0], "lost", 1, p, SOL_SOCKET, SCM_RIGHTS));
    close(p[0]);
    SAY(write(p[1], "x", 1));
    SAY(read(s[1], text, 100));
    SAY(write(p[1], "x", 1));
    close(p[1]);
    // Too little space: for one only, and for none.
    int three[3] = {file, file, file};
    SAY(send_fds(s[0], "three", 3, three, SOL_SOCKET, SCM_RIGHTS));
    receive_fds(s[1], CMSG_LEN(sizeof(int)), 100, 0);
    for (int i = 0; i < got_count; i++)
        close(got[i]);
    SAY(send_fds(s[0], "three", 3, three, SOL_SOCKET, SCM_RIGHTS));
    receive_fds(s[1], 0, 100, 0);
    // Bytes before and after: one read does not return bytes with different descriptors.
    SAY(send_fds(s[0], "aa", 1, three, SOL_SOCKET, SCM_RIGHTS));
    SAY(send_fds(s[0], "bb", 2, three, SOL_SOCKET, SCM_RIGHTS));
    SAY(write(s[0], "cc", 2));
    receive_fds(s[1], 100, 100, MSG_PEEK);
    for (int i = 0; i < got_count; i++)
        close(got[i]);
    for (int i = 0; i < 3; i++) {
        receive_fds(s[1], 100, i == 1 ? 1 : 100, 0);
        for (int j = 0; j < got_count; j++)
            close(got[j]);
    }
    receive_fds(s[1], 100, 100, 0);
    SAY(write(s[0], "plain", 5));
    SAY(send_fds(s[0], "with", 1, three, SOL_SOCKET, SCM_RIGHTS));
    receive_fds(s[1], 100, 100, 0);
    for (int j = 0; j < got_count; j++)
        close(got[j]);
    receive_fds(s[1], 100, 100, 0);
    for (int j = 0; j < got_count; j++)
        close(got[j]);
    // Too many.
    static int many[300];
    for (int i = 0; i < 300; i++)
        many[i] = file;
    SAY(send_fds(s[0], "many", 254, many, SOL_SOCKET, SCM_RIGHTS));
    SAY(send_fds(s[0], "many", 253, many, SOL_SOCKET, SCM_RIGHTS));
    receive_fds(s[1], sizeof(int) * 300, 100, 0);
    for (int j = 0; j < got_count; j++)
        close(got[j]);
    // A socket over itself.
    SAY(send_fds(s[0], "self", 1, s, SOL_SOCKET, SCM_RIGHTS));
    receive_fds(s[1], 100, 100, 0);
    close(s[0]);
    SAY(write(got[0], "still there", 11));
    SAY(read(s[1], text, 100));
    close(got[0]);
    SAY(read(s[1], text, 100));
    close(s[1]), close(file);
    // A pipe's end that is referred to only by a message that is never received.
    SAY(socketpair(AF_UNIX, kind, 0, s));
    SAY(pipe2(p, O_NONBLOCK));
    SAY(send_fds(s[0], "w", 1, &p[1], SOL_SOCKET, SCM_RIGHTS));
    close(p[1]);
    SAY(polled(p[0]));
    close(s[1]);
    SAY(polled(p[0]));
    close(s[0]), close(p[0]);
}

static void signals(void) {
    sigset_t set;
    sigemptyset(&set);
    SAY(signalfd(-1, &set, 1));
    SAY(syscall(SYS_signalfd4, -1, &set, 4, 0));
    SAY(syscall(SYS_signalfd4, -1, UNMAPPED, 8, 0));
    SAY(signalfd(99, &set, 0));
    SAY(signalfd(0, &set, 0));
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    SAY(fcntl(fd, F_GETFD));
    SAY(fcntl(fd, F_GETFL));
    char link[32], path[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    SAY(readlink(link, path, sizeof path));
    printf("%s\n", path);
    struct signalfd_siginfo infos[3];
    SAY(polled(fd));
    SAY(read(fd, infos, sizeof infos));
    SAY(read(fd, infos, 100));
    SAY(write(fd, infos, 128));
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLET, {.u32 = 5}}, events[2];
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    SAY(epoll_wait(epoll, events, 2, 0));
    SAY(kill(getpid(), SIGUSR1));
    SAY(polled(fd));
    SAY(epoll_wait(epoll, events, 2, 0));
    SAY(epoll_wait(epoll, events, 2, 0));
    union sigval value = {.sival_int = 42};
    SAY(sigqueue(getpid(), SIGRTMIN + 1, value));
    SAY(epoll_wait(epoll, events, 2, 0));
    memset(infos, 0, sizeof infos);
    SAY(read(fd, infos, sizeof infos));
    for (int i = 0; i < 2; i++)
        printf("signal %u code %d pid %d uid %d int %d\n", infos[i].ssi_signo, infos[i].ssi_code,
               infos[i].ssi_pid == (unsigned)getpid(), infos[i].ssi_uid == getuid(), infos[i].ssi_int);
    SAY(polled(fd));
    SAY(raise(SIGUSR1));
    SAY(read(fd, UNMAPPED, 128));
    SAY(polled(fd));
    SAY(raise(SIGUSR1));
    SAY(polled(fd));
    // Another mask.
    sigdelset(&set, SIGUSR1);
    SAY(signalfd(fd, &set, 0) == fd);
    SAY(polled(fd));
    sigaddset(&set, SIGUSR1);
    SAY(signalfd(fd, &set, 0) == fd);
    SAY(polled(fd));
    SAY(read(fd, infos, 128));
    SAY(infos[0].ssi_code);
    // A blocking read that a timer ends.
    SAY(fcntl(fd, F_SETFL, 0));
    timer_t timer;
    struct sigevent how;
    memset(&how, 0, sizeof how);
    how.sigev_notify = SIGEV_SIGNAL, how.sigev_signo = SIGUSR1, how.sigev_value.sival_int = 9;
    SAY(timer_create(CLOCK_MONOTONIC, &how, &timer));
    struct itimerspec soon = {{0, 0}, {0, 20000000}};
    SAY(timer_settime(timer, 0, &soon, NULL));
    SAY(read(fd, infos, sizeof infos));
    printf("signal %u code %d int %d overrun %u\n", infos[0].ssi_signo, infos[0].ssi_code, infos[0].ssi_int,
           infos[0].ssi_overrun);
    SAY(timer_settime(timer, 0, &soon, NULL));
    SAY(epoll_wait(epoll, events, 2, -1));
    SAY(read(fd, infos, sizeof infos));
    SAY(timer_delete(timer));
    SAY(lseek(fd, 0, SEEK_SET));
    close(fd), close(epoll);
}

static void changes(void) {
    SAY(inotify_init1(7));
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), waiting = 9;
    SAY(fcntl(fd, F_GETFD));
    char link[32], path[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    SAY(readlink(link, path, sizeof path));
    printf("%s\n", path);
    SAY(inotify_add_watch(fd, "/nowhere", IN_MODIFY));
    SAY(inotify_add_watch(fd, "/proc", 0));
    SAY(inotify_add_watch(fd, UNMAPPED, IN_MODIFY));
    SAY(inotify_add_watch(0, "/proc", IN_MODIFY));
    SAY(inotify_add_watch(99, "/proc", IN_MODIFY));
    SAY(inotify_add_watch(fd, "/proc/self/status", IN_MODIFY | IN_ONLYDIR));
    SAY(inotify_add_watch(fd, "/proc", IN_MODIFY));
    SAY(inotify_add_watch(fd, "/proc", IN_CREATE | IN_MASK_ADD));
    SAY(inotify_add_watch(fd, "/proc", IN_CREATE | IN_MASK_CREATE));
    SAY(inotify_add_watch(fd, "/proc", IN_CREATE | IN_MASK_CREATE | IN_MASK_ADD));
    SAY(inotify_add_watch(fd, "/", IN_CREATE));
    SAY(polled(fd));
    SAY(read(fd, text, 1000));
    SAY(ioctl(fd, FIONREAD, &waiting));
    SAY(waiting);
    SAY(write(fd, text, 10));
    SAY(inotify_rm_watch(fd, 77));
    SAY(inotify_rm_watch(99, 1));
    SAY(inotify_rm_watch(0, 1));
    SAY(inotify_rm_watch(fd, 1));
    SAY(polled(fd));
    SAY(ioctl(fd, FIONREAD, &waiting));
    SAY(waiting);
    SAY(read(fd, text, 15));
    SAY(read(fd, text, 1000));
    struct inotify_event *event = (void *)text;
    printf("watch %d mask %x cookie %u length %u\n", event->wd, event->mask, event->cookie, event->len);
    SAY(polled(fd));
    SAY(inotify_rm_watch(fd, 1));
    SAY(inotify_add_watch(fd, "/proc", IN_MODIFY));
    SAY(close(fd));
    SAY_OK(fd = syscall(SYS_inotify_init));
    SAY(close(fd));
}

static void processes(void) {
    SAY(syscall(SYS_pidfd_open, 99999999, 0));
    SAY(syscall(SYS_pidfd_open, 0, 0));
    SAY(syscall(SYS_pidfd_open, getpid(), 1));
    int fd = syscall(SYS_pidfd_open, getpid(), 0);
    SAY(fcntl(fd, F_GETFD));
    SAY(fcntl(fd, F_GETFL));
    SAY(polled(fd));
    SAY(read(fd, text, 8) < 0);
    SAY(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    SAY(syscall(SYS_pidfd_send_signal, fd, 99, NULL, 0));
    SAY(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 99));
    SAY(syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0));
    SAY(syscall(SYS_pidfd_send_signal, 99, 0, NULL, 0));
    raised = 0;
    SAY(syscall(SYS_pidfd_send_signal, fd, SIGPIPE, NULL, 0));
    SAY(raised);
    close(fd);
    int status;
    SAY(waitpid(-1, &status, 0));
    SAY(waitpid(-1, &status, WNOHANG));
    SAY(waitpid(12345, &status, 0));
    SAY(syscall(SYS_wait4, -1, &status, 1 << 20, NULL));
    siginfo_t info;
    SAY(waitid(P_ALL, 0, &info, WEXITED));
    SAY(waitid(P_ALL, 0, &info, 0));
    SAY(waitid(77, 0, &info, WEXITED));
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    splices();
    descriptors(SOCK_STREAM);
    descriptors(SOCK_SEQPACKET);
    signals();
    changes();
    processes();
    return 0;
}
