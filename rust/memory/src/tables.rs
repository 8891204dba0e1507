// SPDX-License-Identifier: MIT OR Apache-2.0
//! 4-level page tables in guest memory (Intel SDM vol. 3A, 5.5; AMD APM vol. 2, 5.3).
//!
//! Only the host writes them: no guest mapping of a table page exists at CPL 3. Accessed and dirty bits are set from
//! the start, so that neither processor nor KVM ever writes to a table, which would cost a worker a private copy of it.
//!
//! Paging-based KVM does not see a downgrade of an entry by itself. This module only edits entries;
//! who calls it pairs every downgrade with [`crate::memory::Memory::take_back`].

mod residency;

use std::collections::{HashMap, HashSet};

use mayfly_machine::{EnginePage, MemoryError, PAGE_SIZE, Prot};

use crate::files::is_file;
use crate::layout::PAGE;
use crate::memory::Memory;
use crate::sealed::SealedMemory;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Software bit: the entry names a frame of a page that the program has made inaccessible.
const PARKED: u64 = 1 << 9;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;
const LEVELS: u32 = 4;
const ENTRIES: u64 = 512;
/// The cost of changing an entry, in multiples of the cost of looking at an empty one.
pub const ENTRY_COST: u64 = 32;

/// A leaf entry of the page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(/** The entry as the processor reads it. */ pub u64);

impl Entry {
    /// No page.
    pub const EMPTY: Self = Self(0);

    /// A page of the program's.
    pub fn user(frame: u64, prot: Prot) -> Self {
        Self((frame * PAGE_SIZE) | PARKED).with_prot(prot)
    }

    /// A page of the guest kernel's.
    pub fn supervisor(frame: u64, prot: Prot) -> Self {
        Self(Self::user(frame, prot).0 & !USER)
    }

    /// The same frame under another protection; without access the entry is parked.
    pub fn with_prot(self, prot: Prot) -> Self {
        let frame = self.0 & FRAME_MASK;
        if prot == Prot::NONE {
            return Self(frame | PARKED);
        }
        let write = if prot.contains(Prot::WRITE) { WRITE } else { 0 };
        let no_execute = if prot.contains(Prot::EXEC) { 0 } else { NO_EXECUTE };
        Self(frame | PRESENT | USER | ACCESSED | DIRTY | write | no_execute)
    }

    /// The same, and writable.
    pub fn writable(self) -> Self {
        Self(self.0 | WRITE)
    }

    /// The same, and not writable.
    pub fn read_only(self) -> Self {
        Self(self.0 & !WRITE)
    }

    /// Whether there is a page, with some access.
    pub fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether it can be written.
    pub fn is_writable(self) -> bool {
        self.0 & (PRESENT | WRITE) == PRESENT | WRITE
    }

    /// Whether the program can reach it.
    pub fn is_user(self) -> bool {
        self.0 & (PRESENT | USER) == PRESENT | USER
    }

    /// Whether it can be executed.
    pub fn is_executable(self) -> bool {
        self.is_present() && self.0 & NO_EXECUTE == 0
    }

    /// What the program may do with it.
    #[must_use]
    pub fn prot(self) -> Prot {
        if !self.is_user() {
            return Prot::NONE;
        }
        let write = if self.is_writable() { Prot::WRITE } else { Prot::NONE };
        let execute = if self.is_executable() { Prot::EXEC } else { Prot::NONE };
        Prot::READ | write | execute
    }

    /// The frame that the entry names, whether it is present or parked.
    pub fn frame(self) -> Option<u64> {
        (self.0 & (PRESENT | PARKED) != 0).then_some((self.0 & FRAME_MASK) / PAGE_SIZE)
    }

    /// Whether replacing `self` by `new` takes no access away and keeps the frame, so that no cached translation can be
    /// stale.
    pub fn is_upgrade_to(self, new: Self) -> bool {
        if !self.is_present() {
            return true;
        }
        new.is_present()
            && self.frame() == new.frame()
            && (new.is_writable() || !self.is_writable())
            && (new.is_executable() || !self.is_executable())
            && (new.is_user() || !self.is_user())
    }
}

