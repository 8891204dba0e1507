// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of files in guest-physical memory: the host's page cache itself, the same for all machines that map a file.
//!
//! ```text
//! guest-physical   0 ... frames of the machine ...   FILES_PHYSICAL [ chunk | chunk | chunk ]  memslots of their own
//! host             one read-only mapping an image, of windows of files, behind the memslots of all its machines
//! ```
//!
//! A file is mapped in windows of [`CHUNK_PAGES`], the first time that a booting program touches one. Guest page tables
//! map these pages read-only; a machine that writes one gets an ordinary frame with a copy (`space.rs`).
//!
//! # Invariants
//!
//! - The mapping is never written: it is `PROT_READ`, so KVM cannot write it either.
//! - A frame means the same page of the same file as long as the machine, or the image and its workers, live.
//! - The host does not touch the mapping: access to a truncated file would raise SIGBUS, which ends the process. It
//!   copies by `process_vm_readv`, which fails with an error. (A guest's access to a page that is gone fails its
//!   `KVM_RUN`.)

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use mayfly_machine::{FileKey, Mapping, PAGE_SIZE};
use serde::{Deserialize, Serialize};

use crate::layout::{FILES_MAX, FILES_PHYSICAL, PAGE, Reach};

/// Pages of a window: 2 MiB. Smaller windows need more mappings of the process, whose number Linux limits; larger ones
/// need more bookkeeping of KVM in every worker, for all frames, touched or not.
const CHUNK_PAGES: u64 = 512;
/// Most windows of an image. Each is a mapping of the process, which may have 65,530 by default.
const CHUNKS_MAX: usize = 1024;
/// Most pages of which all workers of an image share a copy: 16 MiB. The file pages that they write are data of
/// libraries.
const COPIES_MAX: usize = 4096;
const FIRST_FRAME: u64 = FILES_PHYSICAL / PAGE_SIZE;
const FRAMES_MAX: u64 = FILES_MAX / PAGE_SIZE;

/// The content of a page.
pub type Page = [u8; PAGE];

/// A window of a file.
#[derive(Debug)]
struct Chunk {
    key: (FileKey, u64),
    /// Its first page, counted from the region's start.
    first: u64,
    pages: u64,
    used: bool,
}

/// A window in a saved image.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Window {
    /// The index of its file in the image's list of files.
    pub file: u32,
    number: u64,
    first: u64,
    pages: u64,
}

/// The files of an image.
#[derive(Debug, Default)]
pub struct FileMemory {
    /// Reserved when the first file is mapped.
    region: Option<Mapping>,
    /// Whether files cannot be mapped here.
    refused: bool,
    /// Ascending.
    chunks: Vec<Chunk>,
    index: HashMap<(FileKey, u64), usize>,
    /// Frames in use, from the region's start.
    used: u64,
    /// The files themselves, where processors map them on their own ([`Reach::Files`]).
    descriptors: Option<HashMap<FileKey, OwnedFd>>,
    /// The original content of pages that some worker has written.
    copies: Mutex<HashMap<u64, Arc<Page>>>,
}

/// Whether `frame` is a file's.
#[inline]
pub fn is_file(frame: u64) -> bool {
    (FIRST_FRAME..FIRST_FRAME + FRAMES_MAX).contains(&frame)
}

