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

use mayfly_memory::tables::Entry;

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

    pub(crate) fn add(&mut self, frame: u64, known: u64, alias: u64) {
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
