// SPDX-License-Identifier: MIT OR Apache-2.0
//! The comparison with native that covers each system call.
//!
//! Each handled call is in this list, with a program that makes it natively and in a machine; `tests/compared.rs`
//! verifies that. [`check`] verifies that the program really makes the call whenever the two are compared. See decision
//! 0180.

use std::collections::BTreeSet;

use mayfly_linux::handled_calls;

use super::Linking;

/// Programs in `tests/programs` that are compared with native, and the calls that each of them covers.
pub const COMPARED: &[(&str, &str)] = &[
    ("memfd", "memfd_create copy_file_range"),
    (
        "splices",
        "splice tee vmsplice signalfd4 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch pidfd_open \
         pidfd_send_signal wait4 waitid",
    ),
    ("memory", "brk mmap munmap mprotect mremap madvise msync mlock munlock"),
    ("files", "read readv pread64 write writev pwrite64 ioctl lseek fstat close close_range dup dup2 dup3 fcntl ppoll"),
    ("clocks", "clock_gettime clock_getres gettimeofday time"),
    (
        "tree",
        "preadv fadvise64 flock getdents64 openat openat2 newfstatat statx access faccessat2 readlink readlinkat \
         getcwd chdir fchdir",
    ),
    (
        "writing",
        "pwritev fsync mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat \
         truncate ftruncate fallocate chmod fchmod utimensat chown fchown fchownat",
    ),
    (
        "pollables",
        "poll pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait pipe2 eventfd2 timerfd_create timerfd_settime \
         timerfd_gettime exit",
    ),
    (
        "sockets",
        "socket socketpair bind listen accept accept4 connect getsockname getpeername shutdown setsockopt getsockopt \
         sendto recvfrom sendmsg recvmsg sendfile",
    ),
    ("sharing", "preadv2 pwritev2 utime utimes futimesat"),
    ("threads", "clone3 set_tid_address set_robust_list rseq futex"),
    (
        "signals",
        "rt_sigaction rt_sigprocmask rt_sigpending sigaltstack kill tkill tgkill rt_sigreturn rt_sigtimedwait \
         rt_sigqueueinfo",
    ),
    (
        "interruptions",
        "rt_sigsuspend pause alarm setitimer getitimer timer_create timer_settime timer_gettime timer_getoverrun \
         timer_delete",
    ),
    (
        "calls",
        "membarrier mincore times nanosleep clock_nanosleep getpid gettid getppid getpgid getuid geteuid getgid \
         getegid getresuid getgroups exit_group arch_prctl prctl capget personality sched_yield sched_getaffinity \
         sched_getscheduler sched_getparam sched_get_priority_max getpriority setpriority sched_setscheduler \
         sched_getattr sched_setattr ioprio_get getcpu getrlimit prlimit64 getrusage uname sysinfo getrandom umask",
    ),
    (
        "odds",
        "mlock2 mlockall munlockall pkey_alloc fdatasync sync_file_range syncfs sync select epoll_pwait epoll_pwait2 \
         sendmmsg recvmmsg pipe eventfd open creat stat lstat faccessat statfs fstatfs fchmodat lchown getxattr lgetxattr \
         fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr \
         fremovexattr mknod mknodat getpgrp getsid getresgid capset restart_syscall clone get_robust_list \
         sched_setaffinity sched_get_priority_min sched_setparam sched_rr_get_interval ioprio_set rt_tgsigqueueinfo setrlimit setuid setgid \
         setreuid setregid setresuid setresgid setfsuid setfsgid setpgid setsid",
    ),
];

/// Calls that cannot be compared, and the reasons.
pub const NOT_COMPARED: &[(&str, &str)] = &[
    ("kcmp", "ENOSYS, as on a kernel built without it"),
    ("seccomp", "ENOSYS, as on a kernel built without it"),
    ("setgroups", "needs a privilege, which tests may have natively"),
];

/// Fails unless the program has made the calls that it covers.
pub fn check(program: &str, linking: Linking, made: &BTreeSet<u64>) {
    // Other C libraries use other calls for the same work.
    if linking != Linking::Glibc {
        return;
    }
    let listed = COMPARED.iter().find(|(name, _)| *name == program).map_or("", |(_, calls)| calls);
    let missing: Vec<_> = listed
        .split_whitespace()
        .filter(|name| !handled_calls().any(|(number, handled)| handled == *name && made.contains(&number)))
        .collect();
    assert!(missing.is_empty(), "{program} does not make the calls that it covers: {missing:?}");
}