/// Pages in a row with frames in a row, all with the same access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first page's address.
    pub address: u64,
    /// Its frame.
    pub frame: u64,
    /// How many.
    pub pages: u64,
    /// What the program may do with them.
    pub prot: Prot,
}

impl Run {
    /// Whether a page with this frame and access is the run's next.
    #[must_use]
    pub fn is_followed_by(&self, address: u64, frame: u64, prot: Prot) -> bool {
        address == self.address + self.pages * PAGE_SIZE && frame == self.frame + self.pages && prot == self.prot
    }
}

/// Puts pages together to runs.
#[derive(Debug, Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn add(&mut self, address: u64, frame: u64, prot: Prot) {
        match self.0.last_mut() {
            Some(last) if last.is_followed_by(address, frame, prot) => last.pages += 1,
            _ => self.0.push(Run { address, frame, pages: 1, prot }),
        }
    }
}

/// Gives the frames that a table names other numbers; those that have none, such as files', keep theirs.
pub(crate) fn renumber(table: &mut [u8; PAGE], level: u32, number: &HashMap<u64, u64>) {
    for bytes in table.as_chunks_mut::<8>().0 {
        let entry = u64::from_le_bytes(*bytes);
        let names_one = if level > 0 { entry & PRESENT != 0 } else { Entry(entry).frame().is_some() };
        if names_one && let Some(new) = number.get(&((entry & FRAME_MASK) / PAGE_SIZE)) {
            *bytes = ((entry & !FRAME_MASK) | (new * PAGE_SIZE)).to_le_bytes();
        }
    }
}

/// Called with memory, address, slot and entry of a leaf.
pub type Visit<'a> = &'a mut dyn FnMut(&mut Memory, u64, u64, Entry) -> Result<(), MemoryError>;

/// The root of a machine's page tables.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    root: u64,
}

impl Tables {
    /// Makes an empty set of tables.
    pub fn new(memory: &mut Memory) -> Option<Self> {
        memory.allocate().map(|frame| Self { root: frame * PAGE_SIZE })
    }

    /// Existing tables, with this value of CR3.
    pub fn at(root: u64) -> Self {
        Self { root }
    }

    /// Maps an engine's own pages, each to a new frame; `None` if there are not enough frames.
    #[must_use]
    pub fn map_engine_pages(self, memory: &mut Memory, pages: &[EnginePage]) -> Option<()> {
        for page in pages {
            let frame = memory.allocate()?;
            let entry = if page.user { Entry::user(frame, page.prot) } else { Entry::supervisor(frame, page.prot) };
            let slot = self.slot_or_create(memory, page.address)?;
            memory.write_u64(slot, entry.0);
            memory.slice_mut(frame * PAGE_SIZE, page.bytes.len()).copy_from(&page.bytes[..]);
        }
        Some(())
    }

    /// The value of CR3.
    pub fn cr3(self) -> u64 {
        self.root
    }

    /// Whether these tables, which come from a file, only name the image's own frames and those that `is_known`
    /// accepts. Later walks rely on that.
    pub fn are_sound(self, image: &SealedMemory, is_known: impl Fn(u64) -> bool) -> bool {
        let mut left = image.frames();
        Self::sound_below(image, self.root, LEVELS - 1, &mut left, &is_known)
    }

    /// `left`: how many more tables there can be, if none is named twice.
    fn sound_below(
        image: &SealedMemory,
        table: u64,
        level: u32,
        left: &mut u64,
        is_known: &impl Fn(u64) -> bool,
    ) -> bool {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        (0..ENTRIES).all(|index| {
            let Some(entry) = image.word(table + index * 8) else { return false };
            if level > 0 {
                let below = entry & FRAME_MASK;
                entry & PRESENT == 0 || Self::sound_below(image, below, level - 1, left, is_known)
            } else {
                Entry(entry).frame().is_none_or(|frame| frame < image.frames() || is_known(frame))
            }
        })
    }

