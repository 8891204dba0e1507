// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks of files of durable mounts: the host's own, so that they exclude other workers and other processes. None of
//! the calls waits: durable mounts lie on local file systems, whose locks are in memory.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use mayfly_files::{FileLock, LockRange, conflicting_lock, set_lock};
use rustix::fs::FlockOperation;

use crate::base::errno::Errno;
use crate::host::files::{HostFile, guest_errno};

impl HostFile {
    /// A descriptor that no other worker has, and that a lock may be put on.
    fn lockable(&self) -> Result<(), Errno> {
        let durable = self.durable().filter(|_| !self.is_shared()).ok_or(Errno::EBADF)?;
        durable.has_locks.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Locks the file as `flock(2)` does, or unlocks it (`None`); `EAGAIN` if another lock conflicts.
    pub(crate) fn lock_whole(&self, kind: Option<FileLock>) -> Result<(), Errno> {
        self.lockable()?;
        let operation = match kind {
            Some(FileLock::Shared) => FlockOperation::NonBlockingLockShared,
            Some(FileLock::Exclusive) => FlockOperation::NonBlockingLockExclusive,
            None => FlockOperation::NonBlockingUnlock,
        };
        match rustix::io::retry_on_intr(|| rustix::fs::flock(self.as_fd(), operation)) {
            Err(rustix::io::Errno::AGAIN) => Err(Errno::EAGAIN),
            other => other.map_err(guest_errno),
        }
    }

    /// Locks a part for this descriptor, or unlocks it (`None`); `EAGAIN` if another lock conflicts.
    pub(crate) fn lock_range(&self, range: LockRange, kind: Option<FileLock>) -> Result<(), Errno> {
        self.lockable()?;
        set_lock(self.as_fd(), range, kind).map_err(lock_errno)
    }

    /// The first lock of another descriptor that conflicts.
    pub(crate) fn conflict(&self, range: LockRange, kind: FileLock) -> Result<Option<(LockRange, FileLock)>, Errno> {
        conflicting_lock(self.as_fd(), range, kind).map_err(lock_errno)
    }
}

fn lock_errno(error: io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Errno::EAGAIN,
        Some(libc::EBADF) => Errno::EBADF,
        Some(libc::EINVAL) => Errno::EINVAL,
        Some(libc::EINTR) => Errno::EINTR,
        _ => Errno::ENOLCK,
    }
}
