// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images in files, for other processes to fork workers from.
//!
//! ```text
//! file    ... | pages that are not zero, in the order of their frames ...         | ...
//!             ^ offset, a page's start      one sum for each block of BLOCK_PAGES
//! ```
//!
//! The caller keeps the [`SavedImage`], which is everything but the pages, in any form. Pages of files are kept as
//! their places in those files.
//!
//! # Invariants
//!
//! A loaded image is equivalent to a frozen one. Its pages are copies: later changes of the file have no effect. The
//! bytes that were checked are the bytes that are used. All numbers that the host relies on later are checked here, the
//! page tables among them.

use std::fs::File;
use std::hash::Hasher;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mayfly_machine::layout::INBOX_MAX;
use mayfly_machine::{ClockLine, FileKey, PAGE_SIZE};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::error::{LoadError, SaveError};
use crate::fingerprint::Fingerprint;
use crate::host::Host;
use crate::image::image::Image;
use crate::machine::aliases::Aliases;
use crate::machine::frozen::{Frozen, Inbox};
use mayfly_memory::files::{FileMemory, Window};
use mayfly_memory::layout::Reach;
use mayfly_memory::layout::{PAGE, SHARED_PHYSICAL};
use mayfly_memory::ledger::{Hold, Purpose};
use mayfly_memory::sealed::{SealedMemory, memfd};
use mayfly_memory::tables::Tables;

/// Pages that are read, checked and written at a time: 256 KiB stay in a core's cache meanwhile.
const BLOCK_PAGES: usize = 64;
const BLOCK: usize = BLOCK_PAGES * PAGE;
/// Most threads that load at a time; and the number of blocks for which one more thread is worth its start.
const THREADS_MAX: usize = 4;
const BLOCKS_PER_THREAD: usize = 32;

/// An image but for its pages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedImage {
    fingerprint: Fingerprint,
    frames: u64,
    root: u64,
    inbox_first: u64,
    inbox_pages: u64,
    /// The frame onto which a vCPU pushes exceptions.
    stack_frame: Option<u64>,
    entry_value: u64,
    /// Frames with more than one address.
    aliases: Vec<(u64, Vec<u64>)>,
    /// Files that pages are of; windows name them by their place here.
    files: Vec<FileKey>,
    windows: Vec<Window>,
    /// Frames in a row that are not zero: the first of them, and how many.
    runs: Vec<(u64, u64)>,
    /// The checksum of each block of pages.
    sums: Vec<u64>,
}

impl SavedImage {
    /// The keys of the files that pages are of, at the time of saving.
    #[must_use]
    pub fn files(&self) -> &[FileKey] {
        &self.files
    }

    /// How many pages the image has in the file.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn check(&self) -> Result<(), LoadError> {
        let most = SHARED_PHYSICAL / PAGE_SIZE;
        let within = |first: u64, count: u64| first.checked_add(count).is_some_and(|end| end <= self.frames);
        let mut next = 0;
        for &(first, count) in &self.runs {
            if first < next || count == 0 || !within(first, count) {
                return Err(LoadError::Corrupt("runs of pages"));
            }
            next = first + count;
        }
        let sums = self.pages().div_ceil(BLOCK_PAGES as u64);
        let is_sound = self.frames <= most
            && self.root.is_multiple_of(PAGE_SIZE)
            && within(self.root / PAGE_SIZE, 1)
            && self.inbox_pages > 0
            && self.inbox_pages <= INBOX_MAX / PAGE_SIZE + 1
            && within(self.inbox_first, self.inbox_pages)
            && self.stack_frame.is_none_or(|frame| within(frame, 1))
            && self.sums.len() as u64 == sums;
        if is_sound { Ok(()) } else { Err(LoadError::Corrupt("numbers of the image")) }
    }
}

