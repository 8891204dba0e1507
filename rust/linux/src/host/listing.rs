// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directory listings: `getdents64(2)`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::pages::PAGE_BYTES;

/// A directory's entry for one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryEntry {
    pub(crate) inode: u64,
    /// DT_REG and the like.
    pub(crate) kind: u8,
}

/// Memory of an entry besides its name.
const ENTRY_BYTES: usize = 64;

/// The entries of a directory when its listing began. They are sorted, so that their order is the same every time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Listing(Vec<(Vec<u8>, DirectoryEntry)>);

impl Listing {
    /// `.`, `..` and `entries`.
    pub(crate) fn new(inode: u64, entries: BTreeMap<Vec<u8>, DirectoryEntry>) -> Self {
        let itself = DirectoryEntry { inode, kind: libc::DT_DIR };
        let mut all = vec![(b".".to_vec(), itself), (b"..".to_vec(), itself)];
        all.extend(entries);
        Self(all)
    }

    /// Its memory on the host in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().fold(0, |sum, (name, _)| sum.saturating_add(name.len()).saturating_add(ENTRY_BYTES))
    }

    /// The records from entry `first` on that fit into `room` bytes, and their number. `None` if not even one fits.
    pub(crate) fn records(&self, first: u64, room: usize) -> Option<(Vec<u8>, u64)> {
        let mut bytes = Vec::with_capacity(room.min(PAGE_BYTES));
        let mut taken: u64 = 0;
        let first_index = usize::try_from(first).unwrap_or(usize::MAX);
        for (name, entry) in self.0.iter().skip(first_index) {
            // Header of 19 bytes, name, NUL; a multiple of 8.
            let size = name.len().saturating_add(20).next_multiple_of(8);
            if bytes.len().saturating_add(size) > room {
                if taken == 0 {
                    return None;
                }
                break;
            }
            taken = taken.saturating_add(1);
            let end = bytes.len().saturating_add(size);
            bytes.extend(entry.inode.to_le_bytes());
            bytes.extend(first.saturating_add(taken).to_le_bytes());
            bytes.extend(u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes());
            bytes.push(entry.kind);
            bytes.extend_from_slice(name);
            bytes.resize(end, 0);
        }
        Some((bytes, taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_complete_and_continue_where_they_ended() {
        let entries =
            (0..20_u8).map(|n| (vec![b'a' + n; 5], DirectoryEntry { inode: n.into(), kind: libc::DT_REG })).collect();
        let listing = Listing::new(1, entries);
        let (mut next, mut total) = (0, 0);
        loop {
            let (bytes, taken) = listing.records(next, 100).unwrap();
            assert!(bytes.len() <= 100 && bytes.len().is_multiple_of(8));
            if taken == 0 {
                break;
            }
            next += taken;
            total += taken;
        }
        assert_eq!(total, 22);
        assert_eq!(listing.records(0, 23), None, "the record of \".\" takes 24 bytes");
        assert_eq!(listing.records(22, 0), Some((Vec::new(), 0)), "the end takes no space");
        assert_eq!(listing.records(u64::MAX, 100), Some((Vec::new(), 0)));
    }
}