    /// The pages of the machine's own that the program may reach, from `start` on.
    #[must_use]
    pub fn runs_from(self, memory: &Memory, start: u64) -> Vec<Run> {
        let mut runs = Runs::default();
        let word = |address| memory.read_u64(address);
        Self::add_runs(&word, memory.frames(), self.root, (LEVELS - 1, 0, start), &mut runs);
        runs.0
    }

    /// All pages of the machine's own that the program may reach.
    #[must_use]
    pub fn runs(self, memory: &Memory) -> Vec<Run> {
        self.runs_from(memory, 0)
    }

    /// The pages of an image that its program may reach.
    #[must_use]
    pub fn image_runs(self, image: &SealedMemory) -> Vec<Run> {
        let mut runs = Runs::default();
        let word = |address| image.word(address).unwrap_or(0);
        Self::add_runs(&word, image.frames(), self.root, (LEVELS - 1, 0, 0), &mut runs);
        runs.0
    }

    /// The pages of an image that are files', and that its program may reach: address and entry.
    #[must_use]
    pub fn image_file_pages(self, image: &SealedMemory) -> Vec<(u64, Entry)> {
        let mut pages = Vec::new();
        Self::add_file_pages(image, self.root, LEVELS - 1, 0, &mut pages);
        pages
    }

