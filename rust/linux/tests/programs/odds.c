// SPDX-License-Identifier: MIT OR Apache-2.0
// Calls that C libraries rarely make, or make in another form, as raw system calls.
#include "say.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>

static char place[64], path[80];

static void identity(void) {
    SAY(syscall(SYS_getpgrp) == syscall(SYS_getpgid, 0));
    SAY(syscall(SYS_getsid, 99999999));
    SAY_OK(syscall(SYS_getsid, 0));
    unsigned r, e, s;
    SAY(syscall(SYS_getresgid, &r, &e, &s));
    SAY(r == getgid() && e == r && s == r);
    SAY(syscall(SYS_getresgid, &r, UNMAPPED, &s));
    // To the identities that the process has.
    SAY(syscall(SYS_setuid, geteuid()));
    SAY(syscall(SYS_setgid, getegid()));
    SAY(syscall(SYS_setuid, -1));
    SAY(syscall(SYS_setreuid, -1, getuid()));
    SAY(syscall(SYS_setregid, getgid(), -1));
    SAY(syscall(SYS_setresuid, -1, geteuid(), -1));
    SAY(syscall(SYS_setresgid, -1, -1, getgid()));
    SAY(syscall(SYS_setfsuid, -1) == geteuid());
    SAY(syscall(SYS_setfsgid, -1) == getegid());
    // A test may or may not lead a session natively; afterwards it does.
    syscall(SYS_setsid);
    SAY(syscall(SYS_setsid));
    SAY(syscall(SYS_setpgid, 0, 0));
    SAY(syscall(SYS_setpgid, 0, -1));
    SAY(syscall(SYS_setpgid, 99999999, 0));
    struct rlimit low = {100, 200}, back;
    SAY(syscall(SYS_setrlimit, RLIMIT_CPU, &low));
    SAY(syscall(SYS_getrlimit, RLIMIT_CPU, &back));
    SAY(back.rlim_cur);
    SAY(syscall(SYS_setrlimit, RLIMIT_CPU, UNMAPPED));
    SAY(syscall(SYS_setrlimit, 99, &low));
    SAY(syscall(SYS_restart_syscall));
}

static void capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    header.version = 0x1234;
    SAY(syscall(SYS_capset, &header, none));
    printf("version %x\n", header.version);
    SAY(syscall(SYS_capset, UNMAPPED, none));
    SAY(syscall(SYS_capset, &header, UNMAPPED));
    header.pid = 99999999;
    SAY(syscall(SYS_capset, &header, none));
    header.pid = 0;
    // Without supplementary groups, whatever there was before.
    SAY(syscall(SYS_capset, &header, none));
    none[0].permitted = none[0].effective = 1;
    SAY(syscall(SYS_capset, &header, none));
    none[0].permitted = 0;
    SAY(syscall(SYS_capset, &header, none));
    none[0].effective = 0, none[0].inheritable = 1;
    SAY(syscall(SYS_capset, &header, none));
    SAY(syscall(SYS_capget, &header, none));
    SAY(none[0].permitted | none[0].effective | none[0].inheritable | none[1].permitted);
}

