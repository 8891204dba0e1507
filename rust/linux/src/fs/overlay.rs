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
//! Contents and paths share one limit ([`Inodes`]), and the number of entries is at most `max_entries`. An inode exists as
//! long as an entry names it, or its file is open or mapped.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::base::identity::{GID, UID};
use crate::base::ids::InodeId;
use crate::base::limits::Limits;
use crate::fs::directory_times::DirectoryTimes;
use crate::host::attributes::{Attributes, Time, Times};
use crate::store::content::Content;
use crate::store::inodes::{Inodes, Status};

/// An entry that the program has created or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OverlayEntry {
    File(InodeId),
    /// Opaque: entries of the host's directory are hidden.
    Directory {
        opaque: bool,
        number: u64,
        mode: u32,
        accessed: Time,
        modified: Time,
    },
    Link {
        target: Vec<u8>,
        number: u64,
        accessed: Time,
        modified: Time,
    },
    /// The name of a bound Unix socket (S_IFSOCK), whose number `crate::net::socket::Socket::node` has, or a FIFO
    /// (S_IFIFO): `crate::event::queue::Queue::fifo`.
    Special {
        kind: u32,
        number: u64,
        mode: u32,
        modified: Time,
    },
    Gone,
}

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
    /// Modes that the program has set of the empty mounts' own directories, which are no entries.
    modes: BTreeMap<Vec<u8>, u32>,
    inodes: Inodes,
    max_entries: usize,
}

impl Overlay {
    pub(crate) fn new(max_bytes: u64, max_entries: usize) -> Self {
        let (times, inodes) = (DirectoryTimes::default(), Inodes::new(max_bytes));
        Self { entries: BTreeMap::new(), times, modes: BTreeMap::new(), inodes, max_entries }
    }

    /// Whether a deserialised value keeps this type's invariants and the limits.
    pub(crate) fn is_sound(&self, limits: &Limits) -> bool {
        let names = self.entries.iter().fold(0_u64, |sum, (path, entry)| sum.saturating_add(cost(path, entry)));
        let exists = |entry: &OverlayEntry| match entry {
            OverlayEntry::File(id) => self.inodes.exists(*id),
            OverlayEntry::Special { kind, .. } => [libc::S_IFSOCK, libc::S_IFIFO].contains(kind),
            OverlayEntry::Directory { .. } | OverlayEntry::Link { .. } | OverlayEntry::Gone => true,
        };
        self.inodes.is_sound(names, limits.overlay_bytes)
            && self.entries.values().all(exists)
            && self.max_entries == limits.overlay_entries
    }

    /// The mode of the directory at `path`, if it is the overlay's, or the program has set it.
    pub(crate) fn directory_mode(&self, path: &[u8]) -> Option<u32> {
        match self.entries.get(path) {
            Some(OverlayEntry::Directory { mode, .. }) => Some(*mode),
            Some(_) => None,
            None => self.modes.get(path).copied(),
        }
    }

    /// Whether the directory at `path` is the overlay's, with this inode number.
    pub(crate) fn owns_directory(&self, path: &[u8], inode: u64) -> bool {
        matches!(self.entries.get(path), Some(OverlayEntry::Directory { number, .. }) if *number == inode)
    }

