// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process by a descriptor, which no other process can inherit (pidfd_open(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::sys::{check, check_again};

/// Sends a signal; a process that has ended is no error.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: plain call on a descriptor; the third argument, a siginfo, may be null.
    let sent = check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    });
    match sent {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the process ends within this time.
pub(crate) fn ends_within(pidfd: BorrowedFd<'_>, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, which lives until the call returns.
    check_again(|| unsafe { libc::poll(&raw mut poll, 1, millis) }.into()).map(|ready| ready == 1)
}

/// Waits until `other` can be read, or the process has ended: whether it is the former, or both.
///
/// # Errors
///
/// `EINTR`, by whatever signal: poll(2) is never made again by itself.
pub(crate) fn outlives(pidfd: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let watch = |file: BorrowedFd<'_>| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polls = [watch(other), watch(pidfd)];
    // SAFETY: two pollfds, which live until the call returns.
    check(unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) }.into())?;
    Ok(polls[0].revents & libc::POLLIN != 0)
}
