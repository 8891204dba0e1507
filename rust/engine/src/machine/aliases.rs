// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames with more than one address: pages of a file that a program has mapped shared twice.
//!
//! ```text
//!  0x50_0000, read and write ──┐
//!                              ├── one frame
//!  0x70_0000, read and execute ┘
//! ```
//!
//! Almost every frame has one address, so only the others are listed. What is done to such a frame concerns all its
//! addresses: it is released with the last of them, and a processor with mappings of its own forgets all of them when
//! the frame's place changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_machine::{MemoryError, PAGE_SIZE, Prot};
use mayfly_memory::tables::Entry;

use crate::machine::machine::Machine;

/// The addresses of frames that have more than one. Clones share the list until one of them changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Aliases(Arc<BTreeMap<u64, Vec<u64>>>);

impl Aliases {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The addresses of `frame`, if it has more than one.
    pub(crate) fn of(&self, frame: u64) -> &[u64] {
        self.0.get(&frame).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, frame: u64, known: u64, alias: u64) {
        let addresses = Arc::make_mut(&mut self.0).entry(frame).or_insert_with(|| vec![known]);
        addresses.push(alias);
    }

    /// Removes an address of a frame; returns whether the frame has others.
    pub(crate) fn remove(&mut self, frame: u64, address: u64) -> bool {
        if !self.0.contains_key(&frame) {
            return false;
        }
        let all = Arc::make_mut(&mut self.0);
        let Some(addresses) = all.get_mut(&frame) else { return false };
        addresses.retain(|known| *known != address);
        // A frame with one address is like any other.
        if addresses.len() < 2 {
            all.remove(&frame);
        }
        true
    }

    /// An address of a frame is another one now.
    pub(crate) fn rename(&mut self, frame: u64, from: u64, to: u64) {
        if self.0.contains_key(&frame)
            && let Some(addresses) = Arc::make_mut(&mut self.0).get_mut(&frame)
        {
            addresses.iter_mut().filter(|known| **known == from).for_each(|known| *known = to);
        }
    }

    /// The same, for frames that have other numbers now.
    pub(crate) fn renumbered(&self, number: impl Fn(u64) -> Option<u64>) -> Self {
        self.0.iter().filter_map(|(frame, addresses)| Some((number(*frame)?, addresses.clone()))).collect()
    }

    /// All frames with their addresses.
    pub(crate) fn to_list(&self) -> Vec<(u64, Vec<u64>)> {
        self.0.iter().map(|(frame, addresses)| (*frame, addresses.clone())).collect()
    }

    /// Whether `entry` has each frame at all its addresses.
    pub(crate) fn are_in(&self, entry: impl Fn(u64) -> Entry) -> bool {
        self.0.iter().all(|(frame, addresses)| addresses.iter().all(|address| entry(*address).frame() == Some(*frame)))
    }
}

impl FromIterator<(u64, Vec<u64>)> for Aliases {
    fn from_iter<T: IntoIterator<Item = (u64, Vec<u64>)>>(all: T) -> Self {
        Self(Arc::new(all.into_iter().collect()))
    }
}

impl Machine {
    /// Maps the page at `of`, which the program can reach, at `address` too. Both show the same content from then on,
    /// and each has its own protection. In a worker the second address belongs to the request.
    ///
    /// ```
    /// # use mayfly_engine::{Host, Machine};
    /// # let Ok(host) = Host::open() else { return Ok(()) }; // No engine runs here.
    /// # let mut machine = Machine::boot(&host, 1 << 20, 4096)?;
    /// use mayfly_machine::{Origin, Prot};
    ///
    /// machine.map_zero(0x50_0000, Prot::READ | Prot::WRITE, Origin::Snapshot)?;
    /// machine.map_alias(0x70_0000, Prot::READ | Prot::EXEC, 0x50_0000)?;
    /// machine.write(0x50_0000, b"seen")?;
    /// let mut seen = [0; 4];
    /// machine.read(0x70_0000, &mut seen)?;
    /// assert_eq!(&seen, b"seen");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MemoryError::Absent`] if there is no page at `of` or if it is a file's from the page cache, which
    /// [`Machine::map_file`] maps as often as wanted; otherwise as [`Machine::map_zero`].
    pub fn map_alias(&mut self, address: u64, prot: Prot, of: u64) -> Result<(), MemoryError> {
        Self::check_range(address, PAGE_SIZE)?;
        Self::check_range(of, PAGE_SIZE)?;
        let source = self.tables.entry(&self.memory, of);
        let own = |frame: &u64| source.is_user() && *frame < self.memory.frames();
        let frame = source.frame().filter(own).ok_or(MemoryError::Absent { address: of })?;
        // The page itself costs nothing, but a table for it may.
        self.check_limit()?;
        self.translations.clear();
        let slot = self.tables.slot_or_create(&mut self.memory, address).ok_or(self.changes.limit())?;
        let old = Entry(self.memory.read_u64(slot));
        if old.frame().is_some() {
            return Err(MemoryError::Exists { address });
        }
        self.record(slot, address, old);
        let entry = Entry::user(frame, prot);
        // The first write to an image page must fault, so that it is recorded.
        let faults = self.changes.recorded && self.memory.is_image(frame) && !source.is_writable();
        self.memory.write_u64(slot, if faults { entry.read_only() } else { entry }.0);
        self.changes.aliases.add(frame, of, address);
        self.cover()
    }

    /// Has the processor forget all addresses of frames that have several.
    pub(crate) fn forget_aliases(&mut self, frames: &[u64]) {
        if self.changes.aliases.is_empty() {
            return;
        }
        for frame in frames {
            self.changes.aliases.of(*frame).iter().for_each(|address| self.processor.forget(*address));
        }
    }

    /// Makes the first write to a frame fault again, at all addresses of it.
    pub(crate) fn protect_aliases(&mut self, frame: u64) {
        for address in self.changes.aliases.of(frame) {
            if let Some(slot) = self.tables.slot(&self.memory, *address) {
                let entry = Entry(self.memory.read_u64(slot));
                self.memory.write_u64(slot, entry.read_only().0);
                self.processor.forget(*address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_with_one_address_left_is_not_listed() {
        let mut aliases = Aliases::default();
        aliases.add(3, 0x1000, 0x2000);
        aliases.add(3, 0x1000, 0x3000);
        assert_eq!(aliases.of(3), [0x1000, 0x2000, 0x3000]);
        let frozen = aliases.clone();
        aliases.rename(3, 0x1000, 0x9000);
        assert!(aliases.remove(3, 0x2000));
        assert_eq!(aliases.of(3), [0x9000, 0x3000]);
        assert!(aliases.remove(3, 0x9000), "one is left");
        assert!(aliases.is_empty());
        assert!(!aliases.remove(3, 0x3000), "it is like any other");
        assert_eq!(frozen.of(3).len(), 3, "a clone has its own list");
    }
}