impl Image {
    /// Writes the image's pages to `file` from `offset` on. Keep the returned value with them.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn save(&self, file: &File, offset: u64) -> Result<SavedImage, SaveError> {
        let Frozen { memory, tables, inbox, aliases, source, entry_value } = &*self.frozen;
        if memory.shared().is_some() {
            return Err(SaveError::Shared);
        }
        let (runs, sums) = save_pages(memory, file, offset)?;
        let (files, windows) = memory.files().windows();
        Ok(SavedImage {
            fingerprint: Fingerprint::of(&self.host),
            frames: memory.frames(),
            root: tables.cr3(),
            inbox_first: inbox.first_frame,
            inbox_pages: inbox.pages,
            stack_frame: source.stack_frame(),
            entry_value: *entry_value,
            aliases: aliases.to_list(),
            files,
            windows,
            runs,
            sums,
        })
    }

    /// Makes an image from the pages in `file` from `offset` on. `files` are those of [`SavedImage::files`], in their
    /// order, with their present keys.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Image, Machine};
    /// # use mayfly_machine::{Exit, Origin, Prot, Regs};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let code = [0x0f, 0x05, 0xbf, 7, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xfe];
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// # machine.map_zero(0x40_0000, Prot::READ | Prot::EXEC, Origin::Snapshot)?;
    /// # machine.load(0x40_0000, &code)?;
    /// # machine.set_regs(&Regs { rip: 0x40_0000, ..Regs::default() });
    /// assert_eq!(machine.run()?, Exit::Syscall);
    /// let context = machine.context()?.ok_or("user code")?;
    /// machine.set_context(&context)?;
    /// let file = tempfile::tempfile()?;
    /// let saved = Image::freeze(machine, 0)?.save(&file, 0)?;
    ///
    /// // In another process, `saved` comes from where the caller has kept it.
    /// let image = Image::load(&host, &saved, &file, 0, &[])?;
    /// let mut worker = Machine::fork(&image, 64, &[])?;
    /// assert_eq!(worker.run()?, Exit::Syscall);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what is wrong.
    pub fn load(
        host: &Host,
        saved: &SavedImage,
        file: &File,
        offset: u64,
        files: &[(FileKey, BorrowedFd<'_>)],
    ) -> Result<Self, LoadError> {
        saved.fingerprint.check(host)?;
        saved.check()?;
        let files = FileMemory::restore(&saved.windows, files, host.reach()).ok_or(LoadError::Files)?;
        let mut hold = Hold::new(host.account(), Purpose::Boot);
        if !hold.cover(saved.runs.iter().map(|(_, count)| *count).sum()) {
            return Err(LoadError::Full);
        }
        let memory = load_pages(saved, file, offset, host.reach())?;
        // The clocks in the image are of another time, and perhaps of another host: no program may use them.
        let clocks = saved.inbox_first * PAGE_SIZE + ClockLine::OFFSET;
        let cleared = memory.write_all_at(&[0; ClockLine::BYTES], clocks);
        cleared.map_err(|source| LoadError::Io { what: "filling memory", source })?;
        let memory = SealedMemory::seal(memory.into(), saved.frames, None, Arc::new(files), hold)?;
        let tables = Tables::at(saved.root);
        if !tables.are_sound(&memory, |frame| memory.files().has(frame)) {
            return Err(LoadError::Corrupt("page tables"));
        }
        let aliases: Aliases = saved.aliases.iter().cloned().collect();
        if !aliases.are_in(|address| tables.image_entry(&memory, address)) {
            return Err(LoadError::Corrupt("pages with several addresses"));
        }
        let memory = Arc::new(memory);
        let frozen = Frozen {
            source: host.source(&memory, tables, saved.stack_frame)?,
            memory,
            tables,
            inbox: Inbox { first_frame: saved.inbox_first, pages: saved.inbox_pages },
            aliases,
            entry_value: saved.entry_value,
        };
        Ok(Self { host: host.clone(), frozen: Arc::new(frozen) })
    }
}

type Runs = Vec<(u64, u64)>;

fn save_pages(memory: &SealedMemory, file: &File, offset: u64) -> Result<(Runs, Vec<u64>), SaveError> {
    let read = |source| SaveError::Io { what: "reading the image", source };
    let source = File::from(memory.as_fd().try_clone_to_owned().map_err(read)?);
    let (mut runs, mut sums): (Runs, _) = (Vec::new(), Vec::new());
    let mut block = vec![0; BLOCK];
    let mut packed = Vec::with_capacity(BLOCK);
    let mut at = offset;
    let mut put = |packed: &mut Vec<u8>| {
        sums.push(XxHash3_64::oneshot(packed));
        file.write_all_at(packed, at).map_err(|source| SaveError::Io { what: "writing the pages", source })?;
        at += packed.len() as u64;
        packed.clear();
        Ok::<(), SaveError>(())
    };
    let mut first = 0;
    while first < memory.frames() {
        let count = (memory.frames() - first).min(BLOCK_PAGES as u64);
        let bytes = &mut block[..count as usize * PAGE];
        // `pread` reads holes as zeroes and leaves them holes.
        source.read_exact_at(bytes, first * PAGE_SIZE).map_err(read)?;
        for (page, frame) in bytes.chunks_exact(PAGE).zip(first..) {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            match runs.last_mut() {
                Some((start, count)) if *start + *count == frame => *count += 1,
                _ => runs.push((frame, 1)),
            }
            packed.extend_from_slice(page);
            if packed.len() == BLOCK {
                put(&mut packed)?;
            }
        }
        first += count;
    }
    if !packed.is_empty() {
        put(&mut packed)?;
    }
    Ok((runs, sums))
}

/// The pages, each at its place, in a new memfd.
fn load_pages(saved: &SavedImage, file: &File, offset: u64, reach: Reach) -> Result<File, LoadError> {
    let out = memfd(saved.frames * PAGE_SIZE, reach);
    let out = File::from(out.map_err(|source| LoadError::Io { what: "making memory", source })?);
    // Where each run starts in the file, in pages.
    let mut sum = 0;
    let placed: Vec<(u64, u64, u64)> = saved
        .runs
        .iter()
        .map(|&(first, count)| {
            sum += count;
            (sum - count, first, count)
        })
        .collect();
    let loader = Loader { file, out: &out, offset, placed, total: sum, sums: &saved.sums, next: AtomicUsize::new(0) };
    let most = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let threads = saved.sums.len().div_ceil(BLOCKS_PER_THREAD).clamp(1, most);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, || loader.run()).ok())
            .collect();
        let mine = loader.run();
        others.into_iter().fold(mine, |done, other| {
            let other = other.join().unwrap_or(Err(LoadError::Corrupt("a thread that loads it failed")));
            done.and(other)
        })
    })?;
    Ok(out)
}

