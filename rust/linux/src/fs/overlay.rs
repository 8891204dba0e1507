// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that a program has written: a private layer in memory over its writable mounts.
//!
//! ```text
//!  /srv/data/a        File #0      written by the program, or copied from the mount before the first write
//!  /srv/data/b        Gone         the mount has it, the program has removed it
//!  /srv/data/c        Directory    merged with the mount's directory of that name, unless it is opaque
//!  /tmp/x             Link "a"
//! ```
//!
//! The host's files never change. The layer is part of the process's state, so a reset restores the snapshot's. That is
//! empty unless the program has written files while it booted.
//!
//! # Invariants
//!
//! The size of all contents and paths together is at most `max_bytes`, and the number of entries at most `max_entries`.
//! An inode exists as long as an entry names it, or its file is open or mapped shared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::identity::{GID, UID};
use crate::base::ids::InodeId;
use crate::base::limits::Limits;
use crate::fs::directory_times::DirectoryTimes;
use crate::host::attributes::{Attributes, Time};

/// Most hard links to one file.
const LINKS_MAX: u32 = 1000;
/// First inode number: above those of synthetic files.
const FIRST_INODE: u64 = 1000;

/// An entry that the program has created or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OverlayEntry {
    File(InodeId),
    /// Opaque: entries of the host's directory are hidden.
    Directory {
        opaque: bool,
        number: u64,
        mode: u32,
        modified: Time,
    },
    Link {
        target: Vec<u8>,
        number: u64,
        modified: Time,
    },
    /// The name of a bound Unix socket; `crate::net::socket::Socket::node` has its number.
    Socket {
        number: u64,
        mode: u32,
        modified: Time,
    },
    Gone,
}

/// A file of the overlay.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inode {
    /// Shared with the snapshot until it is written.
    content: Arc<Vec<u8>>,
    number: u64,
    mode: u32,
    modified: Time,
    links: u32,
    /// F_SEAL_SEAL and the like, of files made by `memfd_create`; others have none.
    seals: Option<u32>,
}

const SEAL_SHRINK: u32 = 0x2;
const SEAL_GROW: u32 = 0x4;
/// F_SEAL_WRITE, F_SEAL_FUTURE_WRITE.
const SEAL_ANY_WRITE: u32 = 0x8 | 0x10;

/// The overlay's answer for a path.
#[derive(Debug)]
pub(crate) enum Layer<'a> {
    /// The overlay has an entry there.
    Here(&'a OverlayEntry),
    /// The overlay hides what the mount has there.
    Hidden,
    /// The overlay has no entry: what the mount has is visible.
    Below,
}

/// All files that a program has written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Overlay {
    entries: BTreeMap<Vec<u8>, OverlayEntry>,
    /// Of directories that are no entries.
    times: DirectoryTimes,
    inodes: Vec<Option<Inode>>,
    bytes: u64,
    next_number: u64,
    max_bytes: u64,
    max_entries: usize,
}

