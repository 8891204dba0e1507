// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the pages of a range that are present.

use super::{Entry, FRAME_MASK, LEVELS, PRESENT, Tables};
use crate::memory::Memory;

/// Present pages of a range, those without access included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Residency {
    /// Pages of the machine's own, shared memory included.
    pub own: u64,
    /// Pages of the page cache.
    pub file: u64,
}

impl Residency {
    /// Both kinds.
    #[must_use]
    pub fn pages(self) -> u64 {
        self.own + self.file
    }
}

impl Tables {
    /// The present pages of `[start, end)`. `None` if more than `tables` last-level tables exist there: the cost is some
    /// hundred nanoseconds for each.
    #[must_use]
    pub fn residency(self, memory: &Memory, start: u64, end: u64, mut tables: u64) -> Option<Residency> {
        let mut found = Residency::default();
        Self::count_below(memory, self.root, LEVELS - 1, 0, (start, end), &mut tables, &mut found)?;
        Some(found)
    }

    fn count_below(
        memory: &Memory,
        table: u64,
        level: u32,
        base: u64,
        (start, end): (u64, u64),
        tables: &mut u64,
        found: &mut Residency,
    ) -> Option<()> {
        if level == 0 {
            *tables = tables.checked_sub(1)?;
        }
        for (address, slot) in Self::entries_for(table, level, base, start, end) {
            let entry = memory.read_u64(slot);
            if level > 0 {
                if entry & PRESENT != 0 {
                    let below = entry & FRAME_MASK;
                    Self::count_below(memory, below, level - 1, address, (start, end), tables, found)?;
                }
            } else if let Some(frame) = Entry(entry).frame() {
                if memory.is_file(frame) {
                    found.file += 1;
                } else {
                    found.own += 1;
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use mayfly_machine::{PAGE_SIZE, Prot};

    use super::*;
    use crate::files;

    #[test]
    fn pages_are_counted_by_kind_and_tables_are_bounded() {
        let account = crate::ledger::Account::default();
        let mut memory = Memory::boot(64, &account, crate::layout::Reach::Mapping).unwrap();
        let tables = Tables::new(&mut memory).unwrap();
        let mut put = |page: u64, entry: Entry| {
            let slot = tables.slot_or_create(&mut memory, page * PAGE_SIZE).unwrap();
            memory.write_u64(slot, entry.0);
        };
        put(3, Entry::user(7, Prot::READ));
        put(4, Entry::user(8, Prot::READ).with_prot(Prot::NONE));
        put(5, Entry::user(files::FIRST_FRAME, Prot::READ));
        put(5000, Entry::user(9, Prot::READ | Prot::WRITE));
        let count = |from: u64, to: u64, most| tables.residency(&memory, from * PAGE_SIZE, to * PAGE_SIZE, most);
        assert_eq!(count(0, 1 << 30, 2), Some(Residency { own: 3, file: 1 }));
        assert_eq!(count(0, 1 << 30, 2).map(Residency::pages), Some(4));
        assert_eq!(count(4, 5, 1), Some(Residency { own: 1, file: 0 }));
        assert_eq!(count(6, 5000, 2), Some(Residency::default()));
        assert_eq!(count(0, 1 << 30, 1), None);
    }
}
