// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of files that a machine has mapped shared: the host's page cache itself, readable and writable.
//!
//! ```text
//! guest-physical   ... frames of files, read only ...   SHARED_FILES_PHYSICAL [ window | free | window | free ... ]
//! host             one reserved range a machine, in which windows of files are mapped with MAP_SHARED
//! ```
//!
//! What one machine writes to such a page, all others that map it see, and every reader of the file; the kernel keeps
//! it, whatever happens to this process. A file may lose a page at any time: somebody makes it shorter.
//!
//! # Invariants
//!
//! - A frame means the same page of the same file as long as its window exists, and a window goes only after every
//!   page table entry that names it.
//! - The host does not touch the mapping: access to a page that the file has lost would raise SIGBUS, which ends the
//!   process. The kernel copies on its behalf, from and to a file in memory, and fails with an error. (A guest's access
//!   to such a page fails its `KVM_RUN`.)
//! - A window has the file open, so that unmapping it never is what closes the file: that may take its time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use mayfly_machine::{FileKey, Mapping, PAGE_SIZE, SharedFile};

use crate::layout::{PAGE, Reach, SHARED_FILES_MAX, SHARED_FILES_PHYSICAL};
use crate::sealed::memfd;

/// Windows start and end at multiples of this many pages of their files: 2 MiB. Their sizes are powers of two.
const UNIT: u64 = 512;
/// Most pages of a window: 1 GiB.
const WINDOW_MAX: u64 = 1 << 18;
/// Most windows of a machine, and of all machines. Each is a mapping of the process or two, which may have 65,530 by
/// default.
const WINDOWS_MAX: usize = 64;
const ALL_WINDOWS_MAX: usize = 8192;
const FIRST_FRAME: u64 = SHARED_FILES_PHYSICAL / PAGE_SIZE;
const FRAMES_MAX: u64 = SHARED_FILES_MAX / PAGE_SIZE;

/// Windows of all machines.
static ALL_WINDOWS: AtomicUsize = AtomicUsize::new(0);

/// A part of a file.
#[derive(Debug)]
struct Window {
    file: SharedFile,
    /// Its first page in the file.
    start: u64,
    /// Its first page, counted from the region's start.
    first: u64,
    pages: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.first + self.pages
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        ALL_WINDOWS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The files that a machine has mapped shared.
#[derive(Debug, Default)]
pub struct SharedFiles {
    /// Reserved when the first file is mapped.
    region: Option<Mapping>,
    /// A page of memory that the kernel copies through.
    bounce: Option<OwnedFd>,
    /// Ascending by place.
    windows: Vec<Window>,
    /// Pages from the region's start that windows have ever had.
    used: u64,
}

/// Whether `frame` may be a page of a file that is mapped shared.
#[inline]
pub(crate) fn is_shared_file(frame: u64) -> bool {
    (FIRST_FRAME..FIRST_FRAME + FRAMES_MAX).contains(&frame)
}

impl SharedFiles {
    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Frames that were ever in use, counted from [`SHARED_FILES_PHYSICAL`].
    #[must_use]
    pub fn used_frames(&self) -> u64 {
        self.used
    }

    /// Where the host has the first of them; only for memslots.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.address() as u64)
    }

    fn window(&self, frame: u64) -> Option<&Window> {
        let within = frame.checked_sub(FIRST_FRAME)?;
        let past = self.windows.partition_point(|window| window.first <= within);
        let window = past.checked_sub(1).and_then(|index| self.windows.get(index))?;
        (within < window.end()).then_some(window)
    }

    /// The file and the page in it that `frame` is.
    #[must_use]
    pub fn source(&self, frame: u64) -> Option<(FileKey, BorrowedFd<'_>, u64)> {
        let window = self.window(frame)?;
        let page = window.start + (frame - FIRST_FRAME - window.first);
        Some((window.file.key, window.file.file.as_fd(), page))
    }

