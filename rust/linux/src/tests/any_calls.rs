// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls with arbitrary numbers and arguments: none of them breaks the personality, and reset undoes them all.

use super::*;

/// Numbers that a guest might pass for any argument.
fn any_argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..20_u64,
        4 => (0..WINDOW_PAGES).prop_map(at),
        2 => (0..WINDOW_PAGES).prop_map(|page| at(page) + PAGE_SIZE - 4),
        2 => (0..10_u64).prop_map(|pages| pages * PAGE_SIZE),
        1 => any::<u64>(),
        1 => (0..4096_u64).prop_map(|x| u64::MAX - x),
        1 => (0..64_u32).prop_map(|bit| 1 << bit),
        1 => (0..0x2000_u64).prop_map(|x| layout::USER_END - 0x1000 + x),
        1 => (0..0x2_0000_u64).prop_map(|x| layout::MAYFLY_BASE + x),
        1 => Just(0x40_0000),
    ]
}

/// Calls that create, watch, and use pollables.
const POLLABLE_CALLS: [libc::c_long; 56] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_socket,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendfile,
    libc::SYS_shutdown,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pipe,
    libc::SYS_accept,
    libc::SYS_splice,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    libc::SYS_copy_file_range,
    libc::SYS_signalfd4,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_memfd_create,
    libc::SYS_pidfd_open,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
];

pub(super) fn any_call() -> impl Strategy<Value = (libc::c_long, [u64; 6])> {
    let number = prop_oneof![
        20 => 0..335_i64,
        2 => 424..470_i64,
        20 => prop::sample::select(&POLLABLE_CALLS[..]),
        1 => any::<i64>()
    ];
    (number, prop::array::uniform6(any_argument()))
}

proptest! {
    #![proptest_config(cases(60))]

    /// Whatever arguments a guest passes, no call crashes or blocks the host, breaks the machine, or has an effect
    /// after a reset.
    #[test]
    fn no_call_harms_the_host_whatever_its_arguments(calls in prop::collection::vec(any_call(), 1..60)) {
        let mut puppet = Puppet::boot();
        for page in (0..WINDOW_PAGES).step_by(4) {
            apply(&mut puppet, &mut Content::new(), &Change::Map { page, pages: 3, prot: RW });
        }
        make_pollables(&mut puppet);
        let (image, frozen) = puppet.freeze();
        let mut worker = Puppet::fork(&image, &frozen);
        for (number, args) in calls {
            let result = worker.call(number, args, 0);
            worker.process.pollables.check();
            worker.process.files.check(&worker.process.pollables.attached_files());
            match result {
                Ok(_) => continue,
                // The call ended the program, or removed memory that it needs.
                Err(Step::Exited { .. } | Step::Faulted(_) | Step::Waits { .. }) => {}
                Err(other) => prop_assert!(false, "{:?}", other),
            }
            // A worker whose program was ended is never reused.
            worker = Puppet::fork(&image, &frozen);
        }
        // `reset` has the checks; a program that has lost its stack does not reach the doorbell.
        let _ = worker.reset(&frozen);
    }
}
