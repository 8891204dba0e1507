// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program has written: a private layer in memory over its writable mounts.
//!
//! ```text
//!  /srv/data/a        File #0      written by the program, or copied here from the mount before it was
//!  /srv/data/b        Gone         the mount has it, the program has removed it
//!  /srv/data/c        Directory    merged with the mount's directory of that name, unless it is opaque
//!  /tmp/x             Link "a"
//! ```
//!
//! The host's files never change. The layer is state of the process like any other, so a reset leaves what the snapshot
//! had, which is nothing for a program that has written nothing while it booted.
//!
//! # Invariants
//!
//! The sum of all contents and paths stays within `max_bytes`, the number of entries within `max_entries`. An inode
//! exists as long as an entry names it, or its file is open or mapped shared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::identity::{GID, UID};
use crate::base::ids::InodeId;
use crate::base::limits::Limits;
use crate::host::attributes::{Attributes, Time};

/// Most links to one file.
const LINKS_MAX: u32 = 1000;
/// Where the numbers of inodes start: above those of what is made up.
const FIRST_INODE: u64 = 1000;

/// What the program has made of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OverlayEntry {
    File(InodeId),
    /// Opaque: nothing of the mount's directory shows through.
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
    Gone,
}

/// A written file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inode {
    /// Shared with the snapshot until it is written.
    content: Arc<Vec<u8>>,
    number: u64,
    mode: u32,
    modified: Time,
    links: u32,
    /// F_SEAL_SEAL and its kin, of what `memfd_create` made; others have none.
    seals: Option<u32>,
}

const SEAL_SHRINK: u32 = 0x2;
const SEAL_GROW: u32 = 0x4;
/// F_SEAL_WRITE, F_SEAL_FUTURE_WRITE.
const SEAL_ANY_WRITE: u32 = 0x8 | 0x10;

/// What the layer says of a path.
#[derive(Debug)]
pub(crate) enum Layer<'a> {
    /// This is there, whatever the mount has.
    Here(&'a OverlayEntry),
    /// Nothing is there, whatever the mount has.
    Hidden,
    /// What the mount has is there.
    Below,
}