struct Loader<'a> {
    file: &'a File,
    out: &'a File,
    offset: u64,
    /// Place in the file, first frame, count; all in pages.
    placed: Vec<(u64, u64, u64)>,
    total: u64,
    sums: &'a [u64],
    /// The next block that no thread has taken yet.
    next: AtomicUsize,
}

impl Loader<'_> {
    fn run(&self) -> Result<(), LoadError> {
        let mut block = vec![0; BLOCK];
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(sum) = self.sums.get(index) else { return Ok(()) };
            let first = index as u64 * BLOCK_PAGES as u64;
            let count = (self.total - first).min(BLOCK_PAGES as u64);
            let bytes = &mut block[..count as usize * PAGE];
            let at = first.checked_mul(PAGE_SIZE).and_then(|at| at.checked_add(self.offset));
            let at = at.ok_or(LoadError::Corrupt("its size"))?;
            self.file.read_exact_at(bytes, at).map_err(|source| match source.kind() {
                std::io::ErrorKind::UnexpectedEof => LoadError::Corrupt("it ends too early"),
                _ => LoadError::Io { what: "reading the pages", source },
            })?;
            if XxHash3_64::oneshot(bytes) != *sum {
                return Err(LoadError::Corrupt("the checksum of its pages"));
            }
            self.put(bytes, first).map_err(|source| LoadError::Io { what: "filling memory", source })?;
        }
    }

    /// Writes the pages that have the numbers from `first` on in the file to their places in memory.
    fn put(&self, mut bytes: &[u8], mut first: u64) -> std::io::Result<()> {
        let past = self.placed.partition_point(|&(place, ..)| place <= first);
        for &(place, frame, count) in &self.placed[past.saturating_sub(1)..] {
            let within = first - place;
            let here = ((count - within) as usize * PAGE).min(bytes.len());
            let (run, rest) = bytes.split_at(here);
            self.out.write_all_at(run, (frame + within) * PAGE_SIZE)?;
            if rest.is_empty() {
                break;
            }
            first += (here / PAGE) as u64;
            bytes = rest;
        }
        Ok(())
    }
}

/// A digest that detects damage, as used in saved images. It does not withstand an attacker who wants a collision.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// As [`checksum`], for values that can be hashed.
///
/// ```
/// use mayfly_engine::digest;
///
/// assert_eq!(digest(&("a", 1)), digest(&("a", 1)));
/// assert_ne!(digest(&("a", 1)), digest(&("a", 2)));
/// ```
#[must_use]
pub fn digest(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = XxHash3_64::new();
    value.hash(&mut hasher);
    hasher.finish()
}
