// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest-physical memory: one host mapping and memslot of the machine's own, and others for shared memory and for
//! files.
//!
//! ```text
//! boot machine      [ memfd, MAP_SHARED: what the program touches becomes the image              ]
//! worker            [ image frames: the sealed memfd, MAP_PRIVATE ][ private frames: anonymous     ]
//! worker, by files  [ a file of its own, MAP_SHARED; frames that it has not written: the image's view ]
//!                   0                                             image_frames                frames
//! ```
//!
//! A processor reaches its memory in one of two ways ([`Reach`]). A virtual machine uses the host's own mapping: the
//! kernel copies an image's page at the first write, and takes translations away when the mapping changes. A process
//! maps the same files as the host: there the host copies the image's page into the worker's file ([`Memory::own`]),
//! and the processor's owner has the process map it.
//!
//! # Invariants
//!
//! - Guest memory is never a Rust reference: every access is a bounds-checked copy through [`VolatileSlice`].
//! - No vCPU of the machine runs while the host touches its memory: both need `&mut Machine` or `&Machine` of an idle
//!   one. Only in shared memory other machines' vCPUs may be writing meanwhile.
//! - Frames of files are read only, through [`FileMemory`]; nothing here makes an address within them. Those of files
//!   that are mapped shared are read and written through [`SharedFiles`] alone.
//! - A frame that is handed out by [`Memory::allocate`] reads as zero.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use mayfly_machine::{CreateError, FileKey, FreezeError, Mapping, MemoryError, PAGE_SIZE, SharedMemory};
use vm_memory::VolatileSlice;

use crate::files::{self, FileMemory};
use crate::frames::FramesInUse;
use crate::layout::{PAGE, Reach, SHARED_PHYSICAL};
use crate::ledger::{Account, Hold, Purpose};
use crate::sealed::{Owned, SealedMemory, memfd};
use crate::shared_files::{SharedFiles, is_shared_file};

/// Frames in more runs than this lie scattered: see `take_back.rs`.
pub const RUNS_MAX: usize = 64;

/// What a machine's memory is backed by.
#[derive(Debug)]
pub(crate) enum Backing {
    /// A boot: what it writes becomes the image.
    Boot(OwnedFd),
    /// A worker, whose mapping is private over the image's.
    Fork(Arc<SealedMemory>),
    /// A worker with a file of its own, which holds the frames that it has written.
    File {
        /// The image.
        image: Arc<SealedMemory>,
        /// The worker's file, as long as all its frames, until its processor has it.
        file: Option<OwnedFd>,
    },
}

/// A machine's memory.
#[derive(Debug)]
pub struct Memory {
    pub(crate) mapping: Mapping,
    pub(crate) backing: Backing,
    /// The image's view, which `backing` keeps alive; null at boot. A copy, since every reset needs it.
    pristine: *const u8,
    pub(crate) image_frames: u64,
    pub(crate) frames: u64,
    /// How the processor reaches it.
    reach: Reach,
    /// With a file of the worker's own: the image's frames that are in it.
    owned: Option<Owned>,
    /// Page tables that were made for it.
    pub(crate) tables: u64,
    /// Frames (first, count) that always are.
    shown: (u64, u64),
    /// Which frames are in use.
    pub(crate) in_use: FramesInUse,
    /// What lies at [`SHARED_PHYSICAL`].
    shared: Option<SharedMemory>,
    /// What lies at [`crate::layout::FILES_PHYSICAL`]; at boot this machine's alone.
    pub(crate) files: Arc<FileMemory>,
    /// What lies at [`crate::layout::SHARED_FILES_PHYSICAL`].
    pub(crate) shared_files: SharedFiles,
    /// What it takes from the process's bound on memory.
    hold: Hold,
    /// [`RUNS_MAX`]; tests that need scattered frames of a small program lower it.
    pub runs_max: usize,
}

// SAFETY: `pristine` points into a mapping of the process that is never written; the rest is `Send` by itself.
unsafe impl Send for Memory {}

