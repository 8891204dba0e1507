// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content and attributes of open files of durable mounts.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use mayfly_files::waiting_for_some;
use rustix::fs::{FallocateFlags, Mode};
use rustix::io::ReadWriteFlags;

use super::tree::timestamps;
use crate::base::errno::Errno;
use crate::host::attributes::Times;
use crate::host::files::{DurableFile, HostFile, guest_errno};
use crate::host::quota::Account;

/// The offset with which a write uses that of the open file.
const CURRENT: u64 = u64::MAX;
/// The mode bits that a program may set.
const MODE: u32 = 0o777;

impl HostFile {
    fn writable(&self) -> Result<&DurableFile, Errno> {
        self.durable().filter(|durable| durable.writable).ok_or(Errno::EBADF)
    }

    /// Whether a snapshot's workers share the descriptor.
    pub(crate) fn is_shared(&self) -> bool {
        self.durable().is_some_and(|durable| durable.is_shared.load(Ordering::Relaxed))
    }

    /// From now on, a snapshot's workers share the descriptor.
    pub(crate) fn share(&self) {
        if let Some(durable) = self.durable() {
            durable.is_shared.store(true, Ordering::Relaxed);
        }
    }

    /// Makes a call that may wait for the disk, again after a signal.
    fn wait<T>(&self, mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, Errno> {
        let call = || rustix::io::retry_on_intr(&mut call);
        waiting_for_some(|| self.location().path(), call).map_err(guest_errno)
    }

    fn size_now(&self) -> Result<u64, Errno> {
        let stat = self.wait(|| rustix::fs::fstat(self.as_fd()))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Counts the file's size after a change of it.
    fn settle(&self, durable: &DurableFile, account: &mut Account) {
        if let Ok(size) = self.size_now() {
            durable.inode.settle(account, size);
        }
    }

    /// Writes at an offset, or at the end (`None`), in one piece; returns the number of bytes, and where they end. The
    /// bytes and, for `flags` of RWF_DSYNC or RWF_SYNC, the disk's answer have come when it returns. An append needs a
    /// descriptor that is not shared.
    pub(crate) fn write_at(&self, at: Option<u64>, bytes: &[u8], flags: ReadWriteFlags) -> Result<(usize, u64), Errno> {
        let durable = self.writable()?;
        let mut account = durable.inode.account();
        let start = match at {
            Some(at) => at,
            None => self.size_now()?,
        };
        if bytes.is_empty() {
            return Ok((0, start));
        }
        let largest = durable.inode.durable().largest();
        if start >= largest {
            return Err(Errno::EFBIG);
        }
        let wanted = start.saturating_add(bytes.len() as u64).min(largest);
        let end = durable.inode.reserve(&mut account, wanted);
        let fits = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let part = bytes.get(..fits.min(bytes.len())).unwrap_or_default();
        let result = if part.is_empty() {
            Err(Errno::ENOSPC)
        } else {
            let (offset, flags) = match at {
                Some(at) => (at, flags),
                None => (CURRENT, flags | ReadWriteFlags::APPEND),
            };
            self.wait(|| rustix::io::pwritev2(self.as_fd(), &[IoSlice::new(part)], offset, flags))
        };
        self.settle(durable, &mut account);
        let done = result?;
        let end = match at {
            Some(at) => at.saturating_add(done as u64),
            // Another process of the host may have appended as well.
            None => self.wait(|| rustix::fs::tell(self.as_fd()))?,
        };
        Ok((done, end))
    }

    /// Sets the size.
    pub(crate) fn resize(&self, size: u64) -> Result<(), Errno> {
        let durable = self.writable()?;
        let mut account = durable.inode.account();
        if size > durable.inode.durable().largest() {
            return Err(Errno::EFBIG);
        }
        let fits = durable.inode.reserve(&mut account, size) == size;
        let result = if fits { self.wait(|| rustix::fs::ftruncate(self.as_fd(), size)) } else { Err(Errno::ENOSPC) };
        self.settle(durable, &mut account);
        result
    }

    /// Reserves space for a part; the file grows if it must.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let durable = self.writable()?;
        let mut account = durable.inode.account();
        let end = offset.checked_add(len).filter(|end| *end <= durable.inode.durable().largest());
        let end = end.ok_or(Errno::EFBIG)?;
        let result = if durable.inode.reserve(&mut account, end) == end {
            self.wait(|| rustix::fs::fallocate(self.as_fd(), FallocateFlags::empty(), offset, len))
        } else {
            Err(Errno::ENOSPC)
        };
        self.settle(durable, &mut account);
        result
    }

    /// Makes a part zero. The file takes as much as before: its size counts.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.writable()?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.wait(|| rustix::fs::fallocate(self.as_fd(), flags, offset, len))
    }

    /// Makes what was written survive a crash of the host.
    pub(crate) fn sync(&self, only_data: bool) -> Result<(), Errno> {
        let sync = || match only_data {
            true => rustix::fs::fdatasync(self.as_fd()),
            false => rustix::fs::fsync(self.as_fd()),
        };
        self.wait(sync)
    }

    /// Sets the mode.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        self.wait(|| rustix::fs::fchmod(self.as_fd(), Mode::from_raw_mode(mode & MODE)))
    }

    /// Sets the times of access and modification.
    pub(crate) fn set_times(&self, times: Times) -> Result<(), Errno> {
        let times = timestamps(times);
        self.wait(|| rustix::fs::futimens(self.as_fd(), &times))
    }
}
