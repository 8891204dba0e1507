// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an open file can be, and what can be done with each kind.

use super::attributes::Attributes;
use crate::errno::{Errno, Halt};
use crate::process::Stream;
use crate::table::Call;

/// What a descriptor stands for.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    /// `/dev/null`; also what standard input is.
    Null,
    /// An output stream: to the program it is the writing end of a pipe.
    Log(Stream),
}

impl Object {
    /// What `fstat` tells.
    pub(crate) fn attributes(&self) -> Attributes {
        match self {
            Self::Null => Attributes { special: (1, 3), ..Attributes::made_up(1, libc::S_IFCHR | 0o666) },
            Self::Log(Stream::Stdout) => Attributes::made_up(2, libc::S_IFIFO | 0o600),
            Self::Log(Stream::Stderr) => Attributes::made_up(3, libc::S_IFIFO | 0o600),
        }
    }

    /// Reads into `out` what lies at `offset`; less than asked for means the file's end.
    pub(crate) fn read_at(&self, _call: &mut Call<'_, '_>, _offset: u64, _out: &mut [u8]) -> Result<usize, Halt> {
        match self {
            Self::Null => Ok(0),
            Self::Log(_) => Err(Errno::EBADF.into()),
        }
    }

    /// Whether it has a position: `lseek`, `pread` and `pwrite` work.
    pub(crate) fn has_position(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Log(_) => false,
        }
    }

    /// What it is ready for, in the bits of `poll`.
    pub(crate) fn readiness(&self) -> i16 {
        const IN: i16 = libc::POLLIN | libc::POLLRDNORM;
        const OUT: i16 = libc::POLLOUT | libc::POLLWRNORM;
        match self {
            Self::Null => IN | OUT,
            Self::Log(_) => OUT,
        }
    }
}
