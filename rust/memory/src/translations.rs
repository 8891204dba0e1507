// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's own small TLB for user addresses.
//!
//! After every world switch the host's TLB and, in part, its caches are cold; a walk through four levels of tables
//! touches four more pages for each address that a program passes. A response names three to six pages, the same ones
//! in each request.
//!
//! # Invariant
//!
//! Code that writes a leaf entry calls [`Translations::clear`] first.

use std::cell::Cell;

use mayfly_machine::PAGE_SIZE;

use crate::tables::Entry;

const SLOTS: usize = 16;
/// No page has this number: addresses have 47 bits.
const NONE: u64 = u64::MAX;

/// Page numbers and their leaf entries, direct-mapped.
#[derive(Debug)]
pub struct Translations {
    slots: [Cell<(u64, Entry)>; SLOTS],
}

impl Default for Translations {
    fn default() -> Self {
        Self::new()
    }
}

impl Translations {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self { slots: [const { Cell::new((NONE, Entry::EMPTY)) }; SLOTS] }
    }

    /// The entry for `address`, from the cache or from `walk`.
    #[inline]
    pub fn get(&self, address: u64, walk: impl FnOnce() -> Entry) -> Entry {
        let page = address / PAGE_SIZE;
        let slot = &self.slots[(page ^ (page >> 9)) as usize % SLOTS];
        let (known, entry) = slot.get();
        if known == page {
            return entry;
        }
        let entry = walk();
        slot.set((page, entry));
        entry
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.set((NONE, Entry::EMPTY)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_machine::Prot;

    #[test]
    fn an_entry_is_walked_for_once_until_it_is_forgotten() {
        let translations = Translations::new();
        let entry = Entry::user(3, Prot::READ);
        assert_eq!(translations.get(0x5123, || entry), entry);
        assert_eq!(translations.get(0x5fff, || unreachable!("it is known")), entry);
        translations.clear();
        assert_eq!(translations.get(0x5000, || Entry::EMPTY), Entry::EMPTY);
    }

    #[test]
    fn pages_that_share_a_slot_are_not_confused() {
        let translations = Translations::new();
        for page in (0..200u64).chain(0..200) {
            let entry = Entry::user(page, Prot::READ);
            assert_eq!(translations.get(page * PAGE_SIZE, || entry), entry);
        }
    }
}
