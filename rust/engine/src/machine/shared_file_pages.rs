// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of files that are mapped shared: the page cache's own, which the program writes as the host does.
//!
//! They are no part of the machine's memory: not of its limit, its work set, its image, or what a reset restores. A
//! reset removes them from the tables and unmaps their windows; what was written stays the file's.

use mayfly_machine::layout::{USER_END, USER_MIN};
use mayfly_machine::{MemoryError, PAGE_SIZE, Prot, RunError, SharedFile};
use mayfly_memory::tables::Entry;

use crate::machine::changes::{SharedFilePages, TABLE_BYTES};
use crate::machine::machine::Machine;

/// How often a program may meet a page that its file has lost, or that cannot be read, before something else is taken
/// to be wrong. Each time costs it a fault.
const LOSSES_MAX: u32 = 64;
/// Limits on the pages that are mapped at a time, on the runs of neighbours that they form, and on their tables, so
/// that removing them takes a bounded time. At a limit all of them are removed; a fault maps again what the program
/// needs.
const PAGES_MAX: u64 = 16_384;
const RUNS_MAX: u64 = 256;
const TABLES_MAX: usize = 256;

impl Machine {
    /// Maps `count` pages of a file from `first` on at `address`, as they are: what the program writes to them is
    /// written to the file. Pages that are there already are left alone. `file_pages` is how long the file is; pages
    /// behind its end must not be mapped. They never belong to the snapshot: a reset and a freeze remove them.
    ///
    /// All other such pages may be removed for these, which the program needs.
    ///
    /// Returns how many of the first pages are there now.
    ///
    /// # Errors
    ///
    /// As [`Machine::map_zero`], for the first page; [`MemoryError::Limit`] if too many files are mapped, or none can
    /// be in a machine of this size, and [`MemoryError::Host`] if this file cannot be mapped.
    pub fn map_shared_file(
        &mut self,
        address: u64,
        prot: Prot,
        file: &SharedFile,
        pages: (u64, u64),
        file_pages: u64,
    ) -> Result<u64, MemoryError> {
        if !self.has_room_for(address, pages.1) {
            self.remove_shared_file_pages()?;
        }
        match self.map_shared_file_pages(address, prot, file, pages, file_pages) {
            Err(MemoryError::Limit { .. }) if self.has_shared_files() => {
                self.remove_shared_file_pages()?;
                self.map_shared_file_pages(address, prot, file, pages, file_pages)
            }
            result => result,
        }
    }

    /// Maps pages of a file as [`Machine::map_shared_file`] does, if there is room for them beside those that are there
    /// already.
    pub fn map_shared_file_ahead(
        &mut self,
        address: u64,
        prot: Prot,
        file: &SharedFile,
        pages: (u64, u64),
        file_pages: u64,
    ) {
        if self.has_room_for(address, pages.1) {
            let _ = self.map_shared_file_pages(address, prot, file, pages, file_pages);
        }
    }

    /// Whether so many pages can be mapped without removing others.
    fn has_room_for(&self, address: u64, count: u64) -> bool {
        let shared = &self.changes.shared_files;
        let len = count.saturating_mul(PAGE_SIZE);
        shared.pages.saturating_add(count) <= PAGES_MAX
            && (shared.runs < RUNS_MAX || self.continues_shared_files(address, len))
            && (shared.tables.len() < TABLES_MAX
                || (shared.has_noted(address) && shared.has_noted(address.saturating_add(len.saturating_sub(1)))))
    }

    /// Whether there is such a page next to a range.
    fn continues_shared_files(&self, address: u64, len: u64) -> bool {
        let [before, after] = [address.checked_sub(PAGE_SIZE), address.checked_add(len)];
        [before, after].into_iter().flatten().any(|page| page < USER_END && self.is_shared_file_page(page))
    }