impl Memory {
    /// Memory for a boot: `frames` pages of a new memfd, none of them used yet.
    pub fn boot(frames: u64, account: &Account, reach: Reach) -> Result<Self, CreateError> {
        let mut hold = Hold::new(account, Purpose::Boot);
        if !hold.cover_machine(reach) {
            return Err(MemoryError::Full.into());
        }
        let bytes = frames * PAGE_SIZE;
        let memfd = memfd(bytes, reach).map_err(CreateError::map(bytes))?;
        let mapping = Mapping::new(
            bytes as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            memfd.as_raw_fd(),
        )
        .map_err(CreateError::map(bytes))?;
        Ok(Self {
            mapping,
            backing: Backing::Boot(memfd),
            pristine: ptr::null(),
            image_frames: 0,
            frames,
            reach,
            owned: None,
            shown: (0, 0),
            tables: 0,
            in_use: FramesInUse::first(0),
            shared: None,
            files: Arc::new(FileMemory::new(reach)),
            shared_files: SharedFiles::default(),
            hold,
            runs_max: RUNS_MAX,
        })
    }

    /// Memory of a worker: the image, copy-on-write, and `private` further pages.
    pub fn fork(image: &Arc<SealedMemory>, private: u64, hold: Hold) -> Result<Self, CreateError> {
        let frames = image.frames() + private;
        let bytes = frames * PAGE_SIZE;
        let mapping = Mapping::new(
            bytes as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
        )
        .map_err(CreateError::map(bytes))?;
        mapping.overlay_private(image.view().len(), image.as_fd().as_raw_fd()).map_err(CreateError::map(bytes))?;
        // A worker's pages come and go one by one; a huge page would copy 2 MiB for each first write.
        // SAFETY: advice on our own mapping.
        unsafe { libc::madvise(mapping.address().cast(), mapping.len(), libc::MADV_NOHUGEPAGE) };
        let backing = Backing::Fork(Arc::clone(image));
        Ok(Self::worker(mapping, backing, image, frames, hold))
    }

    /// As [`Memory::fork`], for a processor that reaches it by files. The `shown` frames (first, count), which the host
    /// writes and the program reads, are the worker's own from the start, and zero.
    ///
    /// # Errors
    ///
    /// As for [`Memory::fork`].
    pub fn fork_file(
        image: &Arc<SealedMemory>,
        private: u64,
        shown: (u64, u64),
        hold: Hold,
    ) -> Result<Self, CreateError> {
        let frames = image.frames() + private;
        let bytes = frames * PAGE_SIZE;
        let file = memfd(bytes, Reach::Files).map_err(CreateError::map(bytes))?;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
        let mapping = Mapping::new(bytes as usize, prot, flags, file.as_raw_fd()).map_err(CreateError::map(bytes))?;
        // SAFETY: advice on our own mapping.
        unsafe { libc::madvise(mapping.address().cast(), mapping.len(), libc::MADV_NOHUGEPAGE) };
        let mut owned = Owned::new(image.frames());
        (shown.0..shown.0 + shown.1).for_each(|frame| owned.set(frame, true));
        let backing = Backing::File { image: Arc::clone(image), file: Some(file) };
        let owned = Some(owned);
        Ok(Self { owned, shown, reach: Reach::Files, ..Self::worker(mapping, backing, image, frames, hold) })
    }

    fn worker(mapping: Mapping, backing: Backing, image: &SealedMemory, frames: u64, hold: Hold) -> Self {
        Self {
            mapping,
            backing,
            pristine: image.view().address(),
            image_frames: image.frames(),
            frames,
            reach: Reach::Mapping,
            owned: None,
            tables: 0,
            shown: (0, 0),
            in_use: FramesInUse::first(image.frames()),
            shared: image.shared().cloned(),
            files: image.keep_files(),
            shared_files: SharedFiles::default(),
            hold,
            runs_max: RUNS_MAX,
        }
    }

