// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that all machines of a program share: the only memory that a reset does not restore.
//!
//! ```text
//! guest-physical   0 ... frames of the machine ...       SHARED_PHYSICAL [ the region, a memslot of its own ]
//! guest-virtual    ... Mayfly's pages ...                SHARED          [ user rw-, above USER_END         ]
//! host             one MAP_SHARED mapping a region, behind the memslots of all its machines
//! ```
//!
//! # Invariants
//!
//! - The region is mapped as long as a machine or a [`SharedMemory`] refers to it.
//! - Other vCPUs may be writing to it at any time. The host copies each byte once, trusts nothing that it has not
//!   copied, and never forms a reference into it.
//! - The host does not touch the mapping of a *file*: access to a truncated file would raise SIGBUS, which ends the
//!   process. It reads and writes the file instead, which fails with an error. (A guest's access to a page that is gone
//!   fails its `KVM_RUN`.)

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::layout::{PAGE_SIZE, SHARED_MAX, page_ceil};
use crate::mapping::Mapping;

/// A region that is mapped into every machine of a program, at the same address; a clone is the same region.
#[derive(Debug, Clone)]
pub struct SharedMemory {
    region: Arc<Region>,
}

#[derive(Debug)]
struct Region {
    mapping: Mapping,
    /// What is mapped.
    memory: File,
    /// Whether it is a file of a file system, which may be truncated.
    is_file: bool,
    /// Whether a guest's access never waits for a disk.
    stays: bool,
}

impl SharedMemory {
    /// A region of zeroes that lives as long as it is used.
    ///
    /// # Arguments
    ///
    /// `bytes`: 1 to [`SHARED_MAX`], rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a size out of range; `OutOfMemory` if the kernel has too little memory.
    pub fn anonymous(bytes: u64) -> io::Result<Self> {
        let bytes = check_size(bytes)?;
        // A file without a name, which processes that are no threads of the server's can map, too.
        // SAFETY: the name is a NUL-terminated string; the call makes a descriptor.
        let fd = unsafe { libc::memfd_create(c"mayfly-shared".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let memory = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        memory.set_len(bytes)?;
        Self::map(bytes, memory, false)
    }

    /// The first `bytes` of a file: what the machines write there survives them, and a crash of the server.
    ///
    /// The file is made, readable for its owner alone, if there is none, and grown if it is shorter; its blocks are
    /// reserved. It must lie in a local file system, where mappings and reads of a file see the same bytes. All of it
    /// is read, however slow the disk, and kept in memory if the process's limits allow it: see
    /// [`SharedMemory::stays_in_memory`].
    ///
    /// # Arguments
    ///
    /// As for [`SharedMemory::anonymous`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a size out of range, and for a file that is not regular; otherwise what the kernel says. A
    /// symbolic link as the last part of the path is refused.
    pub fn file(path: &Path, bytes: u64) -> io::Result<Self> {
        let bytes = check_size(bytes)?;
        let file = mayfly_files::open_or_create(path)?;
        mayfly_files::waiting_for(path, || reserve(&file, bytes))?;
        // All of it is read here, which takes as long as the disk takes. It is one call, which reports no progress.
        Self::map(bytes, file, true)
    }

    fn map(bytes: u64, memory: File, is_file: bool) -> io::Result<Self> {
        let (prot, fd) = (libc::PROT_READ | libc::PROT_WRITE, memory.as_raw_fd());
        let mapping = Mapping::new(bytes as usize, prot, libc::MAP_SHARED, fd)?;
        let stays = !is_file || stays_in_memory(&mapping)?;
        Ok(Self { region: Arc::new(Region { mapping, memory, is_file, stays }) })
    }

    /// Whether the kernel keeps the region in memory. If not, because `RLIMIT_MEMLOCK` was too low, it may evict pages
    /// of the file when memory is short: the guest that reads one next, and its thread, wait for the disk then.
    #[must_use]
    pub fn stays_in_memory(&self) -> bool {
        self.region.stays
    }

    /// Size in bytes, a multiple of [`PAGE_SIZE`].
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.region.mapping.len() as u64
    }

    /// Whether both are the same region.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.region, &other.region)
    }

    /// The address of the host's mapping: engines map it into their machines.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.region.mapping.address() as u64
    }

    /// Copies out of the region, each byte once; `false` if the range leaves it, or its file has lost that part.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        match self.slice(offset, out.len()) {
            None => false,
            Some(_) if self.region.is_file => self.region.memory.read_exact_at(out, offset).is_ok(),
            Some(slice) => {
                slice.copy_to(out);
                true
            }
        }
    }

    /// Copies into the region; `false` as for [`SharedMemory::read`].
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        match self.slice(offset, data.len()) {
            None => false,
            Some(_) if self.region.is_file => self.region.memory.write_all_at(data, offset).is_ok(),
            Some(slice) => {
                slice.copy_from(data);
                true
            }
        }
    }

    /// The range as volatile memory, if it lies within the region.
    fn slice(&self, offset: u64, len: usize) -> Option<VolatileSlice<'_>> {
        let end = offset.checked_add(len as u64)?;
        if end > self.bytes() {
            return None;
        }
        // SAFETY: the range lies within the mapping, which lives as long as `self`; VolatileSlice makes no references,
        // and all bytes that another thread or a vCPU stores meanwhile are valid.
        Some(unsafe { VolatileSlice::new(self.region.mapping.address().add(offset as usize), len) })
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.region.memory.as_fd()
    }
}

