// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors that a guest sees: `errno(3)` values, and how a handler leaves early.

use serde::{Deserialize, Serialize};

use crate::Step;
use crate::threads::Wait;
use mayfly_kvm::MemoryError;

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
    EPERM ENOENT ESRCH EINTR EIO E2BIG EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE
    ENOTTY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE ERANGE ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP EOVERFLOW EOPNOTSUPP ETIMEDOUT ENXIO ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ECONNREFUSED EHOSTUNREACH EALREADY EINPROGRESS ECANCELED EOWNERDEAD EDEADLK ENOLCK EDOM ETOOMANYREFS
}

impl Errno {
    /// No error number: what was asked for may hold the thread up, which must not be ([`crate::Context::may_block`]). Nothing has changed. A call
    /// that fails with it is made again elsewhere, and its program never sees it.
    pub(crate) const NOT_HERE: Self = Self(1 << 16);

    pub(crate) const fn number(self) -> i32 {
        self.0
    }

    /// The value in RAX that tells the guest's C library of this error: `-errno`.
    pub(crate) const fn to_return_value(self) -> u64 {
        i64::wrapping_neg(self.0 as i64).cast_unsigned()
    }
}

/// Why a handler did not return a value.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The guest gets an error number and goes on.
    Errno(Errno),
    /// The call cannot end yet, and has changed nothing: its thread waits, and it will be made again.
    Wait(Wait),
    /// The thread does not go on now, as its state says, or is gone.
    Switch,
    /// The thread goes on elsewhere: its context has been set.
    Restored,
    /// The guest does not go on: what the caller of `Process::handle` is told instead.
    End(Step),
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<MemoryError> for Halt {
    fn from(error: MemoryError) -> Self {
        Self::End(error.into())
    }
}

impl From<MemoryError> for Step {
    /// The memory limit is the guest's doing. Any other refusal means that address space and page tables
    /// have come apart, and nothing of this machine may be used again.
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Limit { .. } | MemoryError::Full => Self::MemoryLimit,
            other => Self::Poison(format!("guest memory: {other}")),
        }
    }
}

/// What a system-call handler returns: the value for RAX, or why there is none.
pub(crate) type CallResult = Result<u64, Halt>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small_negative_numbers() {
        assert_eq!(Errno::EPERM.to_return_value(), u64::MAX);
        assert_eq!(Errno::ENOSYS.to_return_value().cast_signed(), -38);
    }
}
