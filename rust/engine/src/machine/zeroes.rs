// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that a worker has only read, and that read as zero: all of them share one frame.
//!
//! Such a page takes no memory but its part of a page table. Like a file's page, it is read-only in the tables, and the
//! first write replaces it by a frame of its own. A program cannot tell it from a page that was never touched, so one
//! that belongs to the snapshot's layout stays over resets.

use mayfly_machine::{MemoryError, Origin, PAGE_SIZE, Prot};
use mayfly_memory::tables::Entry;
use mayfly_memory::take_back::Content;

use crate::machine::changes::{Birth, WorkPage};
use crate::machine::machine::Machine;

impl Machine {
    /// Maps up to `pages` pages from `address` on that read as zero, without memory for them;
    /// [`Machine::make_writable`] gives a page a frame of its own. Stops before a page that is there.
    ///
    /// Returns how many were mapped. Only workers share the frame: a boot gets one page with a frame, since what it
    /// reads becomes the image.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # use mayfly_machine::{Origin, Prot};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// let mapped = machine.map_zeroes(0x50_0000, 4, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
    /// assert_eq!(mapped, 1, "a boot");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemoryError::Range`], [`MemoryError::Exists`] if there is a page at `address`, and [`MemoryError::Limit`] or
    /// [`MemoryError::Full`] if there is no memory for the first page's tables; an error of a later page ends the loop.
    pub fn map_zeroes(&mut self, address: u64, pages: u64, prot: Prot, origin: Origin) -> Result<u64, MemoryError> {
        let len = pages.saturating_mul(PAGE_SIZE);
        Self::check_range(address, len)?;
        if !self.changes.recorded {
            return self.map_zero(address, prot, origin).map(|()| 1);
        }
        self.translations.clear();
        self.check_limit()?;
        let zeroes = self.memory.zero_frame().ok_or(self.changes.limit())?;
        for done in 0..pages {
            match self.map_shared(address + done * PAGE_SIZE, prot, origin, zeroes) {
                Ok(()) => {}
                Err(error) if done == 0 => return Err(error),
                Err(_) => {
                    self.cover()?;
                    return Ok(done);
                }
            }
        }
        self.cover()?;
        Ok(pages)
    }

    /// Replaces the shared frame of zeroes behind `address` by one of the page's own.
    pub(super) fn replace_zeroes(
        &mut self,
        address: u64,
        slot: u64,
        old: Entry,
        origin: Origin,
    ) -> Result<(), MemoryError> {
        self.check_limit()?;
        let shared = old.frame();
        let frame = self.memory.allocate().ok_or(self.changes.limit())?;
        let prot = old.prot() | Prot::WRITE;
        // A page that the snapshot has but this request has unmapped must come back as it was.
        if origin == Origin::Snapshot && !self.changes.undo.contains_key(&slot) {
            self.changes.work.push(WorkPage { address, frame, prot, birth: Birth::Zero });
        } else {
            self.changes.undo.entry(slot).or_insert((address, old));
            self.changes.request_frames.push(frame);
        }
        self.memory.write_u64(slot, Entry::user(frame, prot).0);
        self.processor.forget(address);
        let mut stale: Vec<u64> = shared.into_iter().collect();
        self.memory.take_back(&mut stale, Content::Keep)?;
        self.cover()
    }
}
