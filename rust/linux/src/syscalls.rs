// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table from system-call number to handler, and the dispatch through it.
//!
//! Calls that are not in the table return `ENOSYS`, are counted, and are named in the log once each.

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::names;
use crate::event::calls::{epoll, notices, pipes, poll};
use crate::fs::calls::{
    attributes, copying, descriptors, directories, fifos, files, inotify, locks, overlay_mappings, paths, sizes,
    statfs, tree,
};
use crate::kernel::call::{Call, unknown};
use crate::kernel::closing;
use crate::mm::calls::memory;
use crate::net::calls::{messages, socket_options, sockets};
use crate::sched::calls::{futex, scheduling, threads};
use crate::signal::calls::signals;
use crate::signal::signals::Signal;
use crate::system::calls::{identity, limits, process, system, wait_pidfd};
use crate::time::calls::{clocks, timers};

/// Handler of a system call.
pub(crate) type Handler = fn(&mut Call<'_, '_>) -> CallResult;

/// The handled calls.
#[rustfmt::skip]
const HANDLERS: &[(libc::c_long, Handler)] = &[
    // mm/calls/memory.rs
    (libc::SYS_brk, memory::brk),
    (libc::SYS_mmap, memory::mmap),
    (libc::SYS_munmap, memory::munmap),
    (libc::SYS_mprotect, memory::mprotect),
    (libc::SYS_mremap, memory::mremap),
    (libc::SYS_madvise, memory::madvise),
    (libc::SYS_msync, memory::msync),
    (libc::SYS_mlock, memory::nothing_to_do_for_range),
    (libc::SYS_mlock2, memory::mlock2),
    (libc::SYS_munlock, memory::nothing_to_do_for_range),
    (libc::SYS_mlockall, memory::mlockall),
    (libc::SYS_munlockall, memory::nothing_to_do),
    (libc::SYS_membarrier, memory::membarrier),
    (libc::SYS_pkey_alloc, memory::pkey_alloc),
    (libc::SYS_mincore, memory::mincore),
    // fs/calls/files.rs
    (libc::SYS_read, files::read),
    (libc::SYS_readv, files::readv),
    (libc::SYS_pread64, files::pread),
    (libc::SYS_write, files::write),
    (libc::SYS_writev, files::writev),
    (libc::SYS_pwrite64, files::pwrite),
    (libc::SYS_preadv, files::preadv),
    (libc::SYS_pwritev, files::pwritev),
    (libc::SYS_preadv2, files::preadv2),
    (libc::SYS_pwritev2, files::pwritev2),
    (libc::SYS_ioctl, files::ioctl),
    (libc::SYS_lseek, files::lseek),
    (libc::SYS_fstat, files::fstat),
    (libc::SYS_fadvise64, files::fadvise),
    (libc::SYS_fsync, files::fsync),
    (libc::SYS_fdatasync, files::fdatasync),
    (libc::SYS_sync_file_range, files::sync_file_range),
    (libc::SYS_syncfs, files::syncfs),
    (libc::SYS_sync, files::sync),
    // fs/calls/locks.rs
    (libc::SYS_flock, locks::flock),
    // fs/calls/directories.rs
    (libc::SYS_getdents64, directories::getdents64),
    // fs/calls/descriptors.rs
    (libc::SYS_close, descriptors::close),
    (libc::SYS_close_range, descriptors::close_range),
    (libc::SYS_dup, descriptors::dup),
    (libc::SYS_dup2, descriptors::dup2),
    (libc::SYS_dup3, descriptors::dup3),
    (libc::SYS_fcntl, descriptors::fcntl),
    // event/calls/poll.rs
    (libc::SYS_poll, poll::poll),
    (libc::SYS_ppoll, poll::ppoll),
    (libc::SYS_select, poll::select),
    (libc::SYS_pselect6, poll::pselect6),
    // event/calls/epoll.rs
    (libc::SYS_epoll_create, epoll::epoll_create),
    (libc::SYS_epoll_create1, epoll::epoll_create1),
    (libc::SYS_epoll_ctl, epoll::epoll_ctl),
    (libc::SYS_epoll_wait, epoll::epoll_wait),
    (libc::SYS_epoll_pwait, epoll::epoll_pwait),
    (libc::SYS_epoll_pwait2, epoll::epoll_pwait2),
    // net/calls/sockets.rs
    (libc::SYS_socket, sockets::socket),
    (libc::SYS_socketpair, sockets::socketpair),
    (libc::SYS_bind, sockets::bind),
    (libc::SYS_listen, sockets::listen),
    (libc::SYS_accept, sockets::accept),
    (libc::SYS_accept4, sockets::accept4),
    (libc::SYS_connect, sockets::connect),
    (libc::SYS_getsockname, sockets::getsockname),
    (libc::SYS_getpeername, sockets::getpeername),
    (libc::SYS_shutdown, sockets::shutdown),
    // net/calls/socket_options.rs
    (libc::SYS_setsockopt, socket_options::setsockopt),
    (libc::SYS_getsockopt, socket_options::getsockopt),
    // net/calls/messages.rs
    (libc::SYS_sendto, messages::sendto),
    (libc::SYS_recvfrom, messages::recvfrom),
    (libc::SYS_sendmsg, messages::sendmsg),
    (libc::SYS_recvmsg, messages::recvmsg),
    (libc::SYS_sendmmsg, messages::sendmmsg),
    (libc::SYS_recvmmsg, messages::recvmmsg),
    (libc::SYS_sendfile, messages::sendfile),
    // fs/calls/copying.rs
    (libc::SYS_copy_file_range, copying::copy_file_range),
    (libc::SYS_splice, copying::splice),
    (libc::SYS_tee, copying::tee),
    (libc::SYS_vmsplice, copying::vmsplice),
    // event/calls/pipes.rs
    (libc::SYS_pipe, pipes::pipe),
    (libc::SYS_pipe2, pipes::pipe2),
    (libc::SYS_eventfd, pipes::eventfd),
    (libc::SYS_eventfd2, pipes::eventfd2),
    (libc::SYS_timerfd_create, pipes::timerfd_create),
    (libc::SYS_timerfd_settime, pipes::timerfd_settime),
    (libc::SYS_timerfd_gettime, pipes::timerfd_gettime),
    // fs/calls/paths.rs
    (libc::SYS_open, paths::open),
    (libc::SYS_openat, paths::openat),
    (libc::SYS_openat2, paths::openat2),
    (libc::SYS_creat, paths::creat),
    (libc::SYS_stat, paths::stat),
    (libc::SYS_lstat, paths::lstat),
    (libc::SYS_newfstatat, paths::newfstatat),
    (libc::SYS_statx, paths::statx),
    (libc::SYS_access, paths::access),
    (libc::SYS_faccessat, paths::faccessat),
    (libc::SYS_faccessat2, paths::faccessat2),
    (libc::SYS_readlink, paths::readlink),
    (libc::SYS_readlinkat, paths::readlinkat),
    (libc::SYS_getcwd, paths::getcwd),
    (libc::SYS_chdir, paths::chdir),
    (libc::SYS_fchdir, paths::fchdir),
    // fs/calls/statfs.rs
    (libc::SYS_statfs, statfs::statfs),
    (libc::SYS_fstatfs, statfs::fstatfs),
    // fs/calls/sizes.rs
    (libc::SYS_truncate, sizes::truncate),
    (libc::SYS_ftruncate, sizes::ftruncate),
    (libc::SYS_fallocate, sizes::fallocate),
    // fs/calls/tree.rs
    (libc::SYS_mkdir, tree::mkdir),
    (libc::SYS_mkdirat, tree::mkdirat),
    (libc::SYS_rmdir, tree::rmdir),
    (libc::SYS_unlink, tree::unlink),
    (libc::SYS_unlinkat, tree::unlinkat),
    (libc::SYS_rename, tree::rename),
    (libc::SYS_renameat, tree::renameat),
    (libc::SYS_renameat2, tree::renameat2),
    (libc::SYS_link, tree::link),
    (libc::SYS_linkat, tree::linkat),
    (libc::SYS_symlink, tree::symlink),
    (libc::SYS_symlinkat, tree::symlinkat),
    (libc::SYS_mknod, tree::mknod),
    (libc::SYS_mknodat, tree::mknodat),
    // fs/calls/attributes.rs
    (libc::SYS_chmod, attributes::chmod),
    (libc::SYS_fchmod, attributes::fchmod),
    (libc::SYS_fchmodat, attributes::fchmodat),
    (libc::SYS_utimensat, attributes::utimensat),
    (libc::SYS_utime, attributes::utime),
    (libc::SYS_utimes, attributes::utimes),
    (libc::SYS_futimesat, attributes::futimesat),
    (libc::SYS_chown, attributes::chown),
    (libc::SYS_lchown, attributes::chown),
    (libc::SYS_fchown, attributes::fchown),
    (libc::SYS_fchownat, attributes::fchownat),
    (libc::SYS_getxattr, attributes::no_attribute),
    (libc::SYS_lgetxattr, attributes::no_link_attribute),
    (libc::SYS_fgetxattr, attributes::no_open_attribute),
    (libc::SYS_setxattr, attributes::no_attribute),
    (libc::SYS_lsetxattr, attributes::no_link_attribute),
    (libc::SYS_fsetxattr, attributes::no_open_attribute),
    (libc::SYS_listxattr, attributes::listxattr),
    (libc::SYS_llistxattr, attributes::llistxattr),
    (libc::SYS_flistxattr, attributes::no_open_attributes),
    (libc::SYS_removexattr, attributes::no_attribute),
    (libc::SYS_lremovexattr, attributes::no_link_attribute),
    (libc::SYS_fremovexattr, attributes::no_open_attribute),
    // fs/calls/overlay_mappings.rs
    (libc::SYS_memfd_create, overlay_mappings::memfd_create),
    // time/calls/clocks.rs
    (libc::SYS_clock_gettime, clocks::clock_gettime),
    (libc::SYS_clock_getres, clocks::clock_getres),
    (libc::SYS_gettimeofday, clocks::gettimeofday),
    (libc::SYS_time, clocks::time),
    (libc::SYS_times, clocks::times),
    (libc::SYS_nanosleep, clocks::nanosleep),
    (libc::SYS_clock_nanosleep, clocks::clock_nanosleep),
    // system/calls/process.rs
    (libc::SYS_getpid, process::getpid),
    (libc::SYS_gettid, threads::gettid),
    (libc::SYS_getppid, process::getppid),
    (libc::SYS_getpgrp, process::getpid),
    (libc::SYS_getpgid, process::getpgid),
    (libc::SYS_getsid, process::getpgid),
    (libc::SYS_getuid, process::getuid),
    (libc::SYS_geteuid, process::getuid),
    (libc::SYS_getgid, process::getgid),
    (libc::SYS_getegid, process::getgid),
    (libc::SYS_getresuid, process::getresuid),
    (libc::SYS_getresgid, process::getresgid),
    (libc::SYS_getgroups, process::getgroups),
    // system/calls/identity.rs
    (libc::SYS_setuid, identity::setuid),
    (libc::SYS_setgid, identity::setgid),
    (libc::SYS_setreuid, identity::setreuid),
    (libc::SYS_setregid, identity::setregid),
    (libc::SYS_setresuid, identity::setresuid),
    (libc::SYS_setresgid, identity::setresgid),
    (libc::SYS_setfsuid, identity::setfsuid),
    (libc::SYS_setfsgid, identity::setfsgid),
    (libc::SYS_setgroups, identity::setgroups),
    (libc::SYS_setpgid, identity::setpgid),
    (libc::SYS_setsid, identity::setsid),
    // system/calls/process.rs
    (libc::SYS_exit, threads::exit),
    (libc::SYS_exit_group, process::exit_group),
    (libc::SYS_arch_prctl, process::arch_prctl),
    (libc::SYS_prctl, process::prctl),
    (libc::SYS_capget, process::capget),
    (libc::SYS_capset, process::capset),
    (libc::SYS_personality, process::personality),
    (libc::SYS_restart_syscall, process::restart_syscall),
    (libc::SYS_seccomp, process::not_offered),
    (libc::SYS_kcmp, process::not_offered),
    // system/calls/wait_pidfd.rs
    (libc::SYS_wait4, wait_pidfd::wait4),
    (libc::SYS_waitid, wait_pidfd::waitid),
    (libc::SYS_pidfd_open, wait_pidfd::pidfd_open),
    (libc::SYS_pidfd_send_signal, wait_pidfd::pidfd_send_signal),
    // event/calls/notices.rs
    (libc::SYS_signalfd4, notices::signalfd4),
    // fs/calls/inotify.rs
    (libc::SYS_inotify_init, inotify::inotify_init),
    (libc::SYS_inotify_init1, inotify::inotify_init1),
    (libc::SYS_inotify_add_watch, inotify::inotify_add_watch),
    (libc::SYS_inotify_rm_watch, inotify::inotify_rm_watch),
    // sched/calls/threads.rs
    (libc::SYS_clone, threads::clone),
    (libc::SYS_clone3, threads::clone3),
    (libc::SYS_set_tid_address, threads::set_tid_address),
    (libc::SYS_set_robust_list, threads::set_robust_list),
    (libc::SYS_get_robust_list, threads::get_robust_list),
    (libc::SYS_rseq, threads::rseq),
    // sched/calls/futex.rs
    (libc::SYS_futex, futex::futex),
    // sched/calls/scheduling.rs
    (libc::SYS_sched_yield, scheduling::sched_yield),
    (libc::SYS_sched_getaffinity, scheduling::sched_getaffinity),
    (libc::SYS_sched_setaffinity, scheduling::sched_setaffinity),
    (libc::SYS_sched_getscheduler, scheduling::sched_getscheduler),
    (libc::SYS_sched_getparam, scheduling::sched_getparam),
    (libc::SYS_sched_rr_get_interval, scheduling::sched_rr_get_interval),
    (libc::SYS_sched_get_priority_max, scheduling::sched_get_priority_max),
    (libc::SYS_sched_get_priority_min, scheduling::sched_get_priority_min),
    (libc::SYS_getpriority, scheduling::getpriority),
    (libc::SYS_setpriority, scheduling::setpriority),
    (libc::SYS_sched_setscheduler, scheduling::sched_setscheduler),
    (libc::SYS_sched_setparam, scheduling::sched_setparam),
    (libc::SYS_sched_getattr, scheduling::sched_getattr),
    (libc::SYS_sched_setattr, scheduling::sched_setattr),
    (libc::SYS_ioprio_get, scheduling::ioprio),
    (libc::SYS_ioprio_set, scheduling::ioprio),
    (libc::SYS_getcpu, scheduling::getcpu),
    // signal/calls/signals.rs
    (libc::SYS_rt_sigaction, signals::rt_sigaction),
    (libc::SYS_rt_sigprocmask, signals::rt_sigprocmask),
    (libc::SYS_rt_sigpending, signals::rt_sigpending),
    (libc::SYS_rt_sigsuspend, signals::rt_sigsuspend),
    (libc::SYS_sigaltstack, signals::sigaltstack),
    (libc::SYS_kill, signals::kill),
    (libc::SYS_tkill, signals::tkill),
    (libc::SYS_tgkill, signals::tgkill),
    (libc::SYS_pause, signals::pause),
    (libc::SYS_rt_sigreturn, signals::rt_sigreturn),
    (libc::SYS_rt_sigtimedwait, signals::rt_sigtimedwait),
    (libc::SYS_rt_sigqueueinfo, signals::rt_sigqueueinfo),
    (libc::SYS_rt_tgsigqueueinfo, signals::rt_tgsigqueueinfo),
    // time/calls/timers.rs
    (libc::SYS_alarm, timers::alarm),
    (libc::SYS_setitimer, timers::setitimer),
    (libc::SYS_getitimer, timers::getitimer),
    (libc::SYS_timer_create, timers::timer_create),
    (libc::SYS_timer_settime, timers::timer_settime),
    (libc::SYS_timer_gettime, timers::timer_gettime),
    (libc::SYS_timer_getoverrun, timers::timer_getoverrun),
    (libc::SYS_timer_delete, timers::timer_delete),
    // system/calls/limits.rs
    (libc::SYS_getrlimit, limits::getrlimit),
    (libc::SYS_setrlimit, limits::setrlimit),
    (libc::SYS_prlimit64, limits::prlimit64),
    (libc::SYS_getrusage, limits::getrusage),
    // system/calls/system.rs
    (libc::SYS_uname, system::uname),
    (libc::SYS_sysinfo, system::sysinfo),
    (libc::SYS_getrandom, system::getrandom),
    (libc::SYS_umask, system::umask),
];

