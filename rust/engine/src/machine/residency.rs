// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of the program's address space is resident.
//!
//! A worker keeps pages over resets that the frozen program did not have: zero pages of its work set, and pages of
//! files. The count must not reveal what an earlier request touched. Of these pages, those of files never count, and the
//! others count as soon as they have content. The same holds for pages that were mapped ahead of a request. As on Linux,
//! the one frame of zeroes never counts.

use mayfly_machine::PAGE_SIZE;
use mayfly_machine::layout::{USER_END, USER_MIN};

use crate::machine::machine::Machine;
use mayfly_memory::tables::Entry;

/// Budget for [`Machine::residency`] of a thread that may not block: reading this many words takes some hundred
/// microseconds. It is enough for the tables of 2 GiB without gaps, or for 1,024 zero pages.
pub const RESIDENCY_AT_ONCE: u64 = 1 << 19;

/// Resident pages of a range, those without access included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residency {
    /// Pages of the machine's own, shared memory included.
    pub own: u64,
    /// Pages of the page cache.
    pub file: u64,
}

impl Machine {
    /// The resident pages of a range. Lowers `left` by the number of words that it reads; `None` if that is too small.
    pub fn residency(&self, address: u64, len: u64, left: &mut u64) -> Option<Residency> {
        let range = (address.max(USER_MIN), address.saturating_add(len).min(USER_END));
        let mut found = Residency::default();
        self.tables.look(&self.memory, range, left, &mut |slot, entry, left| {
            let Some(frame) = entry.frame() else { return Some(()) };
            let is_file = self.memory.is_file(frame);
            if self.shows(slot, frame, is_file, left)? {
                *(if is_file { &mut found.file } else { &mut found.own }) += 1;
            }
            Some(())
        })?;
        Some(found)
    }

    /// Whether the page at `address` is resident, as the program may see it.
    #[must_use]
    pub fn is_resident(&self, address: u64) -> bool {
        let mut left = u64::MAX;
        self.residency(address, PAGE_SIZE, &mut left).is_some_and(|found| found != Residency::default())
    }

    /// Whether a page counts that a worker's entry names; lowers `left` by the words that it reads.
    fn shows(&self, slot: u64, frame: u64, is_file: bool, left: &mut u64) -> Option<bool> {
        let was_frozen = || self.memory.image_u64(slot).is_some_and(|word| Entry(word).frame().is_some());
        let is_elsewhere = !is_file && frame >= self.memory.frames();
        if self.memory.is_zero_frame(frame) {
            return Some(false);
        }
        if !self.changes.recorded || is_elsewhere || was_frozen() {
            return Some(true);
        }
        if is_file {
            return Some(self.changes.undo.contains_key(&slot));
        }
        let start = frame * PAGE_SIZE;
        let words = (0..PAGE_SIZE / 8).map(|word| self.memory.read_u64(start + word * 8));
        for word in words {
            *left = left.checked_sub(1)?;
            if word != 0 {
                return Some(true);
            }
        }
        Some(false)
    }
}