    /// The leaf entry of an image for `address`.
    #[must_use]
    pub fn image_entry(self, image: &SealedMemory, address: u64) -> Entry {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            match image.word(table + Self::index(address, level) * 8) {
                Some(entry) if entry & PRESENT != 0 => table = entry & FRAME_MASK,
                _ => return Entry::EMPTY,
            }
        }
        Entry(image.word(table + Self::index(address, 0) * 8).unwrap_or(0))
    }

    fn add_file_pages(image: &SealedMemory, table: u64, level: u32, base: u64, pages: &mut Vec<(u64, Entry)>) {
        for (address, slot) in Self::entries_for(table, level, base, 0, u64::MAX) {
            let entry = image.word(slot).unwrap_or(0);
            if level > 0 {
                if entry & PRESENT != 0 {
                    Self::add_file_pages(image, entry & FRAME_MASK, level - 1, address, pages);
                }
            } else if Entry(entry).is_user() && Entry(entry).frame().is_some_and(is_file) {
                pages.push((address, Entry(entry)));
            }
        }
    }

    fn add_runs(
        word: &impl Fn(u64) -> u64,
        frames: u64,
        table: u64,
        (level, base, start): (u32, u64, u64),
        runs: &mut Runs,
    ) {
        for (address, slot) in Self::entries_for(table, level, base, start, u64::MAX) {
            let entry = word(slot);
            if level > 0 {
                if entry & PRESENT != 0 {
                    Self::add_runs(word, frames, entry & FRAME_MASK, (level - 1, address, start), runs);
                }
            } else if Entry(entry).is_user()
                && let Some(frame) = Entry(entry).frame().filter(|frame| *frame < frames)
            {
                runs.add(address, frame, Entry(entry).prot());
            }
        }
    }

    /// Every frame of `memory`'s own that these tables name, once, pages in the order of their addresses first, then the
    /// tables, each with its level.
    #[must_use]
    pub(crate) fn frames(self, memory: &Memory) -> Vec<(u64, Option<u32>)> {
        let (mut pages, mut tables) = (Vec::new(), Vec::new());
        Self::collect(memory, self.root, LEVELS - 1, &mut pages, &mut tables);
        // A frame with several addresses stays at the first of them.
        let mut seen = HashSet::with_capacity(pages.len());
        pages.retain(|(frame, _)| seen.insert(*frame));
        pages.append(&mut tables);
        pages
    }

    fn collect(
        memory: &Memory,
        table: u64,
        level: u32,
        pages: &mut Vec<(u64, Option<u32>)>,
        tables: &mut Vec<(u64, Option<u32>)>,
    ) {
        tables.push((table / PAGE_SIZE, Some(level)));
        for index in 0..ENTRIES {
            let entry = memory.read_u64(table + index * 8);
            if level > 0 {
                if entry & PRESENT != 0 {
                    Self::collect(memory, entry & FRAME_MASK, level - 1, pages, tables);
                }
            } else if let Some(frame) = Entry(entry).frame().filter(|frame| *frame < memory.frames()) {
                pages.push((frame, None));
            }
        }
    }

    fn index(address: u64, level: u32) -> u64 {
        (address >> (12 + 9 * level)) & (ENTRIES - 1)
    }

    /// Guest-physical address of the leaf entry for `address`, if its table exists.
    #[inline]
    pub fn slot(self, memory: &Memory, address: u64) -> Option<u64> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            let entry = memory.read_u64(table + Self::index(address, level) * 8);
            if entry & PRESENT == 0 {
                return None;
            }
            table = entry & FRAME_MASK;
        }
        Some(table + Self::index(address, 0) * 8)
    }

    /// The frames of the image that the first write to `address` changes: the last table on the way there, and the page
    /// itself if the image has it. Read from the image and not from `memory`, whose pages must not be touched before
    /// they are populated.
    pub fn image_frames(self, memory: &Memory, address: u64) -> (Option<u64>, Option<u64>) {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            match memory.image_u64(table + Self::index(address, level) * 8) {
                Some(entry) if entry & PRESENT != 0 => table = entry & FRAME_MASK,
                _ => return (Some(table / PAGE_SIZE), None),
            }
        }
        let leaf = memory.image_u64(table + Self::index(address, 0) * 8).map(Entry);
        (Some(table / PAGE_SIZE), leaf.and_then(Entry::frame))
    }

    /// As [`Tables::slot`], making the tables on the way.
    pub fn slot_or_create(self, memory: &mut Memory, address: u64) -> Option<u64> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            let at = table + Self::index(address, level) * 8;
            let entry = memory.read_u64(at);
            table = if entry & PRESENT == 0 {
                let frame = memory.allocate_table()?;
                // Upper levels grant everything; the leaf decides.
                memory.write_u64(at, (frame * PAGE_SIZE) | PRESENT | WRITE | USER | ACCESSED | DIRTY);
                frame * PAGE_SIZE
            } else {
                entry & FRAME_MASK
            };
        }
        Some(table + Self::index(address, 0) * 8)
    }

    /// The leaf entry for `address`.
    #[inline]
    pub fn entry(self, memory: &Memory, address: u64) -> Entry {
        self.slot(memory, address).map_or(Entry::EMPTY, |slot| Entry(memory.read_u64(slot)))
    }

    /// Calls `visit(memory, address, slot, entry)` for every non-empty leaf entry in `[start, end)`, in order.
    ///
    /// The cost follows the number of tables that exist, not the length of the range.
    pub fn for_each(self, memory: &mut Memory, start: u64, end: u64, visit: Visit<'_>) -> Result<(), MemoryError> {
        Self::for_each_below(memory, self.root, LEVELS - 1, 0, start, end, visit)
    }

    /// Whether [`Tables::for_each`] would look at more than `most` entries of `[start, end)`, where an entry that is
    /// not empty counts [`ENTRY_COST`] times. It stops when it knows.
    pub fn is_more_than(self, memory: &Memory, start: u64, end: u64, most: u64) -> bool {
        let mut left = most;
        Self::weigh_below(memory, self.root, LEVELS - 1, 0, start, end, &mut left).is_none()
    }

    /// Entries of a table at `level`, whose first one is for `base`, that are for a part of `[start, end)`: the
    /// address, and the slot.
    fn entries_for(table: u64, level: u32, base: u64, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let span = PAGE_SIZE << (9 * level);
        let first = start.saturating_sub(base) / span;
        let all = (first..ENTRIES).map(move |index| (base + index * span, table + index * 8));
        all.take_while(move |(address, _)| *address < end)
    }

    /// `None`: `left` is used up.
    fn weigh_below(
        memory: &Memory,
        table: u64,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
        left: &mut u64,
    ) -> Option<()> {
        for (address, slot) in Self::entries_for(table, level, base, start, end) {
            let entry = memory.read_u64(slot);
            let is_page = level == 0 && entry != 0;
            *left = left.checked_sub(if is_page { ENTRY_COST } else { 1 })?;
            if level != 0 && entry & PRESENT != 0 {
                Self::weigh_below(memory, entry & FRAME_MASK, level - 1, address, start, end, left)?;
            }
        }
        Some(())
    }

    fn for_each_below(
        memory: &mut Memory,
        table: u64,
        level: u32,
        base: u64,
        start: u64,
        end: u64,
        visit: Visit<'_>,
    ) -> Result<(), MemoryError> {
        for (address, slot) in Self::entries_for(table, level, base, start, end) {
            let entry = memory.read_u64(slot);
            if level == 0 {
                if entry != 0 {
                    visit(memory, address, slot, Entry(entry))?;
                }
            } else if entry & PRESENT != 0 {
                Self::for_each_below(memory, entry & FRAME_MASK, level - 1, address, start, end, visit)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parked_entry_keeps_its_frame_and_grants_nothing() {
        let entry = Entry::user(5, Prot::READ | Prot::WRITE).with_prot(Prot::NONE);
        assert!(!entry.is_present());
        assert_eq!(entry.frame(), Some(5));
        assert!(entry.with_prot(Prot::READ).is_user());
    }

    #[test]
    fn supervisor_pages_are_not_user_pages() {
        let entry = Entry::supervisor(1, Prot::READ | Prot::EXEC);
        assert!(entry.is_present() && entry.is_executable() && !entry.is_user());
    }

    fn any_prot() -> impl Strategy<Value = Prot> {
        (0u64..8).prop_map(|bits| Prot::from_bits(bits).unwrap())
    }

    proptest! {
        #[test]
        fn an_upgrade_never_takes_access_away(frame in 0u64..4, a in any_prot(), b in any_prot()) {
            let (old, new) = (Entry::user(frame, a), Entry::user(frame, b));
            let takes = (old.is_present() && !new.is_present())
                || (old.is_writable() && !new.is_writable())
                || (old.is_executable() && !new.is_executable());
            prop_assert_eq!(old.is_upgrade_to(new), !takes);
        }

        #[test]
        fn entries_are_found_where_they_were_put(pages in prop::collection::vec(0u64..(1 << 35), 1..40), from in 0u64..(1 << 35), len in 0u64..(1 << 35)) {
            let mut memory = Memory::boot(1 + 40 * 4, &crate::ledger::Account::default(), crate::layout::Reach::Mapping).unwrap();
            let tables = Tables::new(&mut memory).unwrap();
            let mut model = BTreeMap::new();
            for (number, page) in pages.iter().enumerate() {
                let address = page * PAGE_SIZE;
                let entry = Entry::user(number as u64, Prot::READ);
                let slot = tables.slot_or_create(&mut memory, address).unwrap();
                memory.write_u64(slot, entry.0);
                model.insert(address, entry);
            }
            for (address, entry) in &model {
                prop_assert_eq!(tables.entry(&memory, *address), *entry);
            }
            let (start, end) = (from * PAGE_SIZE, (from + len) * PAGE_SIZE);
            let mut seen = Vec::new();
            tables.for_each(&mut memory, start, end, &mut |_, address, _, entry| { seen.push((address, entry)); Ok(()) }).unwrap();
            let expected: Vec<_> = model.range(start..end).map(|(a, e)| (*a, *e)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
