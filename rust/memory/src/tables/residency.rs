// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at the entries of a range without changing them.

use super::{Entry, FRAME_MASK, LEVELS, PRESENT, Tables};
use crate::memory::Memory;

impl Tables {
    /// Calls `look(slot, entry)` for every non-empty leaf entry of `[start, end)`. `None` if `look` returns `None`, or
    /// if `left`, which each entry of a table of any level lowers by one, is used up.
    pub fn look(
        self,
        memory: &Memory,
        (start, end): (u64, u64),
        left: &mut u64,
        look: &mut impl FnMut(u64, Entry, &mut u64) -> Option<()>,
    ) -> Option<()> {
        Self::look_below(memory, self.root, LEVELS - 1, 0, (start, end), left, look)
    }

    fn look_below(
        memory: &Memory,
        table: u64,
        level: u32,
        base: u64,
        (start, end): (u64, u64),
        left: &mut u64,
        look: &mut impl FnMut(u64, Entry, &mut u64) -> Option<()>,
    ) -> Option<()> {
        for (address, slot) in Self::entries_for(table, level, base, start, end) {
            *left = left.checked_sub(1)?;
            let entry = memory.read_u64(slot);
            if level == 0 {
                if entry != 0 {
                    look(slot, Entry(entry), left)?;
                }
            } else if entry & PRESENT != 0 {
                Self::look_below(memory, entry & FRAME_MASK, level - 1, address, (start, end), left, look)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use mayfly_machine::{PAGE_SIZE, Prot};

    use super::*;
    use crate::tables::ENTRIES;

    #[test]
    fn entries_are_shown_and_their_number_is_bounded() {
        let account = crate::ledger::Account::default();
        let mut memory = Memory::boot(64, &account, crate::layout::Reach::Mapping).unwrap();
        let tables = Tables::new(&mut memory).unwrap();
        for (page, frame) in [(3, 7), (4, 8), (5000, 9)] {
            let slot = tables.slot_or_create(&mut memory, page * PAGE_SIZE).unwrap();
            memory.write_u64(slot, Entry::user(frame, Prot::READ).0);
        }
        let seen = |from: u64, to: u64, most: u64| {
            let (mut found, mut left) = (Vec::new(), most);
            let range = (from * PAGE_SIZE, to * PAGE_SIZE);
            tables.look(&memory, range, &mut left, &mut |_, entry, _| {
                found.push(entry.frame().unwrap());
                Some(())
            })?;
            Some(found)
        };
        // An entry of each of the upper two tables, a table, and the two that it names.
        assert_eq!(seen(0, 1 << 18, 2 + 3 * ENTRIES), Some(vec![7, 8, 9]));
        assert_eq!(seen(0, 1 << 18, 2 + 3 * ENTRIES - 1), None);
        assert_eq!(seen(4, 5, 4), Some(vec![8]));
        assert_eq!(seen(4, 5, 3), None);
        assert_eq!(seen(5, 5000, 3 * ENTRIES), Some(vec![]));
    }
}
