// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory in files: those that machines are made of, and the sealed one of a frozen program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_machine::{FreezeError, Mapping, PAGE_SIZE, SharedMemory};

use crate::files::FileMemory;
use crate::layout::Reach;
use crate::ledger::Hold;

/// How long a memfd may be busy when it is to be sealed, on the thread of a boot, and the time between two tries.
const SEAL_PATIENCE: Duration = Duration::from_secs(5);
const SEAL_PAUSE: Duration = Duration::from_millis(5);

/// The frozen memory of a booted program: a sealed memfd and a read-only view of it.
#[derive(Debug)]
pub struct SealedMemory {
    memfd: OwnedFd,
    view: Mapping,
    frames: u64,
    /// Not frozen: each worker gets it as it is.
    shared: Option<SharedMemory>,
    files: Arc<FileMemory>,
    /// What the memory takes from the process's bound; dropped last.
    _hold: Hold,
}

impl SealedMemory {
    /// Seals `memfd`, of which no writable mapping exists, at a length of `frames`.
    pub fn seal(
        memfd: OwnedFd,
        frames: u64,
        shared: Option<SharedMemory>,
        files: Arc<FileMemory>,
        mut hold: Hold,
    ) -> Result<Self, FreezeError> {
        let fd = memfd.as_raw_fd();
        let bytes = frames * PAGE_SIZE;
        // SAFETY: plain system call on a descriptor that we own.
        if unsafe { libc::ftruncate(fd, bytes as i64) } != 0 {
            return Err(FreezeError::image("ftruncate")(io::Error::last_os_error()));
        }
        add_seals(memfd.as_fd(), SEAL_PATIENCE).map_err(FreezeError::image("F_ADD_SEALS"))?;
        // MAP_PRIVATE although nothing writes: kernels before 6.7 refuse any MAP_SHARED mapping of a write-sealed
        // memfd.
        let view =
            Mapping::new(bytes as usize, libc::PROT_READ, libc::MAP_PRIVATE, fd).map_err(FreezeError::image("mmap"))?;
        hold.shrink(frames.min(resident_pages(&memfd).unwrap_or(frames)));
        Ok(Self { memfd, view, frames, shared, files, _hold: hold })
    }

    /// How many frames it has.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The memory as a file, to be read.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// The memory in the host, to be read.
    pub(crate) fn view(&self) -> &Mapping {
        &self.view
    }

    /// The memory that all machines of the program share, if it has any.
    pub fn shared(&self) -> Option<&SharedMemory> {
        self.shared.as_ref()
    }

    /// The files whose pages it has.
    pub fn files(&self) -> &FileMemory {
        &self.files
    }

    /// The same, to be kept by a machine.
    pub(crate) fn keep_files(&self) -> Arc<FileMemory> {
        Arc::clone(&self.files)
    }

    /// The aligned word at a guest-physical address; `None` outside of the image.
    pub fn word(&self, address: u64) -> Option<u64> {
        let end = address.checked_add(8)?;
        if end > self.frames * PAGE_SIZE || !address.is_multiple_of(8) {
            return None;
        }
        // SAFETY: within the view and aligned, since the view starts at a page; volatile, as all access to guest
        // memory.
        Some(unsafe { self.view.address().add(address as usize).cast::<u64>().read_volatile() })
    }
}

/// Seals a memfd against every change. While it is busy, tries again for as long as `patience`.
///
/// The machine's own mappings are gone, but a process that has ended keeps its own as long as another one reads its
/// `/proc` files, as monitors do; and the kernel itself holds single pages for a moment, to move them or to look at
/// their age. In both cases fcntl(2) says EBUSY.
fn add_seals(memfd: BorrowedFd<'_>, patience: Duration) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    let end = Instant::now() + patience;
    loop {
        // SAFETY: plain system call on an open descriptor.
        if unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, seals) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= end {
            return Err(error);
        }
        std::thread::sleep(SEAL_PAUSE);
    }
}

/// A new memfd of `bytes` bytes, all of them zero.
///
/// # Errors
///
/// What the kernel says to memfd_create(2) or ftruncate(2).
pub fn memfd(bytes: u64, reach: Reach) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a NUL-terminated string.
    let make = |flags| unsafe { libc::memfd_create(c"mayfly".as_ptr(), flags) };
    // Only a process runs the program's code from it as it is. Kernels before 6.3 do not know the flags.
    let permission = match reach {
        Reach::Mapping => libc::MFD_NOEXEC_SEAL,
        Reach::Files => libc::MFD_EXEC,
    };
    let fd = match make(flags | permission) {
        -1 => make(flags),
        fd => fd,
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and has no other owner.
    let memfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let bytes = i64::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: plain system call on a descriptor that we own.
    if unsafe { libc::ftruncate(fd, bytes) } == 0 { Ok(memfd) } else { Err(io::Error::last_os_error()) }
}

/// Pages of a memfd that exist: those in between are holes.
fn resident_pages(memfd: &OwnedFd) -> Option<u64> {
    let file = std::fs::File::from(memfd.try_clone().ok()?);
    // In units of 512 bytes, whatever the file system.
    Some(std::os::unix::fs::MetadataExt::blocks(&file.metadata().ok()?) * 512 / PAGE_SIZE)
}

/// Which of an image's frames a worker has in its own file.
#[derive(Debug)]
pub(crate) struct Owned(Vec<u64>);

impl Owned {
    pub(crate) fn new(frames: u64) -> Self {
        Self(vec![0; frames.div_ceil(64) as usize])
    }

    #[inline]
    pub(crate) fn has(&self, frame: u64) -> bool {
        self.0.get((frame / 64) as usize).is_some_and(|word| word & (1 << (frame % 64)) != 0)
    }

    pub(crate) fn set(&mut self, frame: u64, owned: bool) {
        if let Some(word) = self.0.get_mut((frame / 64) as usize) {
            *word = *word & !(1 << (frame % 64)) | u64::from(owned) << (frame % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_memfd_is_sealed_when_it_is_no_longer_busy() {
        let memfd = memfd(PAGE_SIZE, Reach::Mapping).unwrap();
        let shared = |fd: &OwnedFd| {
            Mapping::new(PAGE_SIZE as usize, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd())
                .unwrap()
        };
        let mapping = shared(&memfd);
        let error = add_seals(memfd.as_fd(), Duration::ZERO).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "as long as it is mapped");
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(mapping);
        });
        add_seals(memfd.as_fd(), Duration::from_secs(60)).unwrap();
        other.join().unwrap();
        let error = add_seals(memfd.as_fd(), Duration::ZERO).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "sealed against seals, too");
    }
}
