// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls, a file for each family. What each does, and how that differs from Linux, is in
//! `docs/personality.md`.

use crate::base::errno::Errno;

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

/// Refuses a size of a signal set other than the kernel's own 8 bytes.
pub(crate) fn check_signal_set_size(size: u64) -> Result<(), Errno> {
    if size == 8 { Ok(()) } else { Err(Errno::EINVAL) }
}