/// Reads a file's region now, while only its maker waits, and keeps it in memory if the kernel allows it.
fn stays_in_memory(mapping: &Mapping) -> io::Result<bool> {
    if mapping.lock() {
        return Ok(true);
    }
    match mapping.populate() {
        // Linux before 5.14 does not have this advice: pages are read when they are needed.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        populated => populated.map(|()| false),
    }
}

fn check_size(bytes: u64) -> io::Result<u64> {
    match page_ceil(bytes) {
        Some(rounded @ PAGE_SIZE..=SHARED_MAX) => Ok(rounded),
        _ => {
            let why = format!("shared memory of {bytes} bytes: not between 1 and {SHARED_MAX}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}

/// Makes the file at least that long, with blocks reserved where the file system can: then a full disk shows now.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        // SAFETY: plain system call on a descriptor that we own.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) if file.metadata()?.len() < bytes => return file.set_len(bytes),
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A directory that is removed after the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mayfly-shared-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn sizes_are_whole_pages_within_the_range() {
        assert_eq!(SharedMemory::anonymous(1).unwrap().bytes(), PAGE_SIZE);
        assert_eq!(SharedMemory::anonymous(PAGE_SIZE + 1).unwrap().bytes(), 2 * PAGE_SIZE);
        for bytes in [0, SHARED_MAX + 1, u64::MAX] {
            assert_eq!(SharedMemory::anonymous(bytes).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bytes}");
        }
    }

    #[test]
    fn a_clone_is_the_same_region() {
        let one = SharedMemory::anonymous(PAGE_SIZE).unwrap();
        let other = one.clone();
        assert!(one.write(8, b"here") && one.is_same(&other));
        let mut seen = [0; 4];
        assert!(other.read(8, &mut seen));
        assert_eq!(&seen, b"here");
        assert!(!one.is_same(&SharedMemory::anonymous(PAGE_SIZE).unwrap()));
    }

    #[test]
    fn what_leaves_the_region_is_refused() {
        let directory = Directory::new("bounds");
        let path = directory.0.join("file");
        // A file may be longer than the region: the program does not see the rest.
        std::fs::write(&path, vec![1; 3 * PAGE_SIZE as usize]).unwrap();
        for region in [SharedMemory::anonymous(PAGE_SIZE).unwrap(), SharedMemory::file(&path, PAGE_SIZE).unwrap()] {
            for offset in [PAGE_SIZE - 7, PAGE_SIZE, u64::MAX - 3, u64::MAX] {
                assert!(!region.read(offset, &mut [0; 8]) && !region.write(offset, &[0; 8]), "{offset}");
            }
            assert!(region.read(PAGE_SIZE - 8, &mut [0; 8]) && region.write(PAGE_SIZE - 8, &[0; 8]));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * PAGE_SIZE, "grown, never shrunk");
    }

    #[test]
    fn a_file_keeps_what_was_written() {
        let directory = Directory::new("keeps");
        let path = directory.0.join("file");
        assert!(SharedMemory::file(&path, 2 * PAGE_SIZE).unwrap().write(PAGE_SIZE - 2, b"kept"));
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o777), (2 * PAGE_SIZE, 0o600));
        let mut seen = [0; 4];
        assert!(SharedMemory::file(&path, 4 * PAGE_SIZE).unwrap().read(PAGE_SIZE - 2, &mut seen));
        assert_eq!(&seen, b"kept");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * PAGE_SIZE);
    }

    #[test]
    fn a_file_is_in_memory_before_anybody_asks_for_it() {
        let directory = Directory::new("resident");
        let path = directory.0.join("file");
        const PAGES: usize = 64;
        let file = File::create(&path).unwrap();
        file.set_len(PAGES as u64 * PAGE_SIZE).unwrap();
        file.write_all_at(b"there", 40 * PAGE_SIZE).unwrap();
        file.sync_all().unwrap();
        // SAFETY: plain system call on a descriptor that is open.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let region = SharedMemory::file(&path, PAGES as u64 * PAGE_SIZE).unwrap();
        let mut resident = [0_u8; PAGES];
        let address = region.host_address() as *mut libc::c_void;
        // SAFETY: the range is the region's mapping, and there is a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(address, PAGES * PAGE_SIZE as usize, resident.as_mut_ptr()) }, 0);
        assert!(resident.iter().all(|page| page & 1 == 1), "{resident:?}");
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.split_once(&format!("{:x}-", region.host_address())).unwrap().1;
        let locked = ours.lines().find(|line| line.starts_with("Locked:")).unwrap();
        assert_eq!(region.stays_in_memory(), !locked.contains(" 0 kB"), "{locked}");
    }

    #[test]
    fn a_file_that_was_truncated_is_an_error_and_no_signal() {
        let directory = Directory::new("truncated");
        let path = directory.0.join("file");
        let region = SharedMemory::file(&path, 4 * PAGE_SIZE).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(!region.read(0, &mut [0; 8]));
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let directory = Directory::new("kinds");
        let (real, link, pipe) = (directory.0.join("real"), directory.0.join("link"), directory.0.join("pipe"));
        SharedMemory::file(&real, 1).unwrap();
        symlink(&real, &link).unwrap();
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: the name is a NUL-terminated string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for path in [&link, &pipe, &directory.0, Path::new("/dev/null"), &directory.0.join("no/such")] {
            assert!(SharedMemory::file(path, PAGE_SIZE).is_err(), "{}", path.display());
        }
    }
}