static void scheduling(void) {
    SAY(syscall(SYS_sched_get_priority_min, SCHED_OTHER));
    SAY(syscall(SYS_sched_get_priority_min, SCHED_FIFO));
    SAY(syscall(SYS_sched_get_priority_max, SCHED_RR));
    SAY(syscall(SYS_sched_get_priority_min, 99));
    int priority = 0, wrong = 5;
    SAY(syscall(SYS_sched_setparam, 0, &priority));
    SAY(syscall(SYS_sched_setparam, 0, &wrong));
    SAY(syscall(SYS_sched_setparam, 99999999, &priority));
    SAY(syscall(SYS_sched_setparam, -1, &priority));
    SAY(syscall(SYS_sched_setparam, 0, NULL));
    unsigned long all[16], none[16] = {0};
    memset(all, 255, sizeof all);
    SAY(syscall(SYS_sched_setaffinity, 0, sizeof all, all));
    SAY(syscall(SYS_sched_setaffinity, 0, sizeof none, none));
    SAY(syscall(SYS_sched_setaffinity, 0, 0, all));
    SAY(syscall(SYS_sched_setaffinity, 99999999, sizeof all, all));
    SAY(syscall(SYS_sched_setaffinity, 0, sizeof all, UNMAPPED));
    SAY(syscall(SYS_sched_getscheduler, getppid()));
    SAY(syscall(SYS_sched_getscheduler, -1));
    SAY(syscall(SYS_sched_getparam, getppid(), &priority));
    SAY(syscall(SYS_sched_getparam, -1, &priority));
    SAY(syscall(SYS_sched_getparam, 0, NULL));
    struct timespec slice = {-1, -1};
    SAY(syscall(SYS_sched_rr_get_interval, 0, &slice));
    SAY(slice.tv_sec == 0 && slice.tv_nsec >= 0 && slice.tv_nsec < 1000000000);
    SAY(syscall(SYS_sched_rr_get_interval, -1, &slice));
    SAY(syscall(SYS_sched_rr_get_interval, 99999999, &slice));
    SAY(syscall(SYS_sched_rr_get_interval, 0, UNMAPPED));
    SAY_OK(syscall(SYS_ioprio_set, 1, 0, 0));
    SAY(syscall(SYS_ioprio_set, 9, 0, 0));
    SAY(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 4));
    struct {
        unsigned size, policy;
        unsigned long flags;
        int nice;
        unsigned priority;
        unsigned long runtime, deadline, period;
    } attributes = {48, SCHED_BATCH, 0, 0, 0, 0, 0, 0};
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    attributes.policy = SCHED_OTHER;
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 7));
    SAY(syscall(SYS_sched_setattr, -1, &attributes, 0));
    SAY(syscall(SYS_sched_setattr, 99999999, &attributes, 0));
    SAY(syscall(SYS_sched_setattr, 0, UNMAPPED, 0));
    attributes.size = 0;
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    attributes.size = 47;
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    printf("size %u\n", attributes.size);
    attributes.size = 48;
    attributes.policy = 77;
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    attributes.policy = SCHED_OTHER;
    attributes.priority = 3;
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    attributes.priority = 0;
    attributes.flags = 1UL << 40;
    SAY(syscall(SYS_sched_setattr, 0, &attributes, 0));
    // The last, since it cannot be taken back inside.
    int nice = getpriority(PRIO_PROCESS, 0);
    SAY(setpriority(PRIO_PROCESS, 0, nice + 1));
    SAY(getpriority(PRIO_PROCESS, (int)syscall(SYS_gettid)) - nice);
    SAY(setpriority(PRIO_PROCESS, 99999999, nice + 1));
    SAY(getpriority(9, 0));
    SAY(setpriority(PRIO_USER, 99999999, 19));
}

static void memory(void) {
    static char pages[2 * PAGE] __attribute__((aligned(4096)));
    SAY(syscall(SYS_mlock2, pages, PAGE, 0));
    SAY(syscall(SYS_mlock2, pages, PAGE, 1));
    SAY(syscall(SYS_mlock2, pages, PAGE, 2));
    SAY(syscall(SYS_mlock2, PAGE, PAGE, 0));
    SAY(syscall(SYS_mlockall, 0));
    SAY(syscall(SYS_mlockall, 8));
    SAY(syscall(SYS_mlockall, MCL_ONFAULT));
    SAY(syscall(SYS_munlockall));
    SAY(syscall(SYS_pkey_alloc, 1, 0));
    SAY(syscall(SYS_pkey_alloc, 0, 99));
}

