// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversions between system-call arguments, which are 64-bit registers, and the types that calls take.

use crate::base::errno::Errno;

/// The low 32 bits of an argument as the `int` that the call takes: descriptors, flags, identities.
#[allow(clippy::cast_possible_truncation, reason = "an `int` argument is the low half of its register")]
pub(crate) const fn int(argument: u64) -> i32 {
    (argument as u32).cast_signed()
}

/// A flag constant as the bits of an argument.
pub(crate) const fn flag(flag: i32) -> u64 {
    flag.cast_unsigned() as u64
}

/// A return value that is a small non-negative count.
pub(crate) fn count(value: usize) -> u64 {
    value as u64
}

/// Refuses a signal set of any size but the kernel's own 8 bytes.
pub(crate) fn check_signal_set_size(size: u64) -> Result<(), Errno> {
    if size == 8 { Ok(()) } else { Err(Errno::EINVAL) }
}
