// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of files in a machine's address space: the page cache's, read-only, until they are written. See `space.rs`.

use mayfly_machine::{FilePages, MemoryError, Origin, PAGE_SIZE, Prot};

use crate::machine::changes::{Birth, WorkPage};
use crate::machine::machine::Machine;
use mayfly_memory::tables::Entry;
use mayfly_memory::take_back::Content;

impl Machine {
    /// Maps pages of a file from the page cache, from `address` on; they become readable and executable as `prot` says,
    /// and writable by [`Machine::make_writable`] only, which copies them. Pages that are there already are left alone.
    ///
    /// Returns how many of the first pages are there now. It stops at the file's end, and where its pages cannot come
    /// from the page cache: a worker has those parts of files that its boot touched, and some file systems have no
    /// mappings. Copy those with [`Machine::map_filled`].
    ///
    /// # Errors
    ///
    /// As [`Machine::map_zero`], for the first page; an error of a later one ends the loop early.
    pub fn map_file(
        &mut self,
        address: u64,
        prot: Prot,
        origin: Origin,
        pages: &FilePages<'_>,
    ) -> Result<u64, MemoryError> {
        let len = pages.count.saturating_mul(PAGE_SIZE);
        Self::check_range(address, len)?;
        self.translations.clear();
        let mut done = 0;
        while done < pages.count {
            let Some(number) = pages.first.checked_add(done) else { break };
            let frame = match self.memory.files_mut() {
                Some(files) => files.frame_or_map(pages.file, pages.key, number),
                None => self.memory.file_frame(pages.key, number),
            };
            let Some(frame) = frame else { break };
            match self.map_shared(address + done * PAGE_SIZE, prot, origin, frame) {
                Ok(()) | Err(MemoryError::Exists { .. }) => done += 1,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.cover()?;
        Ok(done)
    }

    /// Whether the page at `address` is a file's, from the page cache.
    #[must_use]
    pub fn is_file_page(&self, address: u64) -> bool {
        self.tables.entry(&self.memory, address).frame().is_some_and(|frame| self.memory.is_file(frame))
    }

    /// Replaces a file's frame by one of the machine's, with a copy.
    pub(crate) fn copy_file_page(
        &mut self,
        address: u64,
        slot: u64,
        old: Entry,
        origin: Origin,
        from: u64,
    ) -> Result<(), MemoryError> {
        self.check_limit()?;
        // A file that was truncated and has lost the page is a failure of the host, not of the program.
        let lost = MemoryError::Host { errno: libc::EFAULT };
        let recorded = self.changes.recorded;
        let content = if recorded { Some(self.memory.files().pristine(from).ok_or(lost)?) } else { None };
        let frame = self.memory.allocate().ok_or(self.changes.limit())?;
        let prot = if old.is_executable() { Prot::READ | Prot::WRITE | Prot::EXEC } else { Prot::READ | Prot::WRITE };
        match &content {
            Some(content) => self.memory.fill(frame, content),
            None => {
                let mut page = [0; PAGE_SIZE as usize];
                if !self.memory.files().read(from * PAGE_SIZE, &mut page) {
                    self.memory.release(frame);
                    return Err(lost);
                }
                self.memory.fill(frame, &page);
            }
        }
        if let Some(content) = content {
            if origin == Origin::Snapshot && !self.changes.undo.contains_key(&slot) {
                let birth = Birth::File { frame: from, content };
                self.changes.work.push(WorkPage { address, frame, prot, birth });
            } else {
                self.changes.undo.entry(slot).or_insert((address, old));
                self.changes.request_frames.push(frame);
            }
        }
        self.memory.write_u64(slot, Entry::user(frame, prot).0);
        self.processor.forget(address);
        self.memory.take_back(&mut [from], Content::Keep)?;
        self.cover()
    }

    /// Maps a copy of a file's frame at `address`, in a worker that has not run yet.
    pub(crate) fn prepare_file_copy(&mut self, address: u64, prot: Prot, from: u64) -> Result<(), MemoryError> {
        if !self.memory.is_file(from) {
            return Err(MemoryError::Absent { address });
        }
        Self::check_range(address, PAGE_SIZE)?;
        self.check_limit()?;
        self.translations.clear();
        let slot = self.tables.slot_or_create(&mut self.memory, address).ok_or(self.changes.limit())?;
        let old = Entry(self.memory.read_u64(slot));
        if old.frame().is_some_and(|frame| frame != from) {
            return Err(MemoryError::Exists { address });
        }
        let content = self.memory.files().pristine(from).ok_or(MemoryError::Absent { address })?;
        let frame = self.memory.allocate().ok_or(self.changes.limit())?;
        self.memory.fill(frame, &content);
        self.changes.work.push(WorkPage { address, frame, prot, birth: Birth::File { frame: from, content } });
        self.memory.write_u64(slot, Entry::user(frame, prot).0);
        self.cover()
    }
}
