// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error numbers that a guest sees: `errno(3)`.

use serde::{Deserialize, Serialize};

/// An error number that a system call returns to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Errno(i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(dead_code, reason = "the set is complete rather than minimal")]
        impl Errno {
            $(pub(crate) const $name: Self = Self(libc::$name);)*
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO E2BIG EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR
    EINVAL ENFILE EMFILE ENOTTY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE ERANGE ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP
    EOVERFLOW EOPNOTSUPP ETIMEDOUT ENXIO ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ECONNREFUSED EHOSTUNREACH EALREADY EINPROGRESS ECANCELED EOWNERDEAD EDEADLK ENOLCK EDOM ETOOMANYREFS
}

impl Errno {
    /// Not an error number: the operation may block, and this thread must not
    /// ([`crate::base::context::Context::may_block`]). Nothing has changed. The call is made again on another thread,
    /// and the program never sees this value.
    pub(crate) const NOT_HERE: Self = Self(1 << 16);

    pub(crate) const fn number(self) -> i32 {
        self.0
    }

    /// The value in RAX by which the guest's C library recognises this error: `-errno`.
    pub(crate) const fn to_return_value(self) -> u64 {
        i64::wrapping_neg(self.0 as i64).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small_negative_numbers() {
        assert_eq!(Errno::EPERM.to_return_value(), u64::MAX);
        assert_eq!(Errno::ENOSYS.to_return_value().cast_signed(), -38);
    }
}