static void files(void) {
    strcpy(place, "/tmp/mayfly-odds-XXXXXX");
    if (!mkdtemp(place)) abort();
    snprintf(path, sizeof path, "%s/file", place);
    int fd;
    SAY_OK(fd = syscall(SYS_creat, path, 0644));
    SAY(fcntl(fd, F_GETFL) & O_ACCMODE);
    SAY(write(fd, "content", 7));
    SAY(syscall(SYS_fdatasync, fd));
    SAY(syscall(SYS_fdatasync, 99));
    SAY(syscall(SYS_sync_file_range, fd, 0L, 7L, 2));
    SAY(syscall(SYS_sync_file_range, fd, 0L, 7L, 8));
    SAY(syscall(SYS_sync_file_range, fd, -1L, 7L, 2));
    SAY(syscall(SYS_sync_file_range, 99, 0L, 7L, 2));
    SAY(syscall(SYS_syncfs, fd));
    SAY(syscall(SYS_syncfs, 99));
    SAY(syscall(SYS_sync));
    struct statfs system;
    SAY(syscall(SYS_fstatfs, fd, &system));
    SAY(system.f_namelen);
    SAY(syscall(SYS_fstatfs, 99, &system));
    SAY(syscall(SYS_fstatfs, fd, UNMAPPED));
    SAY(syscall(SYS_statfs, path, &system));
    SAY(syscall(SYS_statfs, "/nowhere", &system));
    close(fd);
    SAY_OK(fd = syscall(SYS_open, path, O_RDWR | O_CLOEXEC));
    SAY(syscall(SYS_open, "/nowhere", O_RDONLY));
    SAY(syscall(SYS_open, UNMAPPED, O_RDONLY));
    struct stat stat;
    SAY(syscall(SYS_stat, path, &stat));
    printf("size %ld mode %o\n", (long)stat.st_size, stat.st_mode);
    SAY(syscall(SYS_stat, "/nowhere", &stat));
    SAY(syscall(SYS_stat, path, UNMAPPED));
    char link[100];
    snprintf(link, sizeof link, "%s/link", place);
    SAY(symlink("file", link));
    SAY(syscall(SYS_lstat, link, &stat));
    printf("size %ld kind %o\n", (long)stat.st_size, stat.st_mode & S_IFMT);
    SAY(syscall(SYS_stat, link, &stat));
    printf("size %ld kind %o\n", (long)stat.st_size, stat.st_mode & S_IFMT);
    SAY(syscall(SYS_faccessat, AT_FDCWD, path, R_OK));
    SAY(syscall(SYS_faccessat, AT_FDCWD, "/nowhere", F_OK));
    SAY(syscall(SYS_faccessat, 99, "file", F_OK));
    SAY(syscall(SYS_faccessat, AT_FDCWD, path, 8));
    SAY(syscall(SYS_fchmodat, AT_FDCWD, path, 0600));
    SAY(syscall(SYS_fchmodat, AT_FDCWD, "/nowhere", 0600));
    SAY(syscall(SYS_fchmodat, 99, "file", 0600));
    SAY(syscall(SYS_stat, path, &stat));
    printf("mode %o\n", stat.st_mode);
    SAY(syscall(SYS_lchown, link, -1, -1));
    SAY(syscall(SYS_lchown, "/nowhere", -1, -1));
    char node[100];
    snprintf(node, sizeof node, "%s/node", place);
    SAY(syscall(SYS_mknod, node, S_IFREG | 0640, 0));
    SAY(syscall(SYS_stat, node, &stat));
    printf("size %ld mode %o\n", (long)stat.st_size, stat.st_mode);
    SAY(syscall(SYS_mknod, node, S_IFREG | 0640, 0));
    SAY(syscall(SYS_mknod, "/nowhere/node", S_IFREG | 0640, 0));
    SAY(syscall(SYS_mknodat, 99, "node", S_IFREG | 0640, 0));
    SAY(unlink(node));
    SAY(syscall(SYS_mknodat, AT_FDCWD, node, 0600, 0));
    SAY(unlink(node));
    SAY(syscall(SYS_mknod, node, S_IFDIR | 0700, 0));
    SAY(syscall(SYS_mknod, node, S_IFLNK | 0700, 0));
    SAY(chmod(place, 02755));
    SAY(mkdir(node, 06700));
    SAY(syscall(SYS_stat, node, &stat));
    printf("mode %o\n", stat.st_mode);
    SAY(rmdir(node));
    SAY(chmod(place, 0755));
    SAY(unlink(link));
    SAY(unlink(path));
    SAY(rmdir(place));
    close(fd);
}

static void attributes(void) {
    // A file system without extended attributes: /proc.
    char value[16];
    int fd = open("/proc/self/status", O_RDONLY);
    SAY(syscall(SYS_getxattr, "/proc/self/status", "user.name", value, sizeof value));
    SAY(syscall(SYS_lgetxattr, "/proc/self/status", "user.name", value, sizeof value));
    SAY(syscall(SYS_fgetxattr, fd, "user.name", value, sizeof value));
    SAY(syscall(SYS_getxattr, "/nowhere", "user.name", value, sizeof value));
    SAY(syscall(SYS_lgetxattr, "/nowhere", "user.name", value, sizeof value));
    SAY(syscall(SYS_fgetxattr, 99, "user.name", value, sizeof value));
    SAY(syscall(SYS_listxattr, "/proc/self/status", value, sizeof value));
    SAY(syscall(SYS_llistxattr, "/proc/self/status", NULL, 0));
    SAY(syscall(SYS_flistxattr, fd, value, sizeof value));
    SAY(syscall(SYS_listxattr, "/nowhere", value, sizeof value));
    SAY(syscall(SYS_llistxattr, "/nowhere", value, sizeof value));
    SAY(syscall(SYS_flistxattr, 99, value, sizeof value));
    SAY(syscall(SYS_setxattr, "/nowhere", "user.name", "x", 1, 0));
    SAY(syscall(SYS_lsetxattr, "/nowhere", "user.name", "x", 1, 0));
    SAY(syscall(SYS_fsetxattr, 99, "user.name", "x", 1, 0));
    SAY(syscall(SYS_removexattr, "/nowhere", "user.name"));
    SAY(syscall(SYS_lremovexattr, "/nowhere", "user.name"));
    SAY(syscall(SYS_fremovexattr, 99, "user.name"));
    close(fd);
}

