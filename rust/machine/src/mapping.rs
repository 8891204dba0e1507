// SPDX-License-Identifier: MIT OR Apache-2.0
//! One range of the host's address space, unmapped when dropped.

use std::io;
use std::ptr::{self, NonNull};

/// A host mapping, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and `Mapping` hands out no references into it.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access is only by volatile reads of memory that is never written (the pristine image), and
// by volatile copies of shared memory, whose bytes may be anything at any time.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes; `fd` of -1 means anonymous memory.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn new(len: usize, prot: i32, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: no address is given, so the kernel picks a free range; nothing of ours is replaced.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Without MAP_FIXED the kernel never picks address 0.
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len })
    }

    /// Its first byte.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes, which no mapping has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces the first `len` bytes by a private mapping of `fd`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn overlay_private(&self, len: usize, fd: i32) -> io::Result<()> {
        assert!(len <= self.len, "overlay within the mapping");
        // SAFETY: the range lies within this mapping, which we own, and nothing holds references into it.
        let at = unsafe {
            libc::mmap(
                self.base.as_ptr().cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Brings all of it into memory now, for reading.
    ///
    /// # Errors
    ///
    /// What the kernel says, as for a part of a file that cannot be read.
    pub fn populate(&self) -> io::Result<()> {
        loop {
            // SAFETY: the range is this mapping's; the call reads pages in and changes none.
            if unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_POPULATE_READ) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Keeps all of it in memory as long as it is mapped, if `RLIMIT_MEMLOCK` allows it. Returns whether it does.
    pub fn lock(&self) -> bool {
        // SAFETY: the range is this mapping's; the call reads pages in and changes none.
        unsafe { libc::mlock(self.base.as_ptr().cast(), self.len) == 0 }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of a mapping that this value alone owns.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