    fn map_shared_file_pages(
        &mut self,
        address: u64,
        prot: Prot,
        file: &SharedFile,
        (first, count): (u64, u64),
        file_pages: u64,
    ) -> Result<u64, MemoryError> {
        Self::check_range(address, count.saturating_mul(PAGE_SIZE))?;
        let prot = if file.writable { prot } else { prot.without(Prot::WRITE) };
        self.translations.clear();
        if !self.continues_shared_files(address, count.saturating_mul(PAGE_SIZE)) {
            self.changes.shared_files.runs += 1;
        }
        let mut done = 0;
        while done < count {
            match self.map_shared_file_page(address + done * PAGE_SIZE, prot, file, first + done, file_pages) {
                Ok(()) | Err(MemoryError::Exists { .. }) => done += 1,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.cover()?;
        Ok(done)
    }

    fn map_shared_file_page(
        &mut self,
        address: u64,
        prot: Prot,
        file: &SharedFile,
        page: u64,
        file_pages: u64,
    ) -> Result<(), MemoryError> {
        let (slot, old) = self.vacant(address)?;
        let frame = self.shared_file_frame(file, page, file_pages)?;
        self.record(slot, address, old);
        self.changes.shared_files.note(address);
        self.changes.shared_files.pages += 1;
        self.memory.write_u64(slot, Entry::user(frame, prot).0);
        Ok(())
    }

    fn shared_file_frame(&mut self, file: &SharedFile, page: u64, file_pages: u64) -> Result<u64, MemoryError> {
        let files = self.memory.shared_files_mut().ok_or(self.changes.limit())?;
        files.frame_or_map(file, page, file_pages).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) | None => self.changes.limit(),
            Some(errno) => MemoryError::Host { errno },
        })
    }

    /// Finds out whether a page of a file can be mapped shared, now that nothing depends on it. Pages that are mapped
    /// may be removed for it.
    ///
    /// # Errors
    ///
    /// As [`Machine::map_shared_file`].
    pub fn check_shared_file(&mut self, file: &SharedFile, page: u64, file_pages: u64) -> Result<(), MemoryError> {
        match self.shared_file_frame(file, page, file_pages) {
            Err(MemoryError::Limit { .. }) if self.has_shared_files() => {
                self.remove_shared_file_pages()?;
                self.shared_file_frame(file, page, file_pages)
            }
            result => result,
        }
        .map(|_| ())
    }

    /// Whether files are mapped shared.
    #[inline]
    #[must_use]
    pub fn has_shared_files(&self) -> bool {
        !self.memory.shared_files().is_empty()
    }

    /// Whether the page at `address` is one of a file that is mapped shared.
    #[must_use]
    pub fn is_shared_file_page(&self, address: u64) -> bool {
        self.tables.entry(&self.memory, address).frame().is_some_and(|frame| self.memory.is_shared_file(frame))
    }

    /// Forgets files that are mapped shared, but for those that `keeps` keeps: none of the others' pages is in the
    /// address space any more.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Host`] if the kernel refuses.
    pub fn retain_shared_files(&mut self, keeps: impl Fn(&SharedFile) -> bool) -> Result<(), MemoryError> {
        if !self.has_shared_files() {
            return Ok(());
        }
        let host = |error: std::io::Error| MemoryError::Host { errno: error.raw_os_error().unwrap_or(0) };
        self.memory.shared_files_mut().map_or(Ok(()), |files| files.retain(keeps)).map_err(host)
    }

    /// Removes all pages of files that are mapped shared. The next access to one faults.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Host`] if the kernel refuses; the machine must not be used again then.
    #[inline]
    pub fn unmap_shared_files(&mut self) -> Result<(), MemoryError> {
        if self.has_shared_files() { self.remove_shared_file_pages() } else { Ok(()) }
    }

    /// A leg begins: pages that files lose are counted from here on.
    #[inline]
    pub fn forget_losses(&mut self) {
        self.changes.shared_files.losses = 0;
    }

    #[cold]
    fn remove_shared_file_pages(&mut self) -> Result<(), MemoryError> {
        let mut found = Vec::new();
        self.changes.shared_files.pages = 0;
        self.changes.shared_files.runs = 0;
        for start in std::mem::take(&mut self.changes.shared_files.tables) {
            let (from, to) = (start.max(USER_MIN), (start + TABLE_BYTES).min(USER_END));
            self.tables.for_each(&mut self.memory, from, to, &mut |memory, address, _, entry| {
                if entry.frame().is_some_and(|frame| memory.is_shared_file(frame)) {
                    found.push((address, PAGE_SIZE));
                }
                Ok(())
            })?;
        }
        self.discard(&found)?;
        self.retain_shared_files(|_| false)
    }

    /// After a reset or before a freeze, with no page left in the tables.
    pub(crate) fn end_shared_files(&mut self) -> Result<(), MemoryError> {
        self.changes.shared_files = SharedFilePages::default();
        self.retain_shared_files(|_| false)
    }

    /// The processor could not reach memory that the tables allow. If that can be a file's page that is gone, all such
    /// pages are removed, and the program continues with a fault. The fault's handler checks the file.
    #[cold]
    pub(super) fn meet_lost_page(&mut self, error: RunError) -> Result<(), RunError> {
        let can_be = error.source.raw_os_error() == Some(libc::EFAULT) && self.has_shared_files();
        let losses = &mut self.changes.shared_files.losses;
        *losses = losses.saturating_add(1);
        if !can_be || *losses > LOSSES_MAX || self.remove_shared_file_pages().is_err() {
            return Err(error);
        }
        Ok(())
    }
}