/// The handled system calls: their numbers, and their names as in `syscalls(2)`. All others are unknown.
pub fn handled_calls() -> impl Iterator<Item = (u64, &'static str)> {
    HANDLERS.iter().map(|(number, _)| (number.cast_unsigned(), names::name(number.cast_unsigned())))
}

/// Size of the table; higher numbers are unknown.
const TABLE_SIZE: usize = 512;

static TABLE: [Option<Handler>; TABLE_SIZE] = build_table();

/// Runs at compile time: a number that is listed twice or out of range is a compile error.
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
const fn build_table() -> [Option<Handler>; TABLE_SIZE] {
    let mut table: [Option<Handler>; TABLE_SIZE] = [None; TABLE_SIZE];
    let mut index = 0;
    while index < HANDLERS.len() {
        let (number, handler) = HANDLERS[index];
        assert!(table[number as usize].is_none(), "a system call is listed twice");
        table[number as usize] = Some(handler);
        index += 1;
    }
    table
}

/// The handler of a call.
fn handler(number: u64) -> Option<Handler> {
    usize::try_from(number).ok().and_then(|number| TABLE.get(number).copied().flatten())
}

/// Runs a call's handler, for the first time or again.
pub(crate) fn perform(call: &mut Call<'_, '_>, number: u64) -> CallResult {
    let tid = call.process.threads.current().tid;
    let result = match handler(number) {
        Some(handler) => handler(call),
        None => Err(unknown(call.process, call.context, number).into()),
    };
    if !call.process.pollables.orphans.is_empty() {
        closing::close_orphans(call);
    }
    if !call.process.pollables.openers.is_empty() {
        let waits = matches!(result, Err(Halt::Wait(_) | Halt::Errno(Errno::NOT_HERE)));
        fifos::drop_openers(call, tid, number, waits);
    }
    if call.process.files.has_lost_locks() {
        call.process.files.edit().take_lost_locks();
        call.note_change();
    }
    if let Ok(value) = result {
        call.process.figures.count_transfer(number, value);
    }
    if matches!(result, Err(Halt::Errno(Errno::EPIPE))) && raises_sigpipe(call, number) {
        call.raise_on_current(Signal::PIPE)?;
    }
    result
}

/// Whether a call that fails with `EPIPE` also sends SIGPIPE to its thread.
fn raises_sigpipe(call: &Call<'_, '_>, number: u64) -> bool {
    let [first, _, third, fourth, ..] = call.args;
    let flags = match number.cast_signed() {
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_sendfile
        | libc::SYS_splice
        | libc::SYS_tee
        | libc::SYS_vmsplice => 0,
        libc::SYS_sendmsg => third,
        libc::SYS_sendto | libc::SYS_sendmmsg => fourth,
        _ => return false,
    };
    // Datagrams never do.
    let is_datagram = sockets::socket_of(call, first)
        .and_then(|(id, _)| call.process.pollables.socket(id).map(crate::net::socket::Socket::is_datagram));
    int(flags) & libc::MSG_NOSIGNAL == 0 && !is_datagram.unwrap_or(false)
}