impl Overlay {
    pub(crate) fn new(max_bytes: u64, max_entries: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            times: DirectoryTimes::default(),
            inodes: Vec::new(),
            bytes: 0,
            next_number: FIRST_INODE,
            max_bytes,
            max_entries,
        }
    }

    /// Whether a deserialised value keeps this type's invariants and the limits.
    pub(crate) fn is_sound(&self, limits: &Limits) -> bool {
        let names = self.entries.iter().fold(0_u64, |sum, (path, entry)| sum.saturating_add(cost(path, entry)));
        let contents = self.inodes.iter().flatten().map(|inode| inode.content.len() as u64);
        let exists = |entry: &OverlayEntry| match entry {
            OverlayEntry::File(id) => self.inode(*id).is_some(),
            OverlayEntry::Directory { .. }
            | OverlayEntry::Link { .. }
            | OverlayEntry::Socket { .. }
            | OverlayEntry::Gone => true,
        };
        self.bytes == contents.fold(names, u64::saturating_add)
            && self.entries.values().all(exists)
            && (self.max_bytes, self.max_entries) == (limits.overlay_bytes, limits.overlay_entries)
    }

    /// The mode of the overlay's directory at `path`.
    pub(crate) fn directory_mode(&self, path: &[u8]) -> Option<u32> {
        match self.entries.get(path)? {
            OverlayEntry::Directory { mode, .. } => Some(*mode),
            _ => None,
        }
    }

    /// Whether the directory at `path` is the overlay's, with this inode number.
    pub(crate) fn owns_directory(&self, path: &[u8], inode: u64) -> bool {
        matches!(self.entries.get(path), Some(OverlayEntry::Directory { number, .. }) if *number == inode)
    }

    /// Whether all is as the mounts have it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.times.is_empty()
    }

    /// The size in bytes that all can have together, and the number of entries.
    pub(crate) fn capacity(&self) -> (u64, usize) {
        (self.max_bytes, self.max_entries)
    }

    /// Entries that may still be made.
    pub(crate) fn free_entries(&self) -> usize {
        self.max_entries.saturating_sub(self.entries.len())
    }

    /// Records that the entries of the directory at `path` have changed, or that its time was set.
    pub(crate) fn touch_directory(&mut self, path: &[u8], time: Time) {
        match self.entries.get_mut(path) {
            Some(OverlayEntry::Directory { modified, .. }) => *modified = time,
            _ => self.times.set(path, time),
        }
    }

    /// The attributes of a directory as it is now: those that it had otherwise, with the mode and the time that the
    /// program has given it.
    pub(crate) fn directory(&self, path: &[u8], known: Attributes) -> Attributes {
        match self.entries.get(path) {
            Some(OverlayEntry::Directory { number, mode, modified, .. }) if *number == known.inode => {
                Attributes { mode: libc::S_IFDIR | mode, modified: *modified, ..known }
            }
            Some(_) => known,
            None => Attributes { modified: self.times.get(path).unwrap_or(known.modified), ..known },
        }
    }

    /// Bytes used.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may still be written.
    pub(crate) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// The layer's answer for `path`, in a mount whose own path is `mount_len` bytes long.
    pub(crate) fn find(&self, path: &[u8], mount_len: usize) -> Layer<'_> {
        if self.entries.is_empty() {
            return Layer::Below;
        }
        if let Some(entry) = self.entries.get(path) {
            return if *entry == OverlayEntry::Gone { Layer::Hidden } else { Layer::Here(entry) };
        }
        let slashes = path.iter().enumerate().filter(|&(at, &byte)| byte == b'/' && at > mount_len);
        for (at, _) in slashes {
            match path.get(..at).and_then(|above| self.entries.get(above)) {
                None | Some(OverlayEntry::Directory { opaque: false, .. }) => {}
                Some(_) => return Layer::Hidden,
            }
        }
        Layer::Below
    }

    /// The entries of the overlay in the directory `path`.
    pub(crate) fn names<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a OverlayEntry)> {
        let start = [path, b"/"].concat();
        self.entries
            .range((Bound::Included(start.clone()), Bound::Unbounded))
            .take_while(move |(place, _)| place.starts_with(&start))
            .filter_map(move |(place, entry)| {
                let name = place.get(path.len().saturating_add(1)..)?;
                (!name.contains(&b'/')).then_some((name, entry))
            })
    }

    /// Attributes of an entry in the mount with this `device`, for `lstat`.
    pub(crate) fn attributes(&self, entry: &OverlayEntry, device: u32) -> Attributes {
        let made = |inode, mode, size, modified, links| Attributes {
            device,
            inode,
            mode,
            links,
            user: UID,
            group: GID,
            special: (0, 0),
            size,
            modified,
        };
        match entry {
            OverlayEntry::File(id) => self.file_attributes(*id, device),
            OverlayEntry::Directory { number, mode, modified, .. } => {
                made(*number, libc::S_IFDIR | mode, 0, *modified, 2)
            }
            OverlayEntry::Link { target, number, modified } => {
                let same =
                    |other: &&OverlayEntry| matches!(other, OverlayEntry::Link { number: own, .. } if own == number);
                let links = u32::try_from(self.entries.values().filter(same).count()).unwrap_or(1);
                made(*number, libc::S_IFLNK | 0o777, target.len() as u64, *modified, links)
            }
            OverlayEntry::Socket { number, mode, modified } => made(*number, libc::S_IFSOCK | mode, 0, *modified, 1),
            OverlayEntry::Gone => made(0, 0, 0, Time::default(), 0),
        }
    }

    /// Attributes of a file of the overlay, for `fstat`.
    pub(crate) fn file_attributes(&self, id: InodeId, device: u32) -> Attributes {
        let inode = self.inode(id);
        Attributes {
            device,
            links: inode.map_or(0, |inode| inode.links),
            size: self.content(id).len() as u64,
            modified: inode.map_or(Time::default(), |inode| inode.modified),
            ..Attributes::synthetic(
                inode.map_or(0, |inode| inode.number),
                libc::S_IFREG | inode.map_or(0, |inode| inode.mode),
            )
        }
    }

    /// A file's content.
    pub(crate) fn content(&self, id: InodeId) -> &[u8] {
        self.inode(id).map_or(&[], |inode| &inode.content)
    }

    /// Creates a file with this content at `path`.
    pub(crate) fn create(&mut self, path: &[u8], mode: u32, content: Vec<u8>, now: Time) -> Result<InodeId, Errno> {
        let size = content.len() as u64;
        if size > self.room() {
            return Err(Errno::ENOSPC);
        }
        let index = self.inodes.iter().position(Option::is_none).unwrap_or(self.inodes.len());
        self.put(path, OverlayEntry::File(InodeId(index)))?;
        let number = self.number();
        let inode =
            Inode { content: Arc::new(content), number, mode: mode & 0o7777, modified: now, links: 1, seals: None };
        self.place(index, inode);
        self.bytes = self.bytes.saturating_add(size);
        Ok(InodeId(index))
    }

    /// Creates an empty file without a name, which can be sealed: `memfd_create`. It exists while it is open or mapped.
    pub(crate) fn create_unnamed(&mut self, mode: u32, seals: u32, now: Time) -> InodeId {
        let index = self.inodes.iter().position(Option::is_none).unwrap_or(self.inodes.len());
        let number = self.number();
        let content = Arc::default();
        self.place(index, Inode { content, number, mode, modified: now, links: 0, seals: Some(seals) });
        InodeId(index)
    }

    fn place(&mut self, index: usize, inode: Inode) {
        if self.inodes.len() <= index {
            self.inodes.resize(index.saturating_add(1), None);
        }
        if let Some(slot) = self.inodes.get_mut(index) {
            *slot = Some(inode);
        }
    }

    /// The seals of a file; `None` if it cannot have any.
    pub(crate) fn seals(&self, id: InodeId) -> Option<u32> {
        self.inode(id)?.seals
    }

    pub(crate) fn set_seals(&mut self, id: InodeId, seals: u32) {
        if let Some(inode) = self.inode_mut(id) {
            inode.seals = Some(seals);
        }
    }

    /// Whether a file has any of these seals.
    fn is_sealed(&self, id: InodeId, seals: u32) -> bool {
        self.seals(id).is_some_and(|own| own & seals != 0)
    }

    /// Whether writing to a file is sealed, now or for later mappings.
    pub(crate) fn is_write_sealed(&self, id: InodeId) -> bool {
        self.is_sealed(id, SEAL_ANY_WRITE)
    }

    /// Stores bytes that a mapping already has.
    pub(crate) fn replace(&mut self, id: InodeId, offset: u64, data: &[u8]) {
        let (Some(inode), Ok(start)) = (self.inode_mut(id), usize::try_from(offset)) else { return };
        let content = Arc::make_mut(&mut inode.content);
        for (to, from) in content.iter_mut().skip(start).zip(data) {
            *to = *from;
        }
    }

    /// Creates a directory.
    pub(crate) fn make_directory(&mut self, path: &[u8], mode: u32, opaque: bool, now: Time) -> Result<(), Errno> {
        let number = self.number();
        self.put(path, OverlayEntry::Directory { opaque, number, mode: mode & 0o1777, modified: now })
    }

    /// Creates a symbolic link.
    pub(crate) fn make_link(&mut self, path: &[u8], target: &[u8], now: Time) -> Result<(), Errno> {
        let number = self.number();
        self.put(path, OverlayEntry::Link { target: target.to_vec(), number, modified: now })
    }

    /// Creates the name of a Unix socket; returns its number.
    pub(crate) fn make_socket(&mut self, path: &[u8], mode: u32, now: Time) -> Result<u64, Errno> {
        let number = self.number();
        self.put(path, OverlayEntry::Socket { number, mode: mode & 0o7777, modified: now })?;
        Ok(number)
    }

    /// Adds a name for a file.
    pub(crate) fn link(&mut self, path: &[u8], id: InodeId) -> Result<(), Errno> {
        if self.inode(id).is_none_or(|inode| inode.links >= LINKS_MAX) {
            return Err(Errno::EMLINK);
        }
        self.put(path, OverlayEntry::File(id))?;
        if let Some(inode) = self.inode_mut(id) {
            inode.links = inode.links.saturating_add(1);
        }
        Ok(())
    }

    /// Adds a name for the symbolic link at `path`.
    pub(crate) fn link_again(&mut self, path: &[u8], new: &[u8]) -> Result<(), Errno> {
        match self.entries.get(path).cloned() {
            Some(link @ OverlayEntry::Link { .. }) => self.put(new, link),
            _ => Err(Errno::EPERM),
        }
    }

    /// Removes the entry at `path`; `hides` hides what the mount has there. Returns the file if that was its last name.
    pub(crate) fn remove(&mut self, path: &[u8], hides: bool) -> Result<Option<InodeId>, Errno> {
        let old = self.entries.get(path).cloned();
        self.times.forget(path);
        // Entries below a removed directory are gone already, or hidden with it.
        if matches!(old, Some(OverlayEntry::Directory { .. })) || hides {
            let below: Vec<_> = self.below(path).collect();
            for place in below {
                self.take(&place);
            }
        }
        if hides {
            self.put(path, OverlayEntry::Gone)?;
        } else {
            self.take(path);
        }
        let Some(OverlayEntry::File(id)) = old else { return Ok(None) };
        let Some(inode) = self.inode_mut(id) else { return Ok(None) };
        inode.links = inode.links.saturating_sub(1);
        Ok((inode.links == 0).then_some(id))
    }

    /// Renames the entry at `path` to `new`, with all entries below it. At `new` there is nothing, or only what may be
    /// replaced.
    pub(crate) fn rename(&mut self, path: &[u8], new: &[u8]) -> Result<(), Errno> {
        let below: Vec<_> = self.below(path).collect();
        let places: Vec<_> = std::iter::once(path.to_vec()).chain(below).collect();
        let more = (new.len().saturating_sub(path.len()) as u64).saturating_mul(places.len() as u64);
        if more > self.room() {
            return Err(Errno::ENOSPC);
        }
        for place in places {
            let Some(mut entry) = self.take(&place) else { continue };
            // What the mount has at the new path must not show through.
            if let OverlayEntry::Directory { opaque, .. } = &mut entry {
                *opaque = true;
            }
            let moved = [new, place.get(path.len()..).unwrap_or_default()].concat();
            self.put(&moved, entry)?;
        }
        Ok(())
    }

    /// Drops a file that has no name and is no longer open.
    pub(crate) fn forget(&mut self, InodeId(index): InodeId) {
        if let Some(slot) = self.inodes.get_mut(index)
            && let Some(inode) = slot.take_if(|inode| inode.links == 0)
        {
            self.bytes = self.bytes.saturating_sub(inode.content.len() as u64);
        }
    }

    /// Whether a file has a name.
    pub(crate) fn is_named(&self, id: InodeId) -> bool {
        self.inode(id).is_some_and(|inode| inode.links > 0)
    }

    /// Writes `data` at `offset`; a gap after the old end becomes zero.
    pub(crate) fn write(&mut self, id: InodeId, offset: u64, data: &[u8], now: Time) -> Result<(), Errno> {
        let size = self.content(id).len() as u64;
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if self.is_write_sealed(id) {
            return Err(Errno::EPERM);
        }
        if end > size {
            self.resize(id, end, now)?;
        }
        let inode = self.inode_mut(id).ok_or(Errno::EIO)?;
        inode.modified = now;
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let content = Arc::make_mut(&mut inode.content);
        for (to, from) in content.iter_mut().skip(start).zip(data) {
            *to = *from;
        }
        Ok(())
    }

    /// Bytes that the next change of a file copies: all of it if its content is shared.
    pub(crate) fn shared_len(&self, id: InodeId) -> u64 {
        let inode = self.inode(id);
        inode.filter(|inode| Arc::strong_count(&inode.content) > 1).map_or(0, |inode| inode.content.len() as u64)
    }

    /// Sets a file's size: adds zeroes, or truncates it.
    pub(crate) fn resize(&mut self, id: InodeId, size: u64, now: Time) -> Result<(), Errno> {
        let old = self.content(id).len() as u64;
        if size > old && self.is_sealed(id, SEAL_GROW) || size < old && self.is_sealed(id, SEAL_SHRINK) {
            return Err(Errno::EPERM);
        }
        if size.saturating_sub(old) > self.room() {
            return Err(Errno::ENOSPC);
        }
        let inode = self.inode_mut(id).ok_or(Errno::EIO)?;
        inode.modified = now;
        let content = Arc::make_mut(&mut inode.content);
        content.resize(usize::try_from(size).map_err(|_| Errno::EFBIG)?, 0);
        if size < old {
            content.shrink_to_fit();
        }
        self.bytes = self.bytes.saturating_sub(old).saturating_add(size);
        Ok(())
    }

    /// Sets the mode of the entry at `path`, which is in the overlay.
    pub(crate) fn set_mode(&mut self, path: &[u8], new: u32) {
        match self.entries.get_mut(path) {
            Some(OverlayEntry::Directory { mode, .. }) => *mode = new & 0o1777,
            Some(OverlayEntry::Socket { mode, .. }) => *mode = new & 0o7777,
            Some(&mut OverlayEntry::File(id)) => self.set_file_mode(id, new),
            _ => {}
        }
    }

    /// Sets the mode of a file.
    pub(crate) fn set_file_mode(&mut self, id: InodeId, new: u32) {
        if let Some(inode) = self.inode_mut(id) {
            inode.mode = new & 0o7777;
        }
    }

    /// Sets the modification time of the entry at `path`, which is in the overlay.
    pub(crate) fn set_time(&mut self, path: &[u8], time: Time) {
        match self.entries.get_mut(path) {
            Some(
                OverlayEntry::Directory { modified, .. }
                | OverlayEntry::Link { modified, .. }
                | OverlayEntry::Socket { modified, .. },
            ) => *modified = time,
            Some(&mut OverlayEntry::File(id)) => self.set_file_time(id, time),
            _ => {}
        }
    }

    /// Sets the modification time of a file.
    pub(crate) fn set_file_time(&mut self, id: InodeId, time: Time) {
        if let Some(inode) = self.inode_mut(id) {
            inode.modified = time;
        }
    }

    fn inode(&self, InodeId(index): InodeId) -> Option<&Inode> {
        self.inodes.get(index)?.as_ref()
    }

    fn inode_mut(&mut self, InodeId(index): InodeId) -> Option<&mut Inode> {
        self.inodes.get_mut(index)?.as_mut()
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.saturating_add(1);
        self.next_number
    }

    /// Paths of the entries below `path`.
    fn below(&self, path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        let start = [path, b"/"].concat();
        self.entries
            .range((Bound::Included(start.clone()), Bound::Unbounded))
            .map(|(place, _)| place.clone())
            .take_while(move |place| place.starts_with(&start))
    }

    /// The only way to add an entry.
    fn put(&mut self, path: &[u8], entry: OverlayEntry) -> Result<(), Errno> {
        let replaced = self.entries.get(path).map_or(0, |old| cost(path, old));
        let bytes = cost(path, &entry);
        if bytes.saturating_sub(replaced) > self.room() {
            return Err(Errno::ENOSPC);
        }
        if replaced == 0 && self.entries.len() >= self.max_entries {
            return Err(Errno::ENOSPC);
        }
        self.bytes = self.bytes.saturating_sub(replaced).saturating_add(bytes);
        self.entries.insert(path.to_vec(), entry);
        Ok(())
    }

    /// The only way to remove an entry.
    fn take(&mut self, path: &[u8]) -> Option<OverlayEntry> {
        let entry = self.entries.remove(path)?;
        self.bytes = self.bytes.saturating_sub(cost(path, &entry));
        Some(entry)
    }
}