static void threads(void) {
    void *head = NULL;
    size_t size = 0;
    SAY(syscall(SYS_get_robust_list, 0, &head, &size));
    SAY(head != NULL && size == 24);
    SAY(syscall(SYS_get_robust_list, 99999999, &head, &size));
    SAY(syscall(SYS_get_robust_list, 0, UNMAPPED, &size));
    // Impossible threads: without the flags that threads need.
    SAY(syscall(SYS_clone, CLONE_THREAD, NULL, NULL, NULL, 0));
    SAY(syscall(SYS_clone, CLONE_THREAD | CLONE_VM, NULL, NULL, NULL, 0));
}

static void queued(void) {
    unsigned long blocked = 1UL << (SIGUSR1 - 1);
    SAY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, 8));
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = SIGUSR1;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_int = 77;
    int tid = syscall(SYS_gettid);
    SAY(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGUSR1, &info));
    SAY(syscall(SYS_rt_tgsigqueueinfo, getpid(), 99999999, SIGUSR1, &info));
    SAY(syscall(SYS_rt_tgsigqueueinfo, -1, tid, SIGUSR1, &info));
    SAY(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, 65, &info));
    SAY(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGUSR1, UNMAPPED));
    siginfo_t got;
    memset(&got, 0, sizeof got);
    struct timespec now = {0, 0};
    SAY(syscall(SYS_rt_sigtimedwait, &blocked, &got, &now, 8));
    printf("code %d value %d\n", got.si_code, got.si_int);
    SAY(syscall(SYS_rt_sigtimedwait, &blocked, &got, &now, 8));
}