    /// The frame of a file's page; its window is mapped if necessary. `file_pages`: how long the file is. The page may
    /// lie behind its end.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if there are too many windows, or no room; otherwise what the kernel says to the mapping.
    pub fn frame_or_map(&mut self, file: &SharedFile, page: u64, file_pages: u64) -> io::Result<u64> {
        let has =
            |window: &&Window| window.file.is_same(file) && page >= window.start && page - window.start < window.pages;
        if let Some(window) = self.windows.iter().find(has) {
            return Ok(FIRST_FRAME + window.first + (page - window.start));
        }
        // From a multiple of the largest window on, so that a file that is read backwards takes no more windows than
        // one that is read forwards, and twice as large as before at least when the file has grown.
        let large = page - page % WINDOW_MAX;
        let pages = file_pages.max(page.saturating_add(1)).saturating_sub(large);
        let wanted = pages.clamp(UNIT, WINDOW_MAX).next_power_of_two();
        let small = page - page % UNIT;
        let (start, first, pages) = match (self.place(wanted), self.place(UNIT)) {
            (Some(first), _) => (large, first, wanted),
            (None, Some(first)) => (small, first, UNIT),
            (None, None) => return Err(no_room()),
        };
        self.map(file, start, first, pages)?;
        Ok(FIRST_FRAME + first + (page - start))
    }

    /// Room for a window.
    fn place(&self, pages: u64) -> Option<u64> {
        let mut at = 0;
        for window in &self.windows {
            if window.first - at >= pages {
                break;
            }
            at = window.end();
        }
        (at + pages <= FRAMES_MAX).then_some(at)
    }

    fn map(&mut self, file: &SharedFile, start: u64, first: u64, pages: u64) -> io::Result<()> {
        if self.windows.len() >= WINDOWS_MAX {
            return Err(no_room());
        }
        let offset = start.checked_mul(PAGE_SIZE).and_then(|offset| i64::try_from(offset).ok()).ok_or_else(no_room)?;
        if self.region.is_none() {
            self.bounce = Some(memfd(PAGE_SIZE, Reach::Mapping)?);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            self.region = Some(Mapping::new(SHARED_FILES_MAX as usize, libc::PROT_NONE, flags, -1)?);
        }
        // From here on its drop gives the count back.
        if ALL_WINDOWS.fetch_add(1, Ordering::Relaxed) >= ALL_WINDOWS_MAX {
            ALL_WINDOWS.fetch_sub(1, Ordering::Relaxed);
            return Err(no_room());
        }
        let window = Window { file: file.clone(), start, first, pages };
        let prot = if file.writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        self.replace(&window, prot, libc::MAP_SHARED, file.file.as_fd().as_raw_fd(), offset)?;
        let at = self.windows.partition_point(|other| other.first < first);
        self.used = self.used.max(window.end());
        self.windows.insert(at, window);
        Ok(())
    }