/// The cost of an entry besides its file's content.
fn cost(path: &[u8], entry: &OverlayEntry) -> u64 {
    let target = if let OverlayEntry::Link { target, .. } = entry { target.len() } else { 0 };
    path.len().saturating_add(target).saturating_add(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time { seconds: 1, nanoseconds: 2 };

    fn overlay() -> Overlay {
        Overlay::new(1000, 10)
    }

    #[test]
    fn bytes_and_entries_are_bounded_and_freed() {
        let mut overlay = overlay();
        assert_eq!(overlay.create(b"/tmp/a", 0o600, vec![0; 1001], NOW), Err(Errno::ENOSPC));
        let id = overlay.create(b"/tmp/a", 0o600, Vec::new(), NOW).unwrap();
        assert_eq!(overlay.write(id, 2000, b"x", NOW), Err(Errno::ENOSPC));
        assert_eq!(overlay.write(id, u64::MAX, b"x", NOW), Err(Errno::EFBIG));
        assert_eq!(overlay.resize(id, u64::MAX, NOW), Err(Errno::ENOSPC));
        overlay.write(id, 900, b"x", NOW).unwrap();
        assert_eq!(overlay.create(b"/tmp/b", 0o600, vec![0; 200], NOW), Err(Errno::ENOSPC));
        assert_eq!(overlay.remove(b"/tmp/a", false), Ok(Some(id)));
        assert!(overlay.room() < 100, "the file may still be open");
        overlay.forget(id);
        assert_eq!(overlay.room(), 1000);
        for number in 0..10 {
            overlay.make_directory(format!("/tmp/{number}").as_bytes(), 0o755, false, NOW).unwrap();
        }
        assert_eq!(overlay.make_directory(b"/tmp/x", 0o755, false, NOW), Err(Errno::ENOSPC));
        assert!(overlay.names(b"/tmp").count() == 10);
    }

    #[test]
    fn a_removed_entry_hides_the_mounts() {
        let mut overlay = overlay();
        assert!(matches!(overlay.find(b"/m/a", 2), Layer::Below));
        overlay.remove(b"/m/a", true).unwrap();
        assert!(matches!(overlay.find(b"/m/a", 2), Layer::Hidden));
        assert!(matches!(overlay.find(b"/m/a/b", 2), Layer::Hidden));
        assert!(matches!(overlay.find(b"/m/ab", 2), Layer::Below));
        overlay.make_directory(b"/m/a", 0o755, true, NOW).unwrap();
        assert!(matches!(overlay.find(b"/m/a", 2), Layer::Here(OverlayEntry::Directory { .. })));
        assert!(matches!(overlay.find(b"/m/a/b", 2), Layer::Hidden));
        overlay.make_directory(b"/m/c", 0o755, false, NOW).unwrap();
        assert!(matches!(overlay.find(b"/m/c/b", 2), Layer::Below));
    }

    #[test]
    fn renaming_a_directory_moves_its_entries() {
        let mut overlay = overlay();
        overlay.make_directory(b"/t/a", 0o755, false, NOW).unwrap();
        let id = overlay.create(b"/t/a/f", 0o600, b"text".to_vec(), NOW).unwrap();
        overlay.make_directory(b"/t/ab", 0o755, false, NOW).unwrap();
        overlay.rename(b"/t/a", b"/t/longer").unwrap();
        assert!(matches!(overlay.find(b"/t/a/f", 2), Layer::Below));
        assert!(matches!(overlay.find(b"/t/longer/f", 2), Layer::Here(OverlayEntry::File(found)) if *found == id));
        assert!(matches!(overlay.find(b"/t/ab", 2), Layer::Here(_)));
        assert_eq!(overlay.content(id), b"text");
    }

    #[test]
    fn a_clone_has_its_own_content() {
        let mut frozen = overlay();
        let id = frozen.create(b"/t/a", 0o600, b"frozen".to_vec(), NOW).unwrap();
        let mut fork = frozen.clone();
        fork.write(id, 0, b"F", NOW).unwrap();
        fork.resize(id, 3, NOW).unwrap();
        assert_eq!((frozen.content(id), fork.content(id)), (&b"frozen"[..], &b"Fro"[..]));
        assert_eq!(fork.room(), frozen.room() + 3);
    }
}
