// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls, a file for each family. What each does, and how that differs from Linux, is in
//! `docs/personality.md`.

pub(crate) mod copying;
mod counters;
pub(crate) mod descriptors;
pub(crate) mod directories;
pub(crate) mod epoll;
pub(crate) mod files;
pub(crate) mod futex;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod messages;
mod netlink;
pub(crate) mod notices;
pub(crate) mod paths;
pub(crate) mod pipes;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod processes;
pub(crate) mod prompt;
mod remote;
mod rights;
pub(crate) mod scheduling;
pub(crate) mod signals;
pub(crate) mod socket_options;
pub(crate) mod sockets;
pub(crate) mod system;
pub(crate) mod threads;
pub(crate) mod time;
pub(crate) mod timers;
mod transfer;
pub(crate) mod writing;
pub(crate) mod written;

use crate::errno::{Errno, Halt};
use crate::threads::Wait;
pub(crate) use poll::{poll_interest, select_interest};

/// The low 32 bits of an argument as the `int` that the call takes: descriptors, flags, identities.
#[allow(clippy::cast_possible_truncation, reason = "an `int` argument is the low half of its register")]
pub(crate) const fn int(argument: u64) -> i32 {
    (argument as u32).cast_signed()
}

/// A flag of an argument.
pub(crate) const fn flag(flag: i32) -> u64 {
    flag.cast_unsigned() as u64
}

/// A return value that is a small non-negative count.
pub(crate) fn count(value: usize) -> u64 {
    value as u64
}

/// For calls that wait until a signal comes.
pub(crate) fn waits_for_a_signal(call: &'static str) -> Halt {
    Wait { call, until_ns: None, look_ns: None }.into()
}

/// Refuses a size of a signal set other than the kernel's own 8 bytes.
pub(crate) fn check_signal_set_size(size: u64) -> Result<(), Errno> {
    if size == 8 { Ok(()) } else { Err(Errno::EINVAL) }
}
