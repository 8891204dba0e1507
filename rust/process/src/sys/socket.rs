// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages with descriptors, between the server and a zygote (unix(7), cmsg(3)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::sys::{check, check_again};

/// Most descriptors in one message.
pub(crate) const MOST: usize = 8;

/// Room for a control message with that many, aligned as its header.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// A pair of connected sockets that keep messages apart, both closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: there is room for the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }.into())?;
    // SAFETY: both descriptors are new, and nothing else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Bounds how long a receive waits.
pub(crate) fn bound_receive(socket: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let bound = libc::timeval {
        tv_sec: time.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(time.subsec_micros() as i32),
    };
    let length = size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: the option's value is a `timeval`, of that length.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const bound).cast(), length)
    };
    check(set.into()).map(drop)
}

/// Sends one byte, and these descriptors with it.
pub(crate) fn send(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut byte = 0_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 64]);
    // SAFETY: zeroes are a valid `msghdr`: no name, no vector, no control message.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let bytes = size_of_val(descriptors) as u32;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE only computes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as usize;
        // SAFETY: `control` is aligned for a header and, by MOST, long enough for header and descriptors; the message's
        // length covers one header, so that CMSG_FIRSTHDR is not null.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            let place = libc::CMSG_DATA(header).cast::<i32>();
            for (index, descriptor) in descriptors.iter().enumerate() {
                place.add(index).write_unaligned(descriptor.as_raw_fd());
            }
        }
    }
    // SAFETY: all that the message points to lives until the call returns.
    check_again(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as _).map(drop)
}

/// Receives one byte, and the descriptors that come with it, closed on exec.
///
/// # Errors
///
/// `UnexpectedEof` if the other side is gone; `WouldBlock` if nothing came in time.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut byte = 0_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 64]);
    // SAFETY: as in `send`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: all that the message points to lives until the call returns.
    let received =
        check_again(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) } as _)?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel wrote the control messages and their length; the macros walk within it. Each descriptor of an
    // SCM_RIGHTS message is new, and owned by nothing else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let place = libc::CMSG_DATA(header).cast::<i32>();
                for index in 0..bytes / size_of::<i32>() {
                    descriptors.push(OwnedFd::from_raw_fd(place.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(descriptors) }
}
