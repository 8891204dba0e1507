// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's user address space, page by page.
//!
//! # How changes are kept track of
//!
//! A worker's changes are of two kinds, which [`Origin`] distinguishes:
//!
//! - **Sticky** ([`Origin::Snapshot`]): the page belongs to the snapshot's layout. It stays mapped and writable over
//!   resets, and reset restores its content: a copy from the image, or zeroes. These pages are the *work set*.
//! - **Of the request** ([`Origin::Request`], and every unmap, move or change of protection): the old table entry is
//!   kept in the undo log, and reset puts it back.
//!
//! A page of a file is the page cache's, read-only, until it is written: then a frame of the machine takes its place,
//! with a copy. A worker that has mapped a page of a file where the snapshot's layout has one keeps it over resets: the
//! program cannot see that.
//!
//! An entry that loses access, or changes its frame, always goes together with [`Memory::take_back`] of its frame:
//! paging-based KVM would not see it otherwise, and hardware KVM would keep it in its TLB.

use std::collections::HashSet;

use mayfly_machine::layout::{LOWER_HALF_END, USER_END, USER_MIN, page_floor};
use mayfly_machine::{BadAddress, CreateError, MemoryError, Origin, PAGE_SIZE, Prot};

use crate::machine::changes::{Birth, WorkPage};
use crate::machine::machine::Machine;
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{ENTRY_COST, Entry};
use mayfly_memory::take_back::Content;

/// Tables that a page may need: all but the root.
const TABLES_A_PAGE: u64 = 3;
/// Protecting or unmapping this many pages takes a few hundred microseconds.
const EXPENSIVE_PAGES: u64 = 4096;