    /// Whether all is as the mounts have it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.times.is_empty() && self.modes.is_empty()
    }

    /// The number of entries that there can be.
    pub(crate) fn max_entries(&self) -> usize {
        self.max_entries
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
            Some(OverlayEntry::Directory { number, mode, accessed, modified, .. }) if *number == known.inode => {
                Attributes { mode: libc::S_IFDIR | mode, accessed: *accessed, modified: *modified, ..known }
            }
            Some(_) => known,
            None => {
                let mode = self.modes.get(path).map_or(known.mode, |mode| libc::S_IFDIR | mode);
                let modified = self.times.get(path).unwrap_or(known.modified);
                Attributes { mode, accessed: modified, modified, ..known }
            }
        }
    }

    /// The files, without their names.
    pub(crate) fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    /// As [`Overlay::inodes`], to be changed.
    pub(crate) fn inodes_mut(&mut self) -> &mut Inodes {
        &mut self.inodes
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
        let made = |inode, mode, size, (accessed, modified), links| Attributes {
            device,
            inode,
            mode,
            links,
            user: UID,
            group: GID,
            special: (0, 0),
            size,
            blocks: 0,
            accessed,
            modified,
        };
        match entry {
            OverlayEntry::File(id) => self.inodes.attributes(*id, device),
            OverlayEntry::Directory { number, mode, accessed, modified, .. } => {
                made(*number, libc::S_IFDIR | mode, 0, (*accessed, *modified), 2)
            }
            OverlayEntry::Link { target, number, accessed, modified } => {
                let same =
                    |other: &&OverlayEntry| matches!(other, OverlayEntry::Link { number: own, .. } if own == number);
                let links = u32::try_from(self.entries.values().filter(same).count()).unwrap_or(1);
                made(*number, libc::S_IFLNK | 0o777, target.len() as u64, (*accessed, *modified), links)
            }
            OverlayEntry::Special { kind, number, mode, modified } => {
                made(*number, kind | mode, 0, (*modified, *modified), 1)
            }
            OverlayEntry::Gone => made(0, 0, 0, (Time::default(), Time::default()), 0),
        }
    }

    /// Creates a file with this content at `path`.
    pub(crate) fn create(&mut self, path: &[u8], content: Content, status: Status) -> Result<InodeId, Errno> {
        let status = Status { mode: status.mode & 0o7777, ..status };
        let id = self.inodes.create(content, status, None)?;
        self.put(path, OverlayEntry::File(id)).inspect_err(|_| {
            self.inodes.unlink(id);
            self.inodes.forget(id);
        })?;
        Ok(id)
    }

    /// Creates a directory.
    pub(crate) fn make_directory(&mut self, path: &[u8], mode: u32, opaque: bool, now: Time) -> Result<(), Errno> {
        let (number, mode) = (self.inodes.number(), mode & 0o7777);
        self.put(path, OverlayEntry::Directory { opaque, number, mode, accessed: now, modified: now })
    }

    /// Creates a symbolic link.
    pub(crate) fn make_link(&mut self, path: &[u8], target: &[u8], now: Time) -> Result<(), Errno> {
        let number = self.inodes.number();
        self.put(path, OverlayEntry::Link { target: target.to_vec(), number, accessed: now, modified: now })
    }

    /// Creates the name of a Unix socket, or a FIFO; returns its number.
    pub(crate) fn make_special(&mut self, path: &[u8], kind: u32, mode: u32, now: Time) -> Result<u64, Errno> {
        let number = self.inodes.number();
        self.put(path, OverlayEntry::Special { kind, number, mode: mode & 0o7777, modified: now })?;
        Ok(number)
    }

    /// The path and the entry of the socket or FIFO with this number.
    pub(crate) fn special(&self, number: u64) -> Option<(&[u8], &OverlayEntry)> {
        let is_it = |entry: &OverlayEntry| matches!(entry, OverlayEntry::Special { number: own, .. } if *own == number);
        self.entries.iter().find(|(_, entry)| is_it(entry)).map(|(path, entry)| (path.as_slice(), entry))
    }

    /// Adds a name for a file.
    pub(crate) fn link(&mut self, path: &[u8], id: InodeId) -> Result<(), Errno> {
        if !self.inodes.may_be_linked(id) {
            return Err(Errno::EMLINK);
        }
        self.put(path, OverlayEntry::File(id))?;
        self.inodes.link(id);
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
        Ok(self.inodes.unlink(id).then_some(id))
    }

    /// Renames the entry at `path` to `new`, with all entries below it. At `new` there is nothing, or only what may be
    /// replaced.
    pub(crate) fn rename(&mut self, path: &[u8], new: &[u8]) -> Result<(), Errno> {
        let below: Vec<_> = self.below(path).collect();
        let places: Vec<_> = std::iter::once(path.to_vec()).chain(below).collect();
        let more = (new.len().saturating_sub(path.len()) as u64).saturating_mul(places.len() as u64);
        if more > self.inodes.room() {
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

    /// Sets the mode of the entry at `path`, which is in the overlay, or of an empty mount's own directory.
    pub(crate) fn set_mode(&mut self, path: &[u8], new: u32) {
        match self.entries.get_mut(path) {
            Some(OverlayEntry::Directory { mode, .. }) => *mode = new & 0o7777,
            Some(OverlayEntry::Special { mode, .. }) => *mode = new & 0o7777,
            Some(&mut OverlayEntry::File(id)) => self.inodes.set_mode(id, new),
            Some(OverlayEntry::Link { .. } | OverlayEntry::Gone) => {}
            None => {
                self.modes.insert(path.to_vec(), new & 0o7777);
            }
        }
    }

    /// Sets the times of the entry at `path`, which is in the overlay, or of an empty mount's own directory, which has
    /// one time alone, as sockets have.
    pub(crate) fn set_times(&mut self, path: &[u8], times: Times) {
        match self.entries.get_mut(path) {
            Some(
                OverlayEntry::Directory { accessed, modified, .. } | OverlayEntry::Link { accessed, modified, .. },
            ) => {
                *accessed = times.accessed.unwrap_or(*accessed);
                *modified = times.modified.unwrap_or(*modified);
            }
            Some(OverlayEntry::Special { modified, .. }) => *modified = times.modified.unwrap_or(*modified),
            Some(&mut OverlayEntry::File(id)) => self.inodes.set_times(id, times),
            Some(OverlayEntry::Gone) => {}
            None => {
                if let Some(time) = times.modified {
                    self.times.set(path, time);
                }
            }
        }
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
        if replaced == 0 && self.entries.len() >= self.max_entries {
            return Err(Errno::ENOSPC);
        }
        self.inodes.charge(replaced, bytes)?;
        self.entries.insert(path.to_vec(), entry);
        Ok(())
    }

    /// The only way to remove an entry.
    fn take(&mut self, path: &[u8]) -> Option<OverlayEntry> {
        let entry = self.entries.remove(path)?;
        // Less never fails.
        let _ = self.inodes.charge(cost(path, &entry), 0);
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
    const STATUS: Status = Status { number: 5, mode: 0o600, accessed: NOW, modified: NOW };

    fn overlay() -> Overlay {
        Overlay::new(10_000, 10)
    }

    fn content(overlay: &Overlay, id: InodeId) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(overlay.inodes().size(id)).unwrap()];
        assert_eq!(overlay.inodes().read(id, 0, &mut bytes, true), Ok(bytes.len()));
        bytes
    }

    #[test]
    fn bytes_and_entries_are_bounded_and_freed() {
        let mut overlay = overlay();
        let three = Content::of(&[1; 9000]);
        assert_eq!(overlay.create(b"/tmp/a", three, STATUS), Err(Errno::ENOSPC));
        assert!(overlay.is_empty(), "its name went, too");
        assert_eq!(overlay.inodes().room(), 10_000);
        let id = overlay.create(b"/tmp/a", Content::default(), STATUS).unwrap();
        let inodes = overlay.inodes_mut();
        assert_eq!(inodes.write(id, 2000, &[1; 9000], NOW, true), Err(Errno::ENOSPC));
        assert_eq!(inodes.write(id, u64::MAX, b"x", NOW, true), Err(Errno::EFBIG));
        assert_eq!(inodes.resize(id, u64::MAX, NOW), Err(Errno::EFBIG));
        inodes.resize(id, 1 << 40, NOW).unwrap();
        inodes.write(id, 1 << 30, b"x", NOW, true).unwrap();
        inodes.write(id, 1 << 20, b"x", NOW, true).unwrap();
        assert_eq!(inodes.write(id, 0, b"x", NOW, true), Err(Errno::ENOSPC), "two pages are all that fits");
        assert_eq!(inodes.reserve(id, 1 << 20, 4097, false, NOW), Err(Errno::ENOSPC));
        inodes.write(id, 1 << 20, &[2; 4096], NOW, true).unwrap();
        inodes.punch(id, 1 << 20, 4096, NOW, true).unwrap();
        inodes.reserve(id, 0, 1, false, NOW).unwrap();
        assert_eq!(overlay.create(b"/tmp/b", Content::of(b"x"), STATUS), Err(Errno::ENOSPC));
        assert_eq!(overlay.remove(b"/tmp/a", false), Ok(Some(id)));
        assert!(overlay.inodes().room() < 2000, "the file may still be open");
        overlay.inodes_mut().forget(id);
        assert_eq!(overlay.inodes().room(), 10_000);
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
        let id = overlay.create(b"/t/a/f", Content::of(b"text"), STATUS).unwrap();
        overlay.make_directory(b"/t/ab", 0o755, false, NOW).unwrap();
        overlay.rename(b"/t/a", b"/t/longer").unwrap();
        assert!(matches!(overlay.find(b"/t/a/f", 2), Layer::Below));
        assert!(matches!(overlay.find(b"/t/longer/f", 2), Layer::Here(OverlayEntry::File(found)) if *found == id));
        assert!(matches!(overlay.find(b"/t/ab", 2), Layer::Here(_)));
        assert_eq!(content(&overlay, id), b"text");
    }

    #[test]
    fn a_clone_has_its_own_content() {
        let mut frozen = overlay();
        let id = frozen.create(b"/t/a", Content::of(b"frozen"), STATUS).unwrap();
        let mut fork = frozen.clone();
        fork.inodes_mut().write(id, 0, b"F", NOW, true).unwrap();
        fork.inodes_mut().resize(id, 3, NOW).unwrap();
        assert_eq!((content(&frozen, id), content(&fork, id)), (b"frozen".to_vec(), b"Fro".to_vec()));
    }
}
