// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a floor above asks to find out how far a program's accesses run.

use mayfly_machine::PAGE_SIZE;
use mayfly_machine::layout::{USER_END, USER_MIN};

use crate::machine::machine::Machine;

impl Machine {
    /// How many pages in a row directly below `address`, or from `address` on if `above`, are mapped, up to `most`;
    /// those that the program can write alone, if `writable`.
    #[must_use]
    pub fn run_length(&self, address: u64, above: bool, writable: bool, most: u64) -> u64 {
        let mut at = address;
        for length in 0..most {
            if !above {
                let Some(below) = at.checked_sub(PAGE_SIZE) else { return length };
                at = below;
            }
            if !(USER_MIN..USER_END).contains(&at) {
                return length;
            }
            let entry = self.tables.entry(&self.memory, at);
            if !entry.is_present() || (writable && !entry.is_writable()) {
                return length;
            }
            if above {
                at = at.saturating_add(PAGE_SIZE);
            }
        }
        most
    }

    /// Whether the program can write the page at `address` now.
    #[must_use]
    pub fn is_writable(&self, address: u64) -> bool {
        self.tables.entry(&self.memory, address).is_writable()
    }

    /// Pages that the machine's limit leaves it.
    #[must_use]
    pub fn pages_left(&self) -> u64 {
        self.changes.limit_pages.saturating_sub(self.private_pages())
    }
}