impl Machine {
    pub(super) fn check_range(address: u64, len: u64) -> Result<u64, MemoryError> {
        let range = MemoryError::Range { address, len };
        let end = address.checked_add(len).ok_or(range)?;
        let aligned = address.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE);
        if !aligned || address < USER_MIN || end > USER_END {
            return Err(range);
        }
        Ok(end)
    }

    /// Pages that only this machine has: written pages of the image, fresh pages, and tables made since the fork.
    #[must_use]
    pub fn private_pages(&self) -> u64 {
        self.memory.private_in_use() + self.changes.work_image_pages + self.changes.request_image_frames.len() as u64
    }

    /// Whether the machine's limit and the process's bound allow one more page.
    pub(super) fn check_limit(&mut self) -> Result<(), MemoryError> {
        let pages = self.private_pages();
        if self.changes.recorded && pages >= self.changes.limit_pages {
            return Err(self.changes.limit());
        }
        let wanted = pages.saturating_add(1 + TABLES_A_PAGE + self.inbox_used_pages + self.host_pages);
        if self.memory.cover(wanted) { Ok(()) } else { Err(MemoryError::Full) }
    }

    /// Remembers what `slot`, which is for `address`, held when the request began.
    pub(super) fn record(&mut self, slot: u64, address: u64, old: Entry) {
        if self.changes.recorded {
            self.changes.undo.entry(slot).or_insert((address, old));
        }
    }

    /// Whether a page is present at `address`; one without any access is not.
    #[must_use]
    pub fn is_mapped(&self, address: u64) -> bool {
        self.tables.entry(&self.memory, address).is_present()
    }

    /// The pages of the machine's own in a range that the program can reach, ascending. The cost follows the number of
    /// page tables there, not the length of the range.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # use mayfly_machine::{Origin, Prot};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// machine.map_zero(0x50_1000, Prot::READ, Origin::Snapshot)?;
    /// assert_eq!(machine.own_pages(0x50_0000, 1 << 40), [0x50_1000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn own_pages(&mut self, address: u64, len: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let end = address.saturating_add(len).min(USER_END);
        let visited = self.tables.for_each(&mut self.memory, address, end, &mut |memory, address, _, entry| {
            let is_own = |frame| frame < memory.frames() && !memory.is_zero_frame(frame);
            if entry.is_user() && entry.frame().is_some_and(is_own) {
                found.push(address);
            }
            Ok(())
        });
        debug_assert!(visited.is_ok(), "the visitor does not fail");
        found
    }

    /// Whether protecting, unmapping or moving the pages of a range takes more than some hundreds of microseconds, at
    /// some tens of nanoseconds a page.
    #[must_use]
    pub fn is_expensive(&self, address: u64, len: u64) -> bool {
        len / PAGE_SIZE > EXPENSIVE_PAGES
            && self.tables.is_more_than(
                &self.memory,
                address,
                address.saturating_add(len),
                EXPENSIVE_PAGES * ENTRY_COST,
            )
    }

    /// Maps one fresh zero page.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// use mayfly_machine::{MemoryError, Origin, Prot};
    ///
    /// machine.map_zero(0x50_0000, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
    /// machine.write(0x50_0000, b"data")?;
    /// let again = machine.map_zero(0x50_0000, Prot::READ, Origin::Snapshot);
    /// assert_eq!(again, Err(MemoryError::Exists { address: 0x50_0000 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Exists`] if a page is there already, [`MemoryError::Limit`],
    /// [`MemoryError::Full`].
    pub fn map_zero(&mut self, address: u64, prot: Prot, origin: Origin) -> Result<(), MemoryError> {
        self.map_new(address, prot, origin, &[])
    }

    /// Maps a page that holds `data`, at most a page of it, and zeroes behind. In a worker these pages always belong to
    /// the request: reset removes them, since it could not restore their content.
    ///
    /// # Errors
    ///
    /// As [`Machine::map_zero`].
    pub fn map_filled(&mut self, address: u64, prot: Prot, data: &[u8]) -> Result<(), MemoryError> {
        self.map_new(address, prot, Origin::Request, data)
    }

    /// The table slot for a page that is not there, with the entry that it has. The page may cost nothing, but a table
    /// for it may.
    pub(super) fn vacant(&mut self, address: u64) -> Result<(u64, Entry), MemoryError> {
        self.check_limit()?;
        let slot = self.tables.slot_or_create(&mut self.memory, address).ok_or(self.changes.limit())?;
        let old = Entry(self.memory.read_u64(slot));
        if old.frame().is_some() { Err(MemoryError::Exists { address }) } else { Ok((slot, old)) }
    }

    /// Maps a frame that is not the page's own, read-only until the first write replaces it. Of the snapshot's layout it
    /// stays over resets, since the program cannot tell it from a page that was never touched.
    pub(super) fn map_shared(
        &mut self,
        address: u64,
        prot: Prot,
        origin: Origin,
        frame: u64,
    ) -> Result<(), MemoryError> {
        let (slot, old) = self.vacant(address)?;
        if origin == Origin::Request {
            self.record(slot, address, old);
        }
        self.memory.write_u64(slot, Entry::user(frame, prot).read_only().0);
        Ok(())
    }

    fn map_new(&mut self, address: u64, prot: Prot, origin: Origin, data: &[u8]) -> Result<(), MemoryError> {
        Self::check_range(address, PAGE_SIZE)?;
        self.translations.clear();
        let (slot, old) = self.vacant(address)?;
        // A page that the snapshot has but this request has unmapped must come back as it was.
        let sticky = origin == Origin::Snapshot && !self.changes.undo.contains_key(&slot);
        let frame = self.memory.allocate().ok_or(self.changes.limit())?;
        let data = data.get(..PAGE_SIZE as usize).unwrap_or(data);
        if !data.is_empty() {
            self.memory.copy_in(frame * PAGE_SIZE, data);
        }
        if self.changes.recorded {
            if sticky {
                self.changes.work.push(WorkPage { address, frame, prot, birth: Birth::Zero });
            } else {
                self.changes.undo.entry(slot).or_insert((address, old));
                self.changes.request_frames.push(frame);
            }
        }
        self.memory.write_u64(slot, Entry::user(frame, prot).0);
        self.cover()
    }

    /// Makes sure that the guest can reach every frame in use.
    pub(super) fn cover(&mut self) -> Result<(), MemoryError> {
        self.processor.cover(&self.memory).map_err(|error| match error {
            CreateError::Call { source, .. } => MemoryError::Host { errno: source.raw_os_error().unwrap_or(0) },
            _ => self.changes.limit(),
        })
    }

    /// Makes one present page writable, a copy of it if it is a file's; the caller has checked that the program may
    /// write it.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Absent`], [`MemoryError::Limit`].
    pub fn make_writable(&mut self, address: u64, origin: Origin) -> Result<(), MemoryError> {
        Self::check_range(address, PAGE_SIZE)?;
        let absent = MemoryError::Absent { address };
        let slot = self.tables.slot(&self.memory, address).ok_or(absent)?;
        let old = Entry(self.memory.read_u64(slot));
        let frame = old.frame().filter(|_| old.is_present()).ok_or(absent)?;
        if old.is_writable() {
            return Ok(());
        }
        self.translations.clear();
        if self.memory.is_file(frame) {
            return self.copy_file_page(address, slot, old, origin, frame);
        }
        if self.memory.is_zero_frame(frame) {
            return self.replace_zeroes(address, slot, old, origin);
        }
        if self.changes.recorded && self.memory.is_image(frame) {
            self.check_limit()?;
            if origin == Origin::Snapshot && !self.changes.undo.contains_key(&slot) {
                let prot =
                    if old.is_executable() { Prot::READ | Prot::WRITE | Prot::EXEC } else { Prot::READ | Prot::WRITE };
                // By the image's list too: a request may have unmapped the others, which a reset brings back.
                let frozen = self.frozen.as_ref().is_some_and(|frozen| !frozen.aliases.of(frame).is_empty());
                let is_aliased = frozen || !self.changes.aliases.of(frame).is_empty();
                // It may be in the work set already, by another address.
                if !is_aliased || self.changes.work_aliases.insert(frame) {
                    self.changes.work.push(WorkPage { address, frame, prot, birth: Birth::Image });
                    self.changes.work_image_pages += 1;
                }
            } else {
                self.changes.undo.entry(slot).or_insert((address, old));
                self.changes.request_image_frames.insert(frame);
            }
        } else {
            self.record(slot, address, old);
        }
        if !self.memory.owns(frame) {
            self.memory.own(frame);
            self.processor.forget(address);
            self.forget_aliases(&[frame]);
        }
        self.memory.write_u64(slot, old.writable().0);
        Ok(())
    }

    /// Gives the present and parked pages of a range another protection. A page becomes writable at its next write
    /// fault only.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # use mayfly_machine::{Origin, PAGE_SIZE, Prot};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// machine.map_zero(0x50_0000, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
    /// machine.protect(0x50_0000, PAGE_SIZE, Prot::READ)?;
    /// assert!(machine.write(0x50_0000, b"refused").is_err());
    /// machine.make_writable(0x50_0000, Origin::Snapshot)?;
    /// machine.write(0x50_0000, b"allowed")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Host`].
    pub fn protect(&mut self, address: u64, len: u64, prot: Prot) -> Result<(), MemoryError> {
        self.edit(&[(address, len)], Content::Keep, &mut |memory, recorded, entry| {
            let new = entry.with_prot(prot);
            // The first write to an image page must fault, so that it is recorded.
            let image = recorded && entry.frame().is_some_and(|frame| memory.is_image(frame));
            let shared = entry.frame().is_some_and(|frame| memory.is_file(frame) || memory.is_zero_frame(frame));
            if shared || (image && !entry.is_writable()) { new.read_only() } else { new }
        })
    }

    /// Removes the pages of a range; what they held is lost, until reset brings back what the snapshot has there.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Host`].
    pub fn unmap(&mut self, address: u64, len: u64) -> Result<(), MemoryError> {
        self.edit(&[(address, len)], Content::Drop, &mut |_, _, _| Entry::EMPTY)
    }

    /// As [`Machine::unmap`], of several ranges (addresses and lengths) at once: for `MADV_DONTNEED` on anonymous
    /// memory, whose next touch finds a zero page.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Host`].
    pub fn discard(&mut self, ranges: &[(u64, u64)]) -> Result<(), MemoryError> {
        self.edit(ranges, Content::Drop, &mut |_, _, _| Entry::EMPTY)
    }

    /// Replaces every non-empty entry of some ranges by `change(entry)`, and does once for all of them what a downgrade
    /// needs.
    fn edit(
        &mut self,
        ranges: &[(u64, u64)],
        content: Content,
        change: &mut dyn FnMut(&Memory, bool, Entry) -> Entry,
    ) -> Result<(), MemoryError> {
        for (address, len) in ranges {
            Self::check_range(*address, *len)?;
        }
        self.translations.clear();
        let mut downgraded = std::mem::take(&mut self.changes.scratch);
        downgraded.clear();
        // Frames that keep other addresses.
        let mut kept = Vec::new();
        let Self { changes, processor, .. } = self;
        for (address, len) in ranges {
            self.tables.for_each(&mut self.memory, *address, address + len, &mut |memory, address, slot, old| {
                let new = change(memory, changes.recorded, old);
                if new == old {
                    return Ok(());
                }
                if changes.recorded {
                    changes.undo.entry(slot).or_insert((address, old));
                }
                if content == Content::Drop
                    && !changes.aliases.is_empty()
                    && let Some(frame) = old.frame().filter(|frame| changes.aliases.remove(*frame, address))
                {
                    kept.push(frame);
                    processor.forget(address);
                } else if !old.is_upgrade_to(new) || content == Content::Drop {
                    downgraded.extend(old.frame());
                    processor.forget(address);
                }
                memory.write_u64(slot, new.0);
                Ok(())
            })?;
        }
        self.memory.take_back(&mut kept, Content::Keep)?;
        let drops = content == Content::Drop;
        // In a worker, dropping the content can wait: a reset restores the snapshot's pages, and the request's are
        // zeroed when they are used again.
        let later = drops && self.changes.recorded && self.memory.are_scattered(&mut downgraded);
        let result = self.memory.take_back(&mut downgraded, if later { Content::Keep } else { content });
        if drops && result.is_ok() {
            self.release_unowned(&downgraded, later);
        }
        self.changes.scratch = downgraded;
        result
    }

    /// Frees those of `frames` (in no table) that nothing will restore: all at boot, the request's own in a worker.
    /// `dirty`: they are unreachable, but keep their content.
    fn release_unowned(&mut self, frames: &[u64], dirty: bool) {
        if !self.changes.recorded {
            let own = frames.iter().filter(|frame| **frame < self.memory.frames());
            for frame in own.copied().collect::<Vec<_>>() {
                self.memory.release(frame);
            }
            return;
        }
        let memory = &mut self.memory;
        let gone: HashSet<u64> = frames.iter().copied().collect();
        self.changes.request_frames.retain(|frame| {
            let free = gone.contains(frame);
            match (free, dirty) {
                (true, true) => memory.release_dirty(*frame),
                (true, false) => memory.release(*frame),
                (false, _) => {}
            }
            !free
        });
    }

    /// Moves the pages of a range to another, empty one, for `mremap`.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # use mayfly_machine::{Origin, PAGE_SIZE, Prot};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// machine.map_filled(0x50_0000, Prot::READ, b"moves")?;
    /// machine.move_pages(0x50_0000, 0x60_0000, PAGE_SIZE)?;
    /// let mut seen = [0; 5];
    /// machine.read(0x60_0000, &mut seen)?;
    /// assert_eq!(&seen, b"moves");
    /// assert!(!machine.is_mapped(0x50_0000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Exists`] if the destination is not empty, [`MemoryError::Limit`] if its
    /// tables do not fit (then some pages may have moved already), [`MemoryError::Host`].
    pub fn move_pages(&mut self, from: u64, to: u64, len: u64) -> Result<(), MemoryError> {
        let end = Self::check_range(from, len)?;
        let to_end = Self::check_range(to, len)?;
        self.translations.clear();
        self.tables
            .for_each(&mut self.memory, to, to_end, &mut |_, address, _, _| Err(MemoryError::Exists { address }))?;
        let mut pages = Vec::new();
        self.tables.for_each(&mut self.memory, from, end, &mut |_, address, slot, entry| {
            pages.push((address, slot, entry));
            Ok(())
        })?;
        let mut frames = Vec::with_capacity(pages.len());
        for (address, slot, entry) in pages {
            let target =
                self.tables.slot_or_create(&mut self.memory, to + (address - from)).ok_or(self.changes.limit())?;
            self.record(slot, address, entry);
            self.record(target, to + (address - from), Entry::EMPTY);
            self.processor.forget(address);
            self.memory.write_u64(slot, Entry::EMPTY.0);
            self.memory.write_u64(target, entry.0);
            if let Some(frame) = entry.frame() {
                self.changes.aliases.rename(frame, address, to + (address - from));
                if self.memory.is_shared_file(frame) {
                    self.changes.shared_files.note(to + (address - from));
                }
                frames.push(frame);
            }
        }
        self.memory.take_back(&mut frames, Content::Keep)?;
        self.cover()
    }

    /// Calls `access(memory, guest-physical address, offset, len)` for each page's part of a user range; it returns
    /// whether it succeeded.
    fn for_user_pages(
        &self,
        address: u64,
        len: usize,
        allowed: impl Fn(Entry) -> bool,
        mut access: impl FnMut(&Memory, u64, usize, usize) -> bool,
    ) -> Result<(), BadAddress> {
        let mut at = address;
        let mut done = 0;
        while done < len {
            let entry = self.translations.get(at, || self.tables.entry(&self.memory, at));
            let frame = entry.frame().filter(|_| allowed(entry)).ok_or(BadAddress { address: at })?;
            let within = at - page_floor(at);
            let part = (len - done).min((PAGE_SIZE - within) as usize);
            if !access(&self.memory, frame * PAGE_SIZE + within, done, part) {
                return Err(BadAddress { address: at });
            }
            done += part;
            at = at.checked_add(part as u64).ok_or(BadAddress { address: at })?;
            // The tables ignore bits 48 and up; a guest address must not wrap around them.
            if done < len && at >= LOWER_HALF_END {
                return Err(BadAddress { address: at });
            }
        }
        Ok(())
    }

    fn check_canonical(address: u64) -> Result<(), BadAddress> {
        if address < LOWER_HALF_END { Ok(()) } else { Err(BadAddress { address }) }
    }

    /// Copies user memory out, once.
    ///
    /// # Errors
    ///
    /// [`BadAddress`] if a page is not present for the user; `out` may be partly written then.
    #[inline]
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), BadAddress> {
        Self::check_canonical(address)?;
        self.for_user_pages(address, out.len(), Entry::is_user, |memory, physical, done, part| {
            memory.copy_out(physical, &mut out[done..done + part])
        })
    }

    /// Copies into user memory, to pages that the program can write now.
    ///
    /// # Errors
    ///
    /// [`BadAddress`] if a page is not present or not writable; earlier pages may have been written then.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), BadAddress> {
        Self::check_canonical(address)?;
        let allowed = |entry: Entry| entry.is_user() && entry.is_writable();
        self.for_user_pages(address, data.len(), allowed, |memory, physical, done, part| {
            memory.copy_in(physical, &data[done..done + part])
        })
    }

    /// Copies into present user pages whether or not the program may write them: for loading a program at boot.
    ///
    /// # Errors
    ///
    /// [`BadAddress`] if a page is not present or a file's, or if the machine is a worker, whose pages are shared until
    /// they are recorded.
    pub fn load(&mut self, address: u64, data: &[u8]) -> Result<(), BadAddress> {
        if self.changes.recorded {
            return Err(BadAddress { address });
        }
        Self::check_canonical(address)?;
        self.for_user_pages(address, data.len(), Entry::is_user, |memory, physical, done, part| {
            memory.copy_in(physical, &data[done..done + part])
        })
    }
}