/// All that a program has written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Overlay {
    entries: BTreeMap<Vec<u8>, OverlayEntry>,
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
            inodes: Vec::new(),
            bytes: 0,
            next_number: FIRST_INODE,
            max_bytes,
            max_entries,
        }
    }

    /// Whether what comes from a file is what this type promises, and within the limits.
    pub(crate) fn is_sound(&self, limits: &Limits) -> bool {
        let names = self.entries.iter().fold(0_u64, |sum, (path, entry)| sum.saturating_add(cost(path, entry)));
        let contents = self.inodes.iter().flatten().map(|inode| inode.content.len() as u64);
        let exists = |entry: &OverlayEntry| match entry {
            OverlayEntry::File(id) => self.inode(*id).is_some(),
            OverlayEntry::Directory { .. } | OverlayEntry::Link { .. } | OverlayEntry::Gone => true,
        };
        self.bytes == contents.fold(names, u64::saturating_add)
            && self.entries.values().all(exists)
            && (self.max_bytes, self.max_entries) == (limits.overlay_bytes, limits.overlay_entries)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that all of it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may still be written.
    pub(crate) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// What lies at `path`, in a mount whose own path is `mount_len` bytes long.
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

    /// Names in the directory `path` that the layer has something to say of.
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

    /// What `lstat` tells of an entry in the mount that is `device`.
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
                made(*number, libc::S_IFLNK | 0o777, target.len() as u64, *modified, 1)
            }
            OverlayEntry::Gone => made(0, 0, 0, Time::default(), 0),
        }
    }

    /// What `fstat` tells of a written file.
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

    /// Makes a file with this content at `path`.
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

    /// Makes an empty file without a name, which can be sealed: `memfd_create`. It lasts while it is open or mapped.
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

    /// The seals of a file that can have some.
    pub(crate) fn seals(&self, id: InodeId) -> Option<u32> {
        self.inode(id)?.seals
    }

    pub(crate) fn set_seals(&mut self, id: InodeId, seals: u32) {
        if let Some(inode) = self.inode_mut(id) {
            inode.seals = Some(seals);
        }
    }

    /// Whether a file has one of these seals.
    fn is_sealed(&self, id: InodeId, seals: u32) -> bool {
        self.seals(id).is_some_and(|own| own & seals != 0)
    }

    /// Whether a file may be written, for now and for what is mapped later.
    pub(crate) fn is_write_sealed(&self, id: InodeId) -> bool {
        self.is_sealed(id, SEAL_ANY_WRITE)
    }

    /// Puts bytes where a mapping has them already.
    pub(crate) fn replace(&mut self, id: InodeId, offset: u64, data: &[u8]) {
        let (Some(inode), Ok(start)) = (self.inode_mut(id), usize::try_from(offset)) else { return };
        let content = Arc::make_mut(&mut inode.content);
        for (to, from) in content.iter_mut().skip(start).zip(data) {
            *to = *from;
        }
    }

    /// Makes a directory.
    pub(crate) fn make_directory(&mut self, path: &[u8], mode: u32, opaque: bool, now: Time) -> Result<(), Errno> {
        let number = self.number();
        self.put(path, OverlayEntry::Directory { opaque, number, mode: mode & 0o1777, modified: now })
    }

    /// Makes a symbolic link.
    pub(crate) fn make_link(&mut self, path: &[u8], target: &[u8], now: Time) -> Result<(), Errno> {
        let number = self.number();
        self.put(path, OverlayEntry::Link { target: target.to_vec(), number, modified: now })
    }

    /// One more name for a file.
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

    /// Removes what is at `path`; if the mount has something there, it is hidden. Returns the file that has no name any
    /// more.
    pub(crate) fn remove(&mut self, path: &[u8], hides: bool) -> Result<Option<InodeId>, Errno> {
        let old = self.entries.get(path).cloned();
        // What is below a directory that goes is gone already, or hidden with it.
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

    /// Gives what is at `path` the name `new`, where nothing is but what may be replaced; with all that is below it.
    pub(crate) fn rename(&mut self, path: &[u8], new: &[u8]) -> Result<(), Errno> {
        let below: Vec<_> = self.below(path).collect();
        let places: Vec<_> = std::iter::once(path.to_vec()).chain(below).collect();
        let more = (new.len().saturating_sub(path.len()) as u64).saturating_mul(places.len() as u64);
        if more > self.room() {
            return Err(Errno::ENOSPC);
        }
        for place in places {
            let Some(mut entry) = self.take(&place) else { continue };
            // Whatever the mount has where it goes does not show through.
            if let OverlayEntry::Directory { opaque, .. } = &mut entry {
                *opaque = true;
            }
            let moved = [new, place.get(path.len()..).unwrap_or_default()].concat();
            self.put(&moved, entry)?;
        }
        Ok(())
    }

    /// Forgets a file that has no name, once it is not open any more.
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

    /// Writes `data` at `offset`; what lies between the old end and there is zero.
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

    /// How many bytes the next change of a file copies: all of it, where others have the same.
    pub(crate) fn shared_len(&self, id: InodeId) -> u64 {
        let inode = self.inode(id);
        inode.filter(|inode| Arc::strong_count(&inode.content) > 1).map_or(0, |inode| inode.content.len() as u64)
    }

    /// Makes a file so long, with zeroes or by cutting it off.
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

    /// Changes the mode of what is at `path`, which is here.
    pub(crate) fn set_mode(&mut self, path: &[u8], new: u32) {
        match self.entries.get_mut(path) {
            Some(OverlayEntry::Directory { mode, .. }) => *mode = new & 0o1777,
            Some(&mut OverlayEntry::File(id)) => self.set_file_mode(id, new),
            _ => {}
        }
    }

    /// Changes the mode of a file.
    pub(crate) fn set_file_mode(&mut self, id: InodeId, new: u32) {
        if let Some(inode) = self.inode_mut(id) {
            inode.mode = new & 0o7777;
        }
    }

    /// Changes the time of what is at `path`, which is here.
    pub(crate) fn set_time(&mut self, path: &[u8], time: Time) {
        match self.entries.get_mut(path) {
            Some(OverlayEntry::Directory { modified, .. } | OverlayEntry::Link { modified, .. }) => *modified = time,
            Some(&mut OverlayEntry::File(id)) => self.set_file_time(id, time),
            _ => {}
        }
    }

    /// Changes the time of a file.
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

    /// Paths below `path`.
    fn below(&self, path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        let start = [path, b"/"].concat();
        self.entries
            .range((Bound::Included(start.clone()), Bound::Unbounded))
            .map(|(place, _)| place.clone())
            .take_while(move |place| place.starts_with(&start))
    }

    /// The one way to add an entry.
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

    /// The one way to take an entry away.
    fn take(&mut self, path: &[u8]) -> Option<OverlayEntry> {
        let entry = self.entries.remove(path)?;
        self.bytes = self.bytes.saturating_sub(cost(path, &entry));
        Some(entry)
    }
}

/// What an entry counts besides a file's content.
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
    fn bytes_and_entries_are_bounded_and_come_back() {
        let mut overlay = overlay();
        assert_eq!(overlay.create(b"/tmp/a", 0o600, vec![0; 1001], NOW), Err(Errno::ENOSPC));
        let id = overlay.create(b"/tmp/a", 0o600, Vec::new(), NOW).unwrap();
        assert_eq!(overlay.write(id, 2000, b"x", NOW), Err(Errno::ENOSPC));
        assert_eq!(overlay.write(id, u64::MAX, b"x", NOW), Err(Errno::EFBIG));
        assert_eq!(overlay.resize(id, u64::MAX, NOW), Err(Errno::ENOSPC));
        overlay.write(id, 900, b"x", NOW).unwrap();
        assert_eq!(overlay.create(b"/tmp/b", 0o600, vec![0; 200], NOW), Err(Errno::ENOSPC));
        assert_eq!(overlay.remove(b"/tmp/a", false), Ok(Some(id)));
        assert!(overlay.room() < 100, "still open, perhaps");
        overlay.forget(id);
        assert_eq!(overlay.room(), 1000);
        for number in 0..10 {
            overlay.make_directory(format!("/tmp/{number}").as_bytes(), 0o755, false, NOW).unwrap();
        }
        assert_eq!(overlay.make_directory(b"/tmp/x", 0o755, false, NOW), Err(Errno::ENOSPC));
        assert!(overlay.names(b"/tmp").count() == 10);
    }

    #[test]
    fn what_is_removed_hides_the_mount() {
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
    fn renaming_takes_along_what_is_below() {
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
