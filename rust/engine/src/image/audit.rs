// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares a worker with its image, for tests.

use std::collections::HashMap;

use mayfly_machine::PAGE_SIZE;
use mayfly_machine::layout::LOWER_HALF_END;

use crate::machine::changes::Birth;
use crate::machine::machine::Machine;
use mayfly_memory::layout::SHARED_PHYSICAL;
use mayfly_memory::ledger::{Hold, Purpose};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::Entry;

/// A user page as a program would find it; see [`Machine::audit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedPage {
    /// Address of the page.
    pub address: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// A digest of its content.
    pub digest: u64,
}

impl Machine {
    /// Every user page that differs from the image's, as the program would find it.
    ///
    /// After a reset the list is empty: a page of the snapshot has the image's entry and content but for the write
    /// permission that stays, and a page that the snapshot does not have reads as zero, as it would when first touched.
    /// For shared memory and files only the entries are compared; a copy of a file's page must equal the file's.
    #[must_use]
    pub fn audit(&mut self) -> Vec<AuditedPage> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut found = Vec::new();
        let tables = self.tables;
        let inbox = self.inbox;
        let has_shared = self.memory.shared().is_some();
        let births: HashMap<u64, Birth> =
            self.changes.work.iter().map(|page| (page.frame, page.birth.clone())).collect();
        let visited = tables.for_each(&mut self.memory, 0, LOWER_HALF_END, &mut |memory, address, slot, entry| {
            let Some(frame) = entry.frame() else { return Ok(()) };
            let was = memory.image_u64(slot).map(Entry);
            if memory.is_shared_file(frame) {
                found.push(AuditedPage { address, executable: entry.is_executable(), digest: 0 });
                return Ok(());
            }
            if memory.is_file(frame) {
                let found_since = was.is_none_or(|was| was.frame().is_none());
                if was != Some(entry) && (!found_since || entry.is_writable()) {
                    found.push(AuditedPage { address, executable: entry.is_executable(), digest: 0 });
                }
                return Ok(());
            }
            if has_shared && frame >= SHARED_PHYSICAL / PAGE_SIZE {
                if was != Some(entry) {
                    found.push(AuditedPage { address, executable: entry.is_executable(), digest: 0 });
                }
                return Ok(());
            }
            let is_inbox = (inbox.first_frame..inbox.first_frame + inbox.pages).contains(&frame);
            let mut content = vec![0u8; PAGE_SIZE as usize];
            memory.slice(frame * PAGE_SIZE, content.len()).copy_to(&mut content[..]);
            let same = if memory.is_image(frame) {
                was.is_some_and(|was| was.read_only() == entry.read_only()) && (is_inbox || memory.equals_image(frame))
            } else if let Some(Birth::File { frame: from, content: pristine }) = births.get(&frame) {
                // If the image has a page here, it must be this page of the file.
                let was = was.and_then(Entry::frame);
                was.is_none_or(|was| was == *from) && content == **pristine
            } else {
                content.iter().all(|byte| *byte == 0)
            };
            if !same {
                let mut hasher = DefaultHasher::new();
                content.hash(&mut hasher);
                found.push(AuditedPage { address, executable: entry.is_executable(), digest: hasher.finish() });
            }
            Ok(())
        });
        debug_assert!(visited.is_ok(), "the visitor does not fail");
        // Pages that the image has and this machine has lost.
        let image: Vec<(u64, u64)> = self.image_slots();
        for (address, slot) in image {
            if Entry(self.memory.read_u64(slot)).frame().is_none() {
                found.push(AuditedPage { address, executable: false, digest: 0 });
            }
        }
        found
    }

    /// Address and slot of every leaf entry that the image has.
    fn image_slots(&self) -> Vec<(u64, u64)> {
        let Some(frozen) = &self.frozen else { return Vec::new() };
        let Ok(mut pristine) = Memory::fork(&frozen.memory, 0, Hold::new(self.host.account(), Purpose::Request)) else {
            return Vec::new();
        };
        let mut slots = Vec::new();
        let visited = frozen.tables.for_each(&mut pristine, 0, LOWER_HALF_END, &mut |_, address, slot, _| {
            slots.push((address, slot));
            Ok(())
        });
        debug_assert!(visited.is_ok(), "the visitor does not fail");
        slots
    }
}
