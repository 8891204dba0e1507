// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks on parts of files that belong to an open file description: `F_OFD_SETLK` of fcntl(2).
//!
//! They conflict with those of other descriptions, in this process and in others, and with `F_SETLK` of others. No call
//! here waits: a lock that conflicts is an error.
#![allow(unsafe_code, reason = "no crate offers these commands")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How a part of a file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileLock {
    /// `F_RDLCK`.
    Shared,
    /// `F_WRLCK`.
    Exclusive,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRange {
    /// Its first byte.
    pub start: u64,
    /// Its last byte; `i64::MAX` for the end of every file.
    pub last: u64,
}

impl LockRange {
    /// All of a file.
    pub const ALL: Self = Self { start: 0, last: i64::MAX.unsigned_abs() };
}

/// Locks a part of a file for this open file description, or unlocks it (`None`).
///
/// # Errors
///
/// `WouldBlock` if another lock conflicts; the system's error otherwise: `EBADF` where the descriptor's access mode does
/// not permit the lock, `ENOLCK`.
pub fn set_lock(file: impl AsFd, range: LockRange, kind: Option<FileLock>) -> io::Result<()> {
    let lock = flock(range, kind)?;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel only reads from `lock`.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The first lock of another description that conflicts with such a lock, if there is one.
///
/// # Errors
///
/// The system's.
pub fn conflicting_lock(
    file: impl AsFd,
    range: LockRange,
    kind: FileLock,
) -> io::Result<Option<(LockRange, FileLock)>> {
    let mut lock = flock(range, Some(kind))?;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes no more than a `struct flock`.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let kind = match i32::from(lock.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_WRLCK => FileLock::Exclusive,
        _ => FileLock::Shared,
    };
    let start = u64::try_from(lock.l_start).unwrap_or(0);
    let last = match u64::try_from(lock.l_len) {
        Ok(0) | Err(_) => LockRange::ALL.last,
        Ok(len) => start.saturating_add(len - 1),
    };
    Ok(Some((LockRange { start, last }, kind)))
}

fn flock(range: LockRange, kind: Option<FileLock>) -> io::Result<libc::flock> {
    let kind = match kind {
        Some(FileLock::Shared) => libc::F_RDLCK,
        Some(FileLock::Exclusive) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let start = i64::try_from(range.start).map_err(|_| invalid())?;
    let last = i64::try_from(range.last).map_err(|_| invalid())?;
    // A length of 0 reaches to the largest offset.
    let len = if last == i64::MAX { 0 } else { last.checked_sub(start).ok_or_else(invalid)?.saturating_add(1) };
    if len < 0 || last < start {
        return Err(invalid());
    }
    // SAFETY: all bytes zero are a valid `struct flock`; OFD commands want a process number of 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start;
    lock.l_len = len;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn descriptions_of_one_process_exclude_each_other_until_they_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(folder.path().join("f"));
        let (one, other) = (open().unwrap(), open().unwrap());
        let range = |start, last| LockRange { start, last };
        set_lock(&one, range(10, 19), Some(FileLock::Shared)).unwrap();
        set_lock(&other, range(0, 15), Some(FileLock::Shared)).unwrap();
        let refused = set_lock(&other, range(19, 30), Some(FileLock::Exclusive)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let found = conflicting_lock(&other, LockRange::ALL, FileLock::Exclusive).unwrap();
        assert_eq!(found, Some((range(10, 19), FileLock::Shared)));
        assert_eq!(conflicting_lock(&other, LockRange::ALL, FileLock::Shared).unwrap(), None);
        set_lock(&other, LockRange::ALL, None).unwrap();
        drop(one);
        set_lock(&other, LockRange::ALL, Some(FileLock::Exclusive)).unwrap();
        let third = open().unwrap();
        let found = conflicting_lock(&third, range(5, 5), FileLock::Shared).unwrap();
        assert_eq!(found, Some((LockRange::ALL, FileLock::Exclusive)));
        assert!(set_lock(&other, range(9, 3), None).is_err() && set_lock(&other, range(u64::MAX, 3), None).is_err());
    }
}
