// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes the arguments of `poll` and `select` from the program's memory.

use crate::base::arguments::int;
use crate::event::poll_bits::bits;
use crate::mm::user::UserMemory;

/// The descriptors that a `poll` with these arguments waits to read from.
pub(crate) fn poll_interest(user: &mut UserMemory<'_>, fds: u64, fd_count: u64, limit: usize) -> Vec<i32> {
    let entries = usize::try_from(fd_count).unwrap_or(usize::MAX).min(limit);
    let mut bytes = vec![0; entries.saturating_mul(ENTRY_BYTES)];
    if user.read(fds, &mut bytes).is_err() {
        return Vec::new();
    }
    let entries = bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(entry);
    entries.filter(|(_, interest)| interest & bits::READ != 0).map(|(fd, _)| fd).collect()
}

/// The descriptors that a `select` with these arguments waits to read from.
pub(crate) fn select_interest(user: &mut UserMemory<'_>, fd_count: u64, set: u64, limit: usize) -> Vec<i32> {
    let fd_count = usize::try_from(int(fd_count)).unwrap_or(0).min(limit);
    let mut bytes = [0; SET_BYTES];
    let part = bytes.get_mut(..fd_count.div_ceil(64).saturating_mul(8).min(SET_BYTES)).unwrap_or_default();
    if set == 0 || user.read(set, part).is_err() {
        return Vec::new();
    }
    let is_in = |fd: &usize| bytes.get(fd / 8).is_some_and(|byte| byte >> (fd % 8) & 1 != 0);
    (0..fd_count).filter(is_in).filter_map(|fd| i32::try_from(fd).ok()).collect()
}

/// Size of `struct pollfd`.
pub(crate) const ENTRY_BYTES: usize = 8;

/// Largest size of a set in bytes: that for the largest number of descriptors.
pub(crate) const SET_BYTES: usize = 128;

/// The descriptor and the events of an entry. Errors and hang-ups are always reported.
pub(crate) fn entry(bytes: &[u8; ENTRY_BYTES]) -> (i32, u32) {
    let [a, b, c, d, e, f, _, _] = *bytes;
    (i32::from_le_bytes([a, b, c, d]), u32::from(u16::from_le_bytes([e, f])) | bits::ERR | bits::HUP)
}
