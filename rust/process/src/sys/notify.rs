// SPDX-License-Identifier: MIT OR Apache-2.0
//! A seccomp listener's ioctls (seccomp_unotify(2)), one function each.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::check;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6): who is woken runs on the waker's processor, which is about to
/// sleep.
const SYNC_WAKE_UP: u64 = 1;

fn ioctl<T>(listener: BorrowedFd<'_>, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: the callers pass the structure that the request reads and writes, and it lives until the call returns.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), request, argument) }.into()).map(drop)
}

/// Waits for the next notification.
///
/// # Errors
///
/// `ENOENT` if the call that made it was given up, by a signal, or by the stub's death; `EINTR`.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: zeroes are valid, and what the kernel demands of it.
    let mut notification: libc::seccomp_notif = unsafe { zeroed() };
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification)?;
    Ok(notification)
}

/// Answers the notification with a value: the call's result, which is not made.
///
/// # Errors
///
/// `ENOENT` if there is no such notification any more; `EINTR`.
pub(crate) fn send(listener: BorrowedFd<'_>, id: u64, value: i64) -> io::Result<()> {
    let mut response = libc::seccomp_notif_resp { id, val: value, error: 0, flags: 0 };
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
}

/// Lets the call be made. Its arguments are registers of a task that has no other thread, and that waits: between the
/// comparison and the call nothing can change them. A pointer among them would not be safe to follow.
///
/// # Errors
///
/// As for [`send`]; `EINVAL` before Linux 5.5.
pub(crate) fn send_continue(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let mut response = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
}

/// Gives the stub a descriptor of this number, for the same file. Made again, it does the same.
///
/// # Errors
///
/// As for [`send`].
pub(crate) fn add_descriptor(listener: BorrowedFd<'_>, id: u64, file: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    let flags = libc::SECCOMP_ADDFD_FLAG_SETFD as u32;
    let srcfd = file.as_raw_fd() as u32;
    let mut addition = libc::seccomp_notif_addfd { id, flags, srcfd, newfd: number, newfd_flags: 0 };
    // The kernel may be interrupted while the stub installs it.
    loop {
        match ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut addition) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Makes wake-ups synchronous.
///
/// # Errors
///
/// `EINVAL` before Linux 6.6.
pub(crate) fn set_synchronous(listener: BorrowedFd<'_>) -> io::Result<()> {
    // The argument is the value itself.
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP as *mut u8)
}