impl FileMemory {
    /// No files yet.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { descriptors: (reach == Reach::Files).then(HashMap::new), ..Self::default() }
    }

    /// The file and the page in it that `frame` is, where files are kept for processors to map.
    #[must_use]
    pub fn source(&self, frame: u64) -> Option<(FileKey, BorrowedFd<'_>, u64)> {
        let within = frame.checked_sub(FIRST_FRAME)?;
        let past = self.chunks.partition_point(|chunk| chunk.first <= within);
        let chunk = past.checked_sub(1).and_then(|index| self.chunks.get(index))?;
        let page = within.checked_sub(chunk.first).filter(|page| *page < chunk.pages)?;
        let (key, number) = chunk.key;
        let file = self.descriptors.as_ref()?.get(&key)?;
        Some((key, file.as_fd(), number * CHUNK_PAGES + page))
    }

    /// Frames in use, counted from [`FILES_PHYSICAL`].
    pub fn used_frames(&self) -> u64 {
        self.used
    }

    /// Where the host has the first of them; only for memslots.
    pub fn host_address(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.address() as u64)
    }

    /// The frame of a file's page, if its window is mapped.
    pub fn frame(&self, key: FileKey, page: u64) -> Option<u64> {
        let chunk = self.chunks.get(*self.index.get(&(key, page / CHUNK_PAGES))?)?;
        let within = page % CHUNK_PAGES;
        (within < chunk.pages).then_some(FIRST_FRAME + chunk.first + within)
    }

    /// As [`FileMemory::frame`], mapping the window if necessary. `None` if the file ends before it, or cannot be
    /// mapped.
    pub fn frame_or_map(&mut self, file: BorrowedFd<'_>, key: FileKey, page: u64) -> Option<u64> {
        let number = page / CHUNK_PAGES;
        if !self.index.contains_key(&(key, number)) {
            self.map(file, key, number)?;
        }
        self.frame(key, page)
    }

    fn map(&mut self, file: BorrowedFd<'_>, key: FileKey, number: u64) -> Option<()> {
        let start = number.checked_mul(CHUNK_PAGES)?;
        let pages = file_pages(file)?.checked_sub(start)?.min(CHUNK_PAGES);
        self.map_at(file, key, number, self.used, pages)
    }

    /// Maps a window behind all others.
    fn map_at(&mut self, file: BorrowedFd<'_>, key: FileKey, number: u64, first: u64, pages: u64) -> Option<()> {
        if self.refused || self.chunks.len() >= CHUNKS_MAX {
            return None;
        }
        let offset = i64::try_from(number.checked_mul(CHUNK_PAGES)?.checked_mul(PAGE_SIZE)?).ok()?;
        if pages == 0 || first < self.used || first.checked_add(pages)? > FRAMES_MAX {
            return None;
        }
        if self.region.is_none() {
            // Files that are kept are read by their descriptors, which needs no trial.
            self.region = if self.descriptors.is_some() { address_space() } else { reserve() };
            self.refused = self.region.is_none();
        }
        if let Some(known) = &mut self.descriptors
            && !known.contains_key(&key)
        {
            // A descriptor of a file that is far away is closed by a message, which the end of the process waits for.
            if is_far(file) {
                return None;
            }
            // A file that may not be executed is copied, as one that cannot be mapped.
            Mapping::new(PAGE, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, file.as_raw_fd()).ok()?;
            known.insert(key, file.try_clone_to_owned().ok()?);
        }
        let region = self.region.as_ref()?;
        let len = pages as usize * PAGE;
        assert!(first as usize * PAGE + len <= region.len(), "window within the region");
        // SAFETY: the range lies within the region, which we own, and no references into it exist. The mapping is
        // private and read-only: no one can write to the file through it.
        let at = unsafe {
            libc::mmap(
                region.address().add(first as usize * PAGE).cast(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            // The file system does not support mappings, or there are too many.
            return None;
        }
        self.index.insert((key, number), self.chunks.len());
        self.chunks.push(Chunk { key: (key, number), first, pages, used: false });
        self.used = first + pages;
        Some(())
    }

    /// The windows, and the files that they are of.
    pub fn windows(&self) -> (Vec<FileKey>, Vec<Window>) {
        let mut keys: Vec<FileKey> = Vec::new();
        let windows = self.chunks.iter().map(|chunk| {
            let (key, number) = chunk.key;
            let known = keys.iter().position(|known| *known == key);
            let file = known.unwrap_or_else(|| {
                keys.push(key);
                keys.len() - 1
            });
            Window { file: file as u32, number, first: chunk.first, pages: chunk.pages }
        });
        let windows = windows.collect();
        (keys, windows)
    }

    /// Maps windows where they were in another process; `None` if one of them cannot be mapped. `files` have the
    /// windows' numbers.
    pub fn restore(windows: &[Window], files: &[(FileKey, BorrowedFd<'_>)], reach: Reach) -> Option<Self> {
        let mut restored = Self::new(reach);
        for window in windows {
            let (key, file) = *files.get(usize::try_from(window.file).ok()?)?;
            let end = window.number.checked_mul(CHUNK_PAGES)?.checked_add(window.pages)?;
            if window.pages > CHUNK_PAGES || end > file_pages(file)? {
                return None;
            }
            restored.map_at(file, key, window.number, window.first, window.pages)?;
        }
        Some(restored)
    }

    /// Whether `frame` is one of a window's.
    pub fn has(&self, frame: u64) -> bool {
        let Some(within) = frame.checked_sub(FIRST_FRAME) else { return false };
        let past = self.chunks.partition_point(|chunk| chunk.first <= within);
        let chunk = past.checked_sub(1).and_then(|index| self.chunks.get(index));
        chunk.is_some_and(|chunk| within - chunk.first < chunk.pages)
    }

    /// Makes all guests forget their cached translations to a run of frames. Guests whose tables still name them find
    /// them again.
    pub fn forget(&self, first: u64, count: u64) -> std::io::Result<()> {
        let Some(region) = &self.region else { return Ok(()) };
        let offset = (first - FIRST_FRAME) as usize * PAGE;
        let len = count as usize * PAGE;
        assert!(offset + len <= region.len(), "frames within the region");
        // SAFETY: advice on our own mapping, which is never written: the pages come back as they were.
        let result = unsafe { libc::madvise(region.address().add(offset).cast(), len, libc::MADV_DONTNEED) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    /// Copies what lies at a guest-physical address; `false` if the file has lost it.
    pub fn read(&self, physical: u64, out: &mut [u8]) -> bool {
        if self.descriptors.is_some() {
            return self.read_files(physical, out);
        }
        let end = physical.checked_add(out.len() as u64);
        let limit = FILES_PHYSICAL + self.used * PAGE_SIZE;
        let Some(region) = self.region.as_ref().filter(|_| end.is_some_and(|end| end <= limit)) else { return false };
        copy_from_self(region.address().wrapping_add((physical - FILES_PHYSICAL) as usize), out)
    }

    /// The same from the files themselves: containers may refuse the call that reads the process's own memory.
    fn read_files(&self, mut physical: u64, mut out: &mut [u8]) -> bool {
        while !out.is_empty() {
            let Some((_, file, page)) = self.source(physical / PAGE_SIZE) else { return false };
            let within = physical % PAGE_SIZE;
            let (part, rest) = out.split_at_mut(out.len().min((PAGE_SIZE - within) as usize));
            // A mapping has a page as long as the file reaches into it.
            if file_pages(file).is_none_or(|pages| page >= pages) || !read_at(file, page * PAGE_SIZE + within, part) {
                return false;
            }
            physical += part.len() as u64;
            out = rest;
        }
        true
    }

    /// The content of a frame, to restore written copies from; `None` if the file has lost it.
    ///
    /// It is kept, so that all workers of an image restore from the same.
    pub fn pristine(&self, frame: u64) -> Option<Arc<Page>> {
        // No code panics while it holds the lock, so a poisoned lock is safe to use.
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = copies.get(&frame) {
            return Some(Arc::clone(page));
        }
        let mut page = [0; PAGE];
        if !self.read(frame * PAGE_SIZE, &mut page) {
            return None;
        }
        let page = Arc::new(page);
        if copies.len() < COPIES_MAX {
            copies.insert(frame, Arc::clone(&page));
        }
        Some(page)
    }

    /// Notes that a page table names `frame`.
    pub fn mark(&mut self, frame: u64) {
        let Some(within) = frame.checked_sub(FIRST_FRAME) else { return };
        let past = self.chunks.partition_point(|chunk| chunk.first <= within);
        if let Some(chunk) = past.checked_sub(1).and_then(|index| self.chunks.get_mut(index)) {
            chunk.used = true;
        }
    }

    /// Unmaps windows that no page table names: those without a [`FileMemory::mark`].
    pub fn drop_unmarked(&mut self) {
        let Some(region) = &self.region else { return };
        for chunk in self.chunks.iter().filter(|chunk| !chunk.used) {
            // SAFETY: the range lies within the region, as when the window was mapped; no machine runs that could use
            // it.
            unsafe {
                libc::mmap(
                    region.address().add(chunk.first as usize * PAGE).cast(),
                    chunk.pages as usize * PAGE,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                    -1,
                    0,
                );
            }
        }
        self.chunks.retain(|chunk| chunk.used);
        self.index = self.chunks.iter().enumerate().map(|(at, chunk)| (chunk.key, at)).collect();
        self.used = self.chunks.last().map_or(0, |last| last.first + last.pages);
        if let Some(known) = &mut self.descriptors {
            known.retain(|key, _| self.chunks.iter().any(|chunk| chunk.key.0 == *key));
        }
    }
}

/// Address space for the windows, if this host lets us read them safely.
fn reserve() -> Option<Mapping> {
    let probe = [1u8];
    let mut seen = [0u8];
    if !copy_from_self(probe.as_ptr(), &mut seen) || seen != probe {
        return None;
    }
    address_space()
}

/// Address space for the windows.
fn address_space() -> Option<Mapping> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    Mapping::new(FILES_MAX as usize, libc::PROT_NONE, flags, -1).ok()
}

/// Whether the file lies in a file system that another process or another machine answers for (statfs(2)); one that
/// does not say is taken for one.
fn is_far(file: BorrowedFd<'_>) -> bool {
    // 9p, AFS, Ceph, CIFS, FUSE, NFS, SMB2.
    const FAR: [i64; 7] = [0x0102_1997, 0x5346_414f, 0x00c3_6400, 0xff53_4d42, 0x6573_5546, 0x6969, 0xfe53_4d42];
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and the buffer has the size of what is written to it.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return true;
    }
    // SAFETY: filled in, since the call succeeded.
    FAR.contains(&unsafe { stat.assume_init() }.f_type)
}

/// Reads from a file; behind its end are zeroes.
fn read_at(file: BorrowedFd<'_>, offset: u64, out: &mut [u8]) -> bool {
    let mut done = 0;
    while done < out.len() {
        let Ok(at) = i64::try_from(offset + done as u64) else { return false };
        let rest = &mut out[done..];
        // SAFETY: the kernel writes only within `rest`.
        let read = unsafe { libc::pread(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), at) };
        match usize::try_from(read) {
            Ok(0) => {
                rest.fill(0);
                return true;
            }
            Ok(count) => done += count,
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Size of a regular file in pages.
fn file_pages(file: BorrowedFd<'_>) -> Option<u64> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the descriptor is open, and the buffer has the size of what is written to it.
    if unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: filled in, since the call succeeded.
    let stat = unsafe { stat.assume_init() };
    let is_regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    is_regular.then_some(u64::try_from(stat.st_size).ok()?.div_ceil(PAGE_SIZE))
}

/// Copies memory of this process, wherever it lies: memory that cannot be read gives `false`, and no signal.
fn copy_from_self(from: *const u8, out: &mut [u8]) -> bool {
    let local = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    let remote = libc::iovec { iov_base: from.cast_mut().cast(), iov_len: out.len() };
    // SAFETY: the kernel writes only within `out`, and checks every address that it reads.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).is_ok_and(|copied| copied == out.len())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn file(pages: &[u8], tail: &[u8]) -> File {
        let mut file = tempfile();
        for byte in pages {
            file.write_all(&[*byte; PAGE]).unwrap();
        }
        file.write_all(tail).unwrap();
        file
    }

    fn tempfile() -> File {
        let path =
            std::env::temp_dir().join(format!("mayfly-files-{}-{:?}", std::process::id(), std::thread::current().id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    const KEY: FileKey = FileKey(1, 2);

    #[test]
    fn a_file_is_mapped_once_up_to_its_end() {
        let file = file(&[1, 2], b"end");
        let mut files = FileMemory::default();
        let frame = files.frame_or_map(file.as_fd(), KEY, 0).unwrap();
        assert!(is_file(frame));
        assert_eq!(files.frame_or_map(file.as_fd(), KEY, 2), Some(frame + 2));
        assert_eq!(files.frame(KEY, 1), Some(frame + 1));
        assert_eq!(files.frame_or_map(file.as_fd(), KEY, 3), None, "past the end");
        assert_eq!(files.frame(FileKey(1, 3), 0), None);
        assert_eq!(files.used_frames(), 3);
        let mut page = [9; PAGE];
        assert!(files.read((frame + 2) * PAGE_SIZE, &mut page));
        assert_eq!((&page[..4], page[PAGE - 1]), (&b"end\0"[..], 0), "zeroes behind the end");
        assert!(files.read((frame + 1) * PAGE_SIZE - 1, &mut page[..2]));
        assert_eq!(page[..2], [1, 2]);
        assert!(!files.read((frame + 3) * PAGE_SIZE - 1, &mut page[..2]), "past what is mapped");
        assert!(!files.read(u64::MAX, &mut page[..2]));
    }

    #[test]
    fn files_that_are_kept_are_read_by_their_descriptors() {
        let file = file(&[1, 2], b"end");
        let mut files = FileMemory::new(Reach::Files);
        let frame = files.frame_or_map(file.as_fd(), KEY, 0).unwrap();
        let mut bytes = [9; PAGE + 8];
        assert!(files.read((frame + 1) * PAGE_SIZE - 1, &mut bytes[..2]));
        assert_eq!(bytes[..2], [1, 2]);
        assert!(files.read((frame + 2) * PAGE_SIZE, &mut bytes[..PAGE]));
        assert_eq!((&bytes[..4], bytes[PAGE - 1]), (&b"end\0"[..], 0), "zeroes behind the end");
        assert!(!files.read((frame + 2) * PAGE_SIZE + 8, &mut bytes[..PAGE]), "past what is mapped");
        file.set_len(PAGE_SIZE).unwrap();
        assert!(!files.read((frame + 1) * PAGE_SIZE, &mut bytes[..1]), "the file has lost it");
        assert!(files.read(frame * PAGE_SIZE, &mut bytes[..1]));
    }

    #[test]
    fn what_is_no_regular_file_is_not_mapped() {
        let mut files = FileMemory::default();
        assert_eq!(files.frame_or_map(File::open("/dev/zero").unwrap().as_fd(), KEY, 0), None);
        assert_eq!(files.frame_or_map(File::open("/").unwrap().as_fd(), KEY, 0), None);
        assert_eq!(files.frame_or_map(file(&[], b"").as_fd(), KEY, 0), None, "empty");
        assert_eq!(files.frame_or_map(file(&[1], b"").as_fd(), KEY, u64::MAX), None);
    }

    #[test]
    fn a_file_that_was_truncated_is_an_error_and_no_signal() {
        let file = file(&[1, 2], b"");
        let mut files = FileMemory::default();
        let frame = files.frame_or_map(file.as_fd(), KEY, 0).unwrap();
        let kept = files.pristine(frame).unwrap();
        file.set_len(0).unwrap();
        assert!(!files.read(frame * PAGE_SIZE, &mut [0; 8]));
        assert_eq!(files.pristine(frame + 1), None);
        assert_eq!(files.pristine(frame), Some(kept), "what was kept stays");
        files.forget(frame, 2).unwrap();
    }

    #[test]
    fn unused_files_are_unmapped() {
        let (one, other) = (file(&[1], b""), file(&[2; 3], b""));
        let mut files = FileMemory::default();
        let frame = files.frame_or_map(one.as_fd(), KEY, 0).unwrap();
        let gone = files.frame_or_map(other.as_fd(), FileKey(0, 0), 0).unwrap();
        files.mark(frame);
        files.drop_unmarked();
        assert_eq!((files.frame(KEY, 0), files.frame(FileKey(0, 0), 0)), (Some(frame), None));
        assert_eq!(files.used_frames(), 1);
        assert!(files.read(frame * PAGE_SIZE, &mut [0; 8]) && !files.read(gone * PAGE_SIZE, &mut [0; 8]));
    }
}