    /// How the processor reaches it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// The image, of a worker.
    #[must_use]
    pub fn image(&self) -> Option<&Arc<SealedMemory>> {
        match &self.backing {
            Backing::Boot(_) => None,
            Backing::Fork(image) | Backing::File { image, .. } => Some(image),
        }
    }

    /// The file that holds the machine's own frames, each at its place, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Boot(file) => Some(file.as_fd()),
            Backing::File { file, .. } => file.as_ref().map(AsFd::as_fd),
            Backing::Fork(_) => None,
        }
    }

    /// Closes a worker's file, which its processor has mapped: descriptors are few.
    pub fn close_file(&mut self) {
        if let Backing::File { file, .. } = &mut self.backing {
            *file = None;
        }
    }

    /// Whether `frame` is in the machine's own file, and not the image's. Where the processor reaches memory through
    /// the host's mapping, the kernel knows.
    #[inline]
    #[must_use]
    pub fn owns(&self, frame: u64) -> bool {
        match &self.owned {
            Some(owned) => frame >= self.image_frames || owned.has(frame),
            None => true,
        }
    }

    /// Copies a frame of the image into the machine's own file, if it is not there yet: before the first write to it.
    #[inline]
    pub fn own(&mut self, frame: u64) {
        if !self.owns(frame) {
            self.copy_from_image(frame);
        }
    }

    #[cold]
    fn copy_from_image(&mut self, frame: u64) {
        self.restore(frame);
    }

    /// Frames of the image are the image's again, whose content in the machine's own file is about to go.
    pub(crate) fn disown(&mut self, first: u64, count: u64) {
        let (shown, shown_count) = self.shown;
        if let Some(owned) = &mut self.owned {
            let frames = (first..first + count).filter(|frame| !(shown..shown + shown_count).contains(frame));
            frames.for_each(|frame| owned.set(frame, false));
        }
    }

    /// Where the host finds the bytes at a guest-physical address, which lies within the memory.
    #[inline]
    fn place(&self, address: u64) -> *const u8 {
        let base = if self.owns(address / PAGE_SIZE) { self.mapping.address().cast_const() } else { self.pristine };
        base.wrapping_add(address as usize)
    }

    /// Turns a boot's memory into a sealed image of the frames used so far.
    pub fn seal(self) -> Result<SealedMemory, FreezeError> {
        let Self { mapping, backing, in_use, shared, files, mut hold, .. } = self;
        // The virtual machine is gone already.
        hold.end_machine();
        let Backing::Boot(memfd) = backing else {
            return Err(FreezeError::State("a worker's memory cannot be frozen".into()));
        };
        // F_SEAL_WRITE is refused while a writable shared mapping exists.
        drop(mapping);
        SealedMemory::seal(memfd, in_use.next, shared, files, hold)
    }

    /// Ends a boot's memory: what an image keeps of it besides its frames.
    pub(crate) fn into_kept(self) -> (Option<SharedMemory>, Arc<FileMemory>, Hold) {
        let Self { mapping, shared, files, mut hold, .. } = self;
        hold.end_machine();
        drop(mapping);
        (shared, files, hold)
    }

    /// Puts a shared region at [`SHARED_PHYSICAL`]. There is none yet.
    pub fn share(&mut self, shared: &SharedMemory) {
        debug_assert!(self.shared.is_none(), "one region a machine");
        self.shared = Some(shared.clone());
    }

    /// The memory that all machines of the program share, if it has any.
    pub fn shared(&self) -> Option<&SharedMemory> {
        self.shared.as_ref()
    }

    /// The files whose pages it has.
    pub fn files(&self) -> &FileMemory {
        &self.files
    }

    /// As [`Memory::files`], while the machine boots.
    pub fn files_mut(&mut self) -> Option<&mut FileMemory> {
        // A larger machine's own frames would overlap the files' addresses.
        let can = matches!(self.backing, Backing::Boot(_)) && self.bytes() <= SHARED_PHYSICAL;
        if can { Arc::get_mut(&mut self.files) } else { None }
    }

    /// The files that are mapped shared.
    pub fn shared_files(&self) -> &SharedFiles {
        &self.shared_files
    }

    /// As [`Memory::shared_files`], to map some; `None` if the machine's own frames lie there.
    pub fn shared_files_mut(&mut self) -> Option<&mut SharedFiles> {
        (self.bytes() <= SHARED_PHYSICAL).then_some(&mut self.shared_files)
    }

    /// Whether `frame` is a page of a file that is mapped shared.
    #[inline]
    pub fn is_shared_file(&self, frame: u64) -> bool {
        is_shared_file(frame) && frame >= self.frames
    }

    /// The frame of a page of a file that is mapped already.
    pub fn file_frame(&self, key: FileKey, page: u64) -> Option<u64> {
        self.files.frame(key, page)
    }

    /// Where the host has the first frame; only for memslots.
    pub fn host_address(&self) -> u64 {
        self.mapping.address() as u64
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.frames * PAGE_SIZE
    }

    /// How many frames it may use.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many frames came with the image: the first ones.
    pub fn image_frames(&self) -> u64 {
        self.image_frames
    }

    /// Whether `frame` came with the image.
    pub fn is_image(&self, frame: u64) -> bool {
        frame < self.image_frames
    }

    /// Whether `frame` is a page of a file.
    #[inline]
    pub fn is_file(&self, frame: u64) -> bool {
        files::is_file(frame) && frame >= self.frames
    }

    /// Takes the memory for `private_pages` pages from the process's bound; `false` if the bound is reached.
    #[inline]
    pub fn cover(&mut self, private_pages: u64) -> bool {
        self.hold.cover(private_pages.saturating_add(self.hold.overhead()))
    }

    /// Gives back what is taken beyond `private_pages` pages.
    #[inline]
    pub fn settle(&mut self, private_pages: u64) {
        self.hold.settle(private_pages.saturating_add(self.hold.overhead()));
    }

    /// What the machine takes from the process's bound on memory.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Pages that are taken from now on are a request's.
    pub fn serve_requests(&mut self) {
        self.hold.set_purpose(Purpose::Request);
    }

    /// Copies the image's content back into `frame`, which must be an image frame of a worker.
    #[inline]
    pub fn restore(&mut self, frame: u64) {
        // At boot there are no image frames, so `pristine` is not null behind this.
        assert!(frame < self.image_frames, "only image frames have pristine content");
        if let Some(owned) = &mut self.owned {
            owned.set(frame, true);
        }
        let offset = frame as usize * PAGE;
        // SAFETY: `frame` is below the image's length, which both mappings cover; they are distinct mappings, so they
        // do not overlap; the vCPU does not run, so nothing else accesses the destination.
        unsafe {
            ptr::copy_nonoverlapping(self.pristine.add(offset), self.mapping.address().add(offset), PAGE);
        }
    }

    /// Puts a page's content into `frame`.
    #[inline]
    pub fn fill(&mut self, frame: u64, page: &files::Page) {
        assert!(frame < self.frames, "frame within memory");
        // SAFETY: within the mapping, and `page` lies outside of it; the vCPU does not run.
        unsafe {
            ptr::copy_nonoverlapping(page.as_ptr(), self.mapping.address().add(frame as usize * PAGE), PAGE);
        }
    }

    /// Fills `frame` with zeroes.
    #[inline]
    pub fn zero(&mut self, frame: u64) {
        assert!(frame < self.frames, "frame within memory");
        // SAFETY: within the mapping; the vCPU does not run.
        unsafe { ptr::write_bytes(self.mapping.address().add(frame as usize * PAGE), 0, PAGE) };
    }

    /// Makes frames private to this machine now, so that the first write to them costs nothing. Advice only.
    ///
    /// They must not have been touched before. When a page that is mapped for reading is written, the kernel must
    /// remove it from the guest's tables, and for that it asks every virtual machine of the process: milliseconds once
    /// there are thousands. And reading one page maps its neighbours, too.
    pub fn populate(&self, frames: &mut Vec<u64>) {
        if self.reach == Reach::Files {
            // The host copies these pages itself.
            return;
        }
        frames.sort_unstable();
        frames.dedup();
        for run in frames.chunk_by(|a, b| a + 1 == *b) {
            let (Some(first), bytes) = (run.first(), run.len() * PAGE) else { continue };
            assert!(first * PAGE_SIZE + bytes as u64 <= self.bytes(), "frames within memory");
            // SAFETY: advice on our own mapping, within it by the assertion. It fails before Linux 5.14, which only
            // costs time.
            unsafe {
                let at = self.mapping.address().add(*first as usize * PAGE);
                libc::madvise(at.cast(), bytes, libc::MADV_POPULATE_WRITE);
            }
        }
    }

    /// The guest-physical range as volatile memory, to be read.
    ///
    /// # Panics
    ///
    /// If the range leaves the machine's memory, or has frames of the image in it besides others. Callers pass frames
    /// from the page tables, which only the host writes, one at a time, or the inbox's.
    #[inline]
    pub fn slice(&self, address: u64, len: usize) -> VolatileSlice<'_> {
        let end = address.checked_add(len as u64).filter(|end| *end <= self.bytes());
        let Some(end) = end else { panic!("guest-physical range within memory") };
        let last = end.saturating_sub(1).max(address);
        assert!(self.owns(address / PAGE_SIZE) == self.owns(last / PAGE_SIZE), "a range of one file");
        // SAFETY: the range lies within the mapping, or the image's view, which live as long as `self`; VolatileSlice
        // makes no references. `slice_mut` gives the only slices that are written.
        unsafe { VolatileSlice::new(self.place(address).cast_mut(), len) }
    }

    /// The guest-physical range as volatile memory, to be written.
    ///
    /// # Panics
    ///
    /// As [`Memory::slice`].
    #[inline]
    pub fn slice_mut(&mut self, address: u64, len: usize) -> VolatileSlice<'_> {
        self.own(address / PAGE_SIZE);
        self.slice(address, len)
    }

    /// Copies a guest-physical range out, each byte once; `false` if shared memory or a file has lost it.
    ///
    /// # Panics
    ///
    /// As [`Memory::slice`].
    #[inline]
    pub fn copy_out(&self, address: u64, out: &mut [u8]) -> bool {
        if self.is_file(address / PAGE_SIZE) {
            return self.files.read(address, out);
        }
        if self.is_shared_file(address / PAGE_SIZE) {
            return self.shared_files.read(address, out);
        }
        match self.shared_offset(address) {
            None => {
                self.slice(address, out.len()).copy_to(out);
                true
            }
            Some((shared, offset)) => shared.read(offset, out),
        }
    }

    /// Copies into a guest-physical range, as [`Memory::copy_out`]; never into a file's, or into a frame that is the
    /// image's still.
    #[inline]
    pub fn copy_in(&self, address: u64, data: &[u8]) -> bool {
        if self.is_file(address / PAGE_SIZE) || !self.owns(address / PAGE_SIZE) {
            return false;
        }
        if self.is_shared_file(address / PAGE_SIZE) {
            return self.shared_files.write(address, data);
        }
        match self.shared_offset(address) {
            None => {
                self.slice(address, data.len()).copy_from(data);
                true
            }
            Some((shared, offset)) => shared.write(offset, data),
        }
    }

    /// Where `address` lies in the shared region, if it does.
    #[inline]
    fn shared_offset(&self, address: u64) -> Option<(&SharedMemory, u64)> {
        let offset = address.checked_sub(SHARED_PHYSICAL)?;
        self.shared.as_ref().map(|shared| (shared, offset))
    }

    /// Pointer to an aligned word.
    #[inline]
    fn word(&self, address: u64) -> *const u64 {
        assert!(address < self.bytes() && address.is_multiple_of(8), "aligned word within memory");
        self.place(address).cast()
    }

    /// The aligned word at a guest-physical address.
    #[inline]
    pub fn read_u64(&self, address: u64) -> u64 {
        // SAFETY: valid and aligned by `word`; volatile, as all access to guest memory. One load, where `VolatileSlice`
        // would make eight: page-table walks live on this.
        unsafe { self.word(address).read_volatile() }
    }

    /// Sets the aligned word at a guest-physical address.
    #[inline]
    pub fn write_u64(&mut self, address: u64, value: u64) {
        self.own(address / PAGE_SIZE);
        // SAFETY: as in `read_u64`, and the frame is in the mapping, which can be written; `&mut self` keeps other
        // accesses away.
        unsafe { self.word(address).cast_mut().write_volatile(value) };
    }

    /// The image's aligned word at a guest-physical address, if the image reaches there.
    pub fn image_u64(&self, address: u64) -> Option<u64> {
        self.image()?.word(address)
    }

    /// Whether `frame` holds what the image has there.
    pub fn equals_image(&self, frame: u64) -> bool {
        let Some(image) = self.image() else { return false };
        assert!(frame < self.image_frames, "only image frames have pristine content");
        let mut mine = vec![0u8; PAGE];
        let mut pristine = vec![0u8; PAGE];
        self.slice(frame * PAGE_SIZE, PAGE).copy_to(&mut mine[..]);
        // SAFETY: within the image's view, which lives as long as the `Arc`.
        let view = unsafe { VolatileSlice::new(image.view().address().add(frame as usize * PAGE), PAGE) };
        view.copy_to(&mut pristine[..]);
        mine == pristine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::take_back::Content;

    fn hold() -> Hold {
        Hold::new(&Account::default(), Purpose::Fork)
    }

    #[test]
    fn a_fork_reads_the_image_and_writes_only_its_own_copy() {
        let mut boot = Memory::boot(8, &Account::default(), Reach::Mapping).unwrap();
        let frame = boot.allocate().unwrap();
        boot.write_u64(frame * PAGE_SIZE, 7);
        let image = Arc::new(boot.seal().unwrap());
        let mut a = Memory::fork(&image, 4, hold()).unwrap();
        let b = Memory::fork(&image, 4, hold()).unwrap();
        a.write_u64(frame * PAGE_SIZE, 8);
        assert_eq!(b.read_u64(frame * PAGE_SIZE), 7);
        assert!(!a.equals_image(frame));
        a.restore(frame);
        assert!(a.equals_image(frame));
    }

    #[test]
    fn memory_taken_back_returns_to_what_it_was_born_as() {
        let mut boot = Memory::boot(8, &Account::default(), Reach::Mapping).unwrap();
        let frame = boot.allocate().unwrap();
        boot.write_u64(frame * PAGE_SIZE, 7);
        let gone = boot.allocate().unwrap();
        boot.write_u64(gone * PAGE_SIZE, 9);
        boot.take_back(&mut [gone], Content::Drop).unwrap();
        assert_eq!(boot.read_u64(gone * PAGE_SIZE), 0);
        let image = Arc::new(boot.seal().unwrap());
        let mut fork = Memory::fork(&image, 4, hold()).unwrap();
        let own = fork.allocate().unwrap();
        fork.write_u64(own * PAGE_SIZE, 1);
        fork.write_u64(frame * PAGE_SIZE, 2);
        fork.take_back(&mut [own, frame, own], Content::Keep).unwrap();
        assert_eq!(fork.read_u64(frame * PAGE_SIZE), 2);
        fork.take_back(&mut [own, frame, own, frame], Content::Drop).unwrap();
        assert_eq!((fork.read_u64(own * PAGE_SIZE), fork.read_u64(frame * PAGE_SIZE)), (0, 7));
    }

    #[test]
    fn frames_run_out_and_come_back() {
        let mut memory = Memory::boot(2, &Account::default(), Reach::Mapping).unwrap();
        let (a, b) = (memory.allocate().unwrap(), memory.allocate().unwrap());
        assert_ne!(a, b);
        assert_eq!(memory.allocate(), None);
        memory.release(a);
        assert_eq!(memory.allocate(), Some(a));
    }
}
