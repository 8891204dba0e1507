// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that the standard library does not have, one subject a file.

pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod pidfd;
pub(crate) mod socket;

use std::io;

/// Makes a system call of the C library's convention a result: -1 is the error in `errno`.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same, again as long as signals interrupt it.
pub(crate) fn check_again(mut call: impl FnMut() -> libc::c_long) -> io::Result<libc::c_long> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