    /// Puts another mapping in a window's place.
    fn replace(&self, window: &Window, prot: i32, flags: i32, file: i32, offset: i64) -> io::Result<()> {
        let Some(region) = &self.region else { return Ok(()) };
        let len = window.pages as usize * PAGE;
        assert!(window.first as usize * PAGE + len <= region.len(), "window within the region");
        // SAFETY: the range lies within the region, which we own, and no references into it exist.
        let at = unsafe {
            libc::mmap(
                region.address().add(window.first as usize * PAGE).cast(),
                len,
                prot,
                flags | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file,
                offset,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Unmaps the windows of files that `keeps` does not keep. No page table names them any more.
    ///
    /// # Errors
    ///
    /// What the kernel says; the windows that are left are mapped as before.
    pub fn retain(&mut self, keeps: impl Fn(&SharedFile) -> bool) -> io::Result<()> {
        let (kept, gone): (Vec<_>, Vec<_>) = self.windows.drain(..).partition(|window| keeps(&window.file));
        self.windows = kept;
        let mut result = Ok(());
        for window in gone {
            match self.replace(&window, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) {
                Ok(()) => {}
                Err(error) => {
                    let at = self.windows.partition_point(|other| other.first < window.first);
                    self.windows.insert(at, window);
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Makes the guest forget its cached translations to a run of frames. The pages stay the file's.
    pub(crate) fn forget(&self, first: u64, count: u64) -> io::Result<()> {
        let Some(region) = &self.region else { return Ok(()) };
        let offset = (first - FIRST_FRAME) as usize * PAGE;
        let len = count as usize * PAGE;
        assert!(offset + len <= region.len(), "frames within the region");
        // SAFETY: advice on our own mapping, which nothing of ours reads; of a shared mapping the content stays.
        let result = unsafe { libc::madvise(region.address().add(offset).cast(), len, libc::MADV_DONTNEED) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Where the host has a guest-physical range that lies in one page of a window.
    fn place_of(&self, physical: u64, len: usize) -> Option<*mut u8> {
        let region = self.region.as_ref()?;
        self.window(physical / PAGE_SIZE)?;
        let within = (physical % PAGE_SIZE) as usize;
        let offset = usize::try_from(physical - SHARED_FILES_PHYSICAL).ok()?;
        (within + len <= PAGE).then(|| region.address().wrapping_add(offset))
    }

    /// Copies out of a page; `false` if the file has lost it.
    pub(crate) fn read(&self, physical: u64, out: &mut [u8]) -> bool {
        let (Some(from), Some(bounce)) = (self.place_of(physical, out.len()), &self.bounce) else { return false };
        // SAFETY: the kernel checks every address that it reads, and fails where it cannot.
        let written = unsafe { libc::pwrite(bounce.as_raw_fd(), from.cast_const().cast(), out.len(), 0) };
        // SAFETY: the kernel writes only within `out`.
        let read = unsafe { libc::pread(bounce.as_raw_fd(), out.as_mut_ptr().cast(), out.len(), 0) };
        [written, read].iter().all(|done| usize::try_from(*done).is_ok_and(|done| done == out.len()))
    }

    /// Copies into a page, which the program may write; `false` if the file has lost it.
    pub(crate) fn write(&self, physical: u64, data: &[u8]) -> bool {
        let (Some(to), Some(bounce)) = (self.place_of(physical, data.len()), &self.bounce) else { return false };
        // SAFETY: the kernel reads only within `data`.
        let written = unsafe { libc::pwrite(bounce.as_raw_fd(), data.as_ptr().cast(), data.len(), 0) };
        // SAFETY: the range is our own mapping's, of which there are no references, and which guests may be writing as
        // well: its bytes may be anything. The kernel checks every address, and fails where it cannot write.
        let read = unsafe { libc::pread(bounce.as_raw_fd(), to.cast(), data.len(), 0) };
        [written, read].iter().all(|done| usize::try_from(*done).is_ok_and(|done| done == data.len()))
    }
}

fn no_room() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::*;

    fn file(key: u64, pages: &[u8]) -> (Arc<File>, SharedFile) {
        let name = format!("mayfly-shared-files-{}-{key}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        pages.iter().for_each(|byte| file.write_all(&[*byte; PAGE]).unwrap());
        let file = Arc::new(file);
        let shared = SharedFile { file: Arc::clone(&file) as _, key: FileKey(key, 0), writable: true };
        (file, shared)
    }

    #[test]
    fn writes_reach_the_file_and_its_other_mappings() {
        let (host, shared) = file(1, &[1, 2]);
        let (mut one, mut other) = (SharedFiles::default(), SharedFiles::default());
        let frame = one.frame_or_map(&shared, 1, 2).unwrap();
        let there = other.frame_or_map(&shared, 1, 2).unwrap();
        assert!(is_shared_file(frame) && one.source(frame).is_some_and(|(key, _, page)| (key.0, page) == (1, 1)));
        assert!(one.write(frame * PAGE_SIZE + 5, b"new"));
        let mut seen = [0; 4];
        assert!(other.read(there * PAGE_SIZE + 4, &mut seen));
        assert_eq!(&seen, b"\x02new");
        host.read_exact_at(&mut seen, PAGE_SIZE + 4).unwrap();
        assert_eq!(&seen, b"\x02new");
        host.write_all_at(b"host", PAGE_SIZE).unwrap();
        assert!(one.read(frame * PAGE_SIZE, &mut seen));
        assert_eq!(&seen, b"host");
        one.forget(frame - 1, 2).unwrap();
        assert!(one.read(frame * PAGE_SIZE, &mut seen));
        assert_eq!(&seen, b"host");
        assert!(!one.read(frame * PAGE_SIZE + PAGE_SIZE - 3, &mut seen), "one page at a time");
    }

    #[test]
    fn a_page_that_the_file_has_lost_is_an_error_and_no_signal() {
        let (host, shared) = file(2, &[1, 2]);
        let mut files = SharedFiles::default();
        let frame = files.frame_or_map(&shared, 1, 2).unwrap();
        host.set_len(PAGE_SIZE).unwrap();
        assert!(!files.read(frame * PAGE_SIZE, &mut [0; 8]));
        assert!(!files.write(frame * PAGE_SIZE, &[0; 8]));
        assert_eq!(host.metadata().unwrap().len(), PAGE_SIZE, "a write does not make the file longer");
        host.set_len(2 * PAGE_SIZE).unwrap();
        assert!(files.write(frame * PAGE_SIZE, &[7; 8]), "it is there again");
    }

    #[test]
    fn windows_are_bounded_found_again_and_given_back() {
        let mut files = SharedFiles::default();
        let all: Vec<_> = (0..=WINDOWS_MAX as u64).map(|key| file(100 + key, &[key as u8]).1).collect();
        let (last, fitting) = all.split_last().unwrap();
        let frames: Vec<u64> = fitting.iter().map(|file| files.frame_or_map(file, 0, 1).unwrap()).collect();
        assert_eq!(files.frame_or_map(last, 0, 1).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(files.frame_or_map(&fitting[3], 7, 1).unwrap(), frames[3] + 7, "behind the end, in the same window");
        files.retain(|file| file.key != fitting[3].key).unwrap();
        assert!(!files.read(frames[3] * PAGE_SIZE, &mut [0; 1]) && files.source(frames[3]).is_none());
        assert_eq!(files.frame_or_map(last, 0, 1).unwrap(), frames[3], "its place is used again");
        let mut seen = [0];
        assert!(files.read(frames[3] * PAGE_SIZE, &mut seen));
        assert_eq!(seen[0], WINDOWS_MAX as u8);
        // Read-only access is another window, and there is none left.
        let read_only = SharedFile { writable: false, ..fitting[0].clone() };
        assert!(files.frame_or_map(&read_only, 0, 1).is_err());
        files.retain(|_| false).unwrap();
        assert!(files.is_empty());
        // A large file gets a large window.
        let (host, large) = file(99, &[]);
        host.set_len(SHARED_FILES_MAX + PAGE_SIZE).unwrap();
        let pages = SHARED_FILES_MAX / PAGE_SIZE + 1;
        let first = files.frame_or_map(&large, 0, pages).unwrap();
        assert_eq!(files.frame_or_map(&large, WINDOW_MAX - 1, pages).unwrap(), first + WINDOW_MAX - 1);
        let windows = (0..4).map(|window| files.frame_or_map(&large, window * WINDOW_MAX, pages));
        assert!(windows.into_iter().all(|frame| frame.is_ok()));
        assert!(files.frame_or_map(&large, 4 * WINDOW_MAX, pages).is_err(), "as much as there is room for");
        assert!(files.frame_or_map(&large, u64::MAX - 600, u64::MAX).is_err());
    }

    #[test]
    fn a_file_takes_few_windows_whichever_way_it_is_read_and_however_it_grows() {
        let (_, shared) = file(3, &[]);
        let mut files = SharedFiles::default();
        let pages = 2 * WINDOW_MAX;
        for page in (0..pages).rev().step_by(UNIT as usize / 2) {
            files.frame_or_map(&shared, page, pages).unwrap();
        }
        assert_eq!(files.windows.len(), 2);
        files.retain(|_| false).unwrap();
        for page in (0..WINDOW_MAX).step_by(100) {
            let frame = files.frame_or_map(&shared, page, page + 1).unwrap();
            assert_eq!(files.source(frame).map(|(_, _, page)| page), Some(page));
        }
        assert_eq!(files.windows.len() as u32, (WINDOW_MAX / UNIT).ilog2() + 1);
    }
}