static void waiting(void) {
    int ends[2];
    SAY(syscall(SYS_pipe, UNMAPPED));
    SAY(syscall(SYS_pipe, ends));
    int counter;
    SAY_OK(counter = syscall(SYS_eventfd, 3));
    unsigned long value;
    SAY(read(counter, &value, 8));
    SAY(value);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    struct timeval none = {0, 0};
    SAY(syscall(SYS_select, ends[0] + 1, &set, NULL, NULL, &none));
    FD_SET(ends[1], &set);
    SAY(syscall(SYS_select, ends[1] + 1, NULL, &set, NULL, &none));
    SAY(FD_ISSET(ends[1], &set) != 0);
    SAY(syscall(SYS_select, -1, NULL, NULL, NULL, &none));
    SAY(syscall(SYS_select, 99, UNMAPPED, NULL, NULL, &none));
    struct epoll_event event = {EPOLLIN, {.u64 = 42}}, got[4];
    int epoll = epoll_create1(0);
    SAY(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    unsigned long mask = 0;
    struct timespec moment = {0, 1000}, wrong = {0, 1000000000}, zero = {0, 0};
    SAY(syscall(SYS_epoll_pwait, epoll, got, 4, 0, &mask, 8));
    SAY(syscall(SYS_epoll_pwait, epoll, got, 4, 0, &mask, 7));
    SAY(syscall(SYS_epoll_pwait, epoll, got, 0, 0, NULL, 8));
    SAY(syscall(SYS_epoll_pwait2, epoll, got, 4, &moment, &mask, 8));
    SAY(syscall(SYS_epoll_pwait2, epoll, got, 4, &zero, NULL, 8));
    SAY(syscall(SYS_epoll_pwait2, epoll, got, 4, &wrong, NULL, 8));
    SAY(syscall(SYS_epoll_pwait2, epoll, got, 4, UNMAPPED, NULL, 8));
    SAY(syscall(SYS_epoll_pwait2, epoll, got, 4, &moment, &mask, 7));
    SAY(write(ends[1], "x", 1));
    SAY(syscall(SYS_epoll_pwait, epoll, got, 4, -1, &mask, 8));
    printf("events %x data %lu\n", got[0].events, (unsigned long)got[0].data.u64);
    SAY(syscall(SYS_epoll_pwait2, epoll, got, 4, NULL, NULL, 8));
    printf("events %x data %lu\n", got[0].events, (unsigned long)got[0].data.u64);
    SAY(syscall(SYS_epoll_pwait2, ends[0], got, 4, NULL, NULL, 8));
    SAY(syscall(SYS_epoll_pwait2, 99, got, 4, NULL, NULL, 8));
    close(ends[0]), close(ends[1]), close(counter), close(epoll);
}

static void messages(void) {
    int ends[2];
    SAY(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
    struct iovec out[3] = {{"one", 3}, {"three", 5}, {"", 0}};
    struct mmsghdr messages[3];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 3; i++)
        messages[i].msg_hdr.msg_iov = &out[i], messages[i].msg_hdr.msg_iovlen = 1;
    SAY(syscall(SYS_sendmmsg, ends[0], messages, 2, 0));
    printf("%u %u\n", messages[0].msg_len, messages[1].msg_len);
    SAY(syscall(SYS_sendmmsg, ends[0], messages, 0, 0));
    SAY(syscall(SYS_sendmmsg, 99, messages, 1, 0));
    SAY(syscall(SYS_sendmmsg, ends[0], UNMAPPED, 1, 0));
    char text[3][8] = {"", "", ""};
    struct iovec in[3];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 3; i++) {
        in[i].iov_base = text[i], in[i].iov_len = i == 1 ? 4 : 8;
        messages[i].msg_hdr.msg_iov = &in[i], messages[i].msg_hdr.msg_iovlen = 1;
    }
    // There are two waiters, and none for a third wake-up.
    SAY(syscall(SYS_recvmmsg, ends[1], messages, 3, MSG_DONTWAIT, NULL));
    printf("%u %s, %u %.4s flags %x\n", messages[0].msg_len, text[0], messages[1].msg_len, text[1],
           messages[1].msg_hdr.msg_flags & MSG_TRUNC);
    SAY(syscall(SYS_recvmmsg, ends[1], messages, 3, MSG_DONTWAIT, NULL));
    SAY(syscall(SYS_recvmmsg, ends[1], UNMAPPED, 3, MSG_DONTWAIT, NULL));
    SAY(syscall(SYS_recvmmsg, 99, messages, 3, 0, NULL));
    struct timespec wrong = {0, 1000000000};
    SAY(syscall(SYS_recvmmsg, ends[1], messages, 1, 0, &wrong));
    SAY(syscall(SYS_sendmmsg, ends[0], messages, 1, 0));
    SAY(syscall(SYS_recvmmsg, ends[1], messages, 3, MSG_WAITFORONE, NULL));
    close(ends[0]);
    SAY(syscall(SYS_recvmmsg, ends[1], messages, 1, 0, NULL));
    SAY(syscall(SYS_sendmmsg, ends[1], messages, 1, MSG_NOSIGNAL));
    close(ends[1]);
}

static int state_of(int fd) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    memset(&info, 255, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len)) return -errno;
    return info.tcpi_state | info.tcpi_retransmits << 8 | info.tcpi_unacked << 16;
}

static void tcp(void) {
    struct sockaddr_in address = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, ""};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    SAY(state_of(listener));
    SAY(bind(listener, (void *)&address, sizeof address));
    SAY(listen(listener, 5));
    SAY(state_of(listener));
    SAY(getsockname(listener, (void *)&address, &size));
    SAY(state_of(client));
    SAY(connect(client, (void *)&address, sizeof address));
    SAY(state_of(client));
    int server = accept(listener, NULL, NULL);
    SAY(state_of(server));
    char part[4];
    socklen_t few = 1;
    SAY(getsockopt(server, IPPROTO_TCP, TCP_INFO, part, &few));
    printf("state %d of %u byte\n", part[0], few);
    int pair[2];
    SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    SAY(state_of(pair[0]));
    SAY(state_of(0));
    SAY(shutdown(client, SHUT_WR));
    // Natively, its peer notices later.
    struct pollfd told = {server, POLLRDHUP, 0};
    SAY(poll(&told, 1, -1));
    SAY(state_of(server));
    close(pair[0]), close(pair[1]), close(client), close(server), close(listener);
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    signal(SIGPIPE, SIG_IGN);
    identity();
    scheduling();
    memory();
    files();
    attributes();
    threads();
    queued();
    waiting();
    messages();
    tcp();
    capabilities();
    return 0;
}
