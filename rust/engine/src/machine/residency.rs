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

/// Budget for [`Machine::residency`] of a thread that may not block: some hundred microseconds. A unit is about a
/// nanosecond, and the cost of looking at an entry; decision 0290 has the measurements.
pub const RESIDENCY_AT_ONCE: u64 = 1 << 19;

/// The cost of a page besides its entry: where its frame lies, and what the image has.
const PAGE_COST: u64 = 8;
/// The cost of looking up what the request has changed.
const LOOK_UP_COST: u64 = 32;
/// The cost of reading the first word of a page.
const WORD_COST: u64 = 64;
/// The cost of reading all of a page.
const CONTENT_COST: u64 = 1024;

static ZEROES: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// Resident pages of a range, those without access included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residency {
    /// Pages of the machine's own, shared memory included.
    pub own: u64,
    /// Pages of the page cache.
    pub file: u64,
}

impl Machine {
    /// The resident pages of a range. Lowers `left` by what it costs; `None` if that is too small.
    pub fn residency(&self, address: u64, len: u64, left: &mut u64) -> Option<Residency> {
        let range = (address.max(USER_MIN), address.saturating_add(len).min(USER_END));
        let mut found = Residency::default();
        self.tables.look(&self.memory, range, left, &mut |slot, entry, left| {
            let Some(frame) = entry.frame() else { return Some(()) };
            let is_file = self.memory.is_file(frame) || self.memory.is_shared_file(frame);
            if self.shows(slot, frame, is_file, left)? {
                *(if is_file { &mut found.file } else { &mut found.own }) += 1;
            }
            Some(())
        })?;
        Some(found)
    }

    /// Whether a page counts that a worker's entry names; lowers `left` by what it costs.
    fn shows(&self, slot: u64, frame: u64, is_file: bool, left: &mut u64) -> Option<bool> {
        *left = left.checked_sub(PAGE_COST)?;
        let was_frozen = || self.memory.image_u64(slot).is_some_and(|word| Entry(word).frame().is_some());
        let is_elsewhere = !is_file && frame >= self.memory.frames();
        if self.memory.is_zero_frame(frame) {
            return Some(false);
        }
        if !self.changes.recorded || is_elsewhere || was_frozen() {
            return Some(true);
        }
        if is_file {
            *left = left.checked_sub(LOOK_UP_COST)?;
            return Some(self.changes.undo.contains_key(&slot));
        }
        // Content is most often at the start of a page.
        *left = left.checked_sub(WORD_COST)?;
        if self.memory.read_u64(frame * PAGE_SIZE) != 0 {
            return Some(true);
        }
        *left = left.checked_sub(CONTENT_COST)?;
        let mut content = [0; PAGE_SIZE as usize];
        self.memory.slice(frame * PAGE_SIZE, content.len()).copy_to(&mut content[..]);
        Some(content != ZEROES)
    }
}
