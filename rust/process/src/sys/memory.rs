// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is a file: what the server and a stub both map.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use mayfly_machine::Mapping;
use vm_memory::VolatileSlice;

use crate::sys::check;

/// `MFD_EXEC` (Linux 6.3): says that the memory may be executed, where `vm.memfd_noexec` asks for a word on that.
const MFD_EXEC: libc::c_uint = 0x10;

/// Makes a file of memory that may be sealed and executed.
pub(crate) fn memfd(name: &CStr) -> io::Result<File> {
    let create = |flags: libc::c_uint| {
        // SAFETY: the name is a string that ends with NUL; the call makes a descriptor.
        check(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) })
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let fd = create(flags | MFD_EXEC).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => create(flags), // Linux before 6.3
        _ => Err(error),
    })?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }.into())
}

/// A file of memory with these bytes, which nothing can change any more.
pub(crate) fn sealed(name: &CStr, content: &[u8]) -> io::Result<File> {
    let file = memfd(name)?;
    file.write_all_at(content, 0)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: plain call on a descriptor that we own.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())?;
    Ok(file)
}

/// Memory that a stub or a zygote maps too.
///
/// # Invariants
///
/// The other side may write at any time, and whatever it likes: there is no reference into the memory, only copies,
/// each byte once.
#[derive(Debug)]
pub(crate) struct SharedPages {
    mapping: Mapping,
}

impl SharedPages {
    /// `bytes` bytes of zeroes, a multiple of the page size; and the file, for the other side to map.
    pub(crate) fn new(name: &CStr, bytes: u64) -> io::Result<(Self, File)> {
        let file = memfd(name)?;
        file.set_len(bytes)?;
        let mapping =
            Mapping::new(bytes as usize, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd())?;
        Ok((Self { mapping }, file))
    }

    fn slice(&self, offset: u64, len: usize) -> Option<VolatileSlice<'_>> {
        let end = offset.checked_add(len as u64)?;
        if end > self.mapping.len() as u64 {
            return None;
        }
        // SAFETY: the range lies within the mapping, which lives as long as `self`; VolatileSlice makes no references,
        // and all bytes that the other side stores meanwhile are valid.
        Some(unsafe { VolatileSlice::new(self.mapping.address().add(offset as usize), len) })
    }

    /// Copies out of it; `false` if the range leaves it.
    #[must_use]
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        self.slice(offset, out.len()).map(|slice| slice.copy_to(out)).is_some()
    }

    /// Copies into it; `false` if the range leaves it, and then nothing is written.
    #[must_use]
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> bool {
        self.slice(offset, data.len()).map(|slice| slice.copy_from(data)).is_some()
    }

    /// Makes these bytes zero; `false` if the range leaves it, and then nothing is written.
    #[must_use]
    pub(crate) fn clear(&self, offset: u64, len: usize) -> bool {
        self.slice(offset, len)
            .map(|slice| {
                // SAFETY: the slice lies within the mapping; there are no references into it.
                unsafe { slice.ptr_guard_mut().as_ptr().write_bytes(0, slice.len()) }
            })
            .is_some()
    }

    /// Reads words; `None` if they leave it.
    pub(crate) fn words<const N: usize>(&self, offset: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        let mut bytes = [0; 8];
        for (word, index) in words.iter_mut().zip(0_u64..) {
            if !self.read(offset.checked_add(index * 8)?, &mut bytes) {
                return None;
            }
            *word = u64::from_le_bytes(bytes);
        }
        Some(words)
    }

    /// Writes words; `false` if they leave it, and then nothing is written.
    #[must_use]
    pub(crate) fn set_words<const N: usize>(&self, offset: u64, words: [u64; N]) -> bool {
        let mut bytes = [[0; 8]; N];
        for (place, word) in bytes.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        self.write(offset, bytes.as_flattened())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_memory_cannot_be_written_resized_or_unsealed() {
        let file = sealed(c"sealed", b"host code").unwrap();
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(1).is_err() && file.set_len(1 << 20).is_err());
        let writable = Mapping::new(4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd());
        assert_eq!(writable.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        // SAFETY: plain call on a descriptor that is open.
        assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) }, -1);
        let mut bytes = [0; 9];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"host code");
    }

    #[test]
    fn what_leaves_shared_pages_is_refused() {
        let (pages, _file) = SharedPages::new(c"shared", 4096).unwrap();
        assert!(pages.set_words(4096 - 16, [1, 2]) && pages.words(4096 - 16) == Some([1, 2]));
        for offset in [4096 - 8, 4096, u64::MAX - 7, u64::MAX] {
            assert!(!pages.set_words(offset, [3, 4]) && pages.words::<2>(offset).is_none(), "{offset:#x}");
        }
        assert_eq!(pages.words(4096 - 8), Some([2]), "a refused write leaves no trace");
    }
}
