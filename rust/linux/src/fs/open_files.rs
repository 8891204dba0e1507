// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors and open files.
//!
//! ```text
//!  descriptor 0 ---> open file #0   object, offset, status flags     open(2) makes one,
//!  descriptor 1 -+-> open file #1                                     dup(2) shares it
//!  descriptor 5 -+
//! ```
//!
//! All of it is plain state of one process: a reset copies the snapshot's back. The kind of an open file is an
//! [`Object`]. A new kind is a new variant there, and the compiler lists the operations that it needs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::context::Stream;
use crate::base::errno::Errno;
use crate::base::ids::OpenId;
use crate::base::limits::Limits;
use crate::fs::locks::Locks;
use crate::fs::object::Object;
use crate::host::files::HostFile;

/// Most descriptors that a limit may allow.
const DESCRIPTORS_MAX: usize = 1024;

/// Most open files that are in flight between sockets (SCM_RIGHTS).
pub(crate) const IN_FLIGHT_MAX: usize = 512;

/// Most bytes that the host stores for a program's open files: synthetic text, and listings of directories.
pub(crate) const HELD_MAX: usize = 8 << 20;

/// Flags that `F_SETFL` may change.
const CHANGEABLE: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME;
/// Flags that `F_GETFL` does not return: only `open` uses them.
const FORGOTTEN: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_TRUNC | libc::O_CLOEXEC;

/// An entry of the descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) open: OpenId,
    /// FD_CLOEXEC. Stored for F_GETFD only; there is no `execve`.
    pub(crate) close_on_exec: bool,
}

/// An open file ("open file description" in POSIX).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenFile {
    pub(crate) object: Object,
    /// Path in the program's view, for `/proc/self/fd`. For a file without a path, the text that Linux shows instead.
    pub(crate) path: std::sync::Arc<[u8]>,
    /// Access mode and status flags, for F_GETFL.
    pub(crate) flags: i32,
    /// The position that `read`, `write` and `lseek` move.
    pub(crate) offset: u64,
    /// Its locks, if it ever had any.
    pub(crate) locks: Option<Box<Locks>>,
    /// Number of descriptors and messages that refer to it; never 0.
    references: usize,
}

impl OpenFile {
    /// An open file with the `flags` of `open`.
    pub(crate) fn new(object: Object, path: &[u8], flags: i32) -> Self {
        Self { object, path: path.into(), flags: flags & !FORGOTTEN, offset: 0, locks: None, references: 1 }
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.flags & libc::O_PATH == 0 && self.flags & libc::O_ACCMODE != libc::O_WRONLY
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.flags & libc::O_PATH == 0 && matches!(self.flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
    }
}

/// The record locks (F_SETLK) that the process has on a file of a durable mount.
#[derive(Clone, Debug)]
pub(crate) struct RecordLocks {
    /// The open file of the host's that owns them.
    pub(crate) file: Arc<HostFile>,
    pub(crate) locks: Locks,
}

/// A program's descriptors.
///
/// # Invariants
///
/// The table has at most `limit` entries, and its last entry is in use. The open file of every descriptor exists, and
/// the number of its references is that of the descriptors and messages that refer to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DescriptorTable {
    table: Vec<Option<Descriptor>>,
    open: Vec<Option<OpenFile>>,
    /// Most descriptors at a time: RLIMIT_NOFILE.
    limit: usize,
    /// The working directory, absolute.
    directory: Vec<u8>,
    /// An open file that had locks was closed, for which calls may wait.
    #[serde(skip)]
    lost_locks: bool,
    /// Those on files of durable mounts: a snapshot has none.
    #[serde(skip)]
    records: Vec<RecordLocks>,
}

impl Clone for DescriptorTable {
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            open: self.open.clone(),
            limit: self.limit,
            directory: self.directory.clone(),
            lost_locks: self.lost_locks,
            records: self.records.clone(),
        }
    }

    /// Does not allocate if the entries fit the old allocation.
    fn clone_from(&mut self, source: &Self) {
        self.table.clone_from(&source.table);
        self.open.clone_from(&source.open);
        self.limit = source.limit;
        self.directory.clone_from(&source.directory);
        self.lost_locks = source.lost_locks;
        self.records.clone_from(&source.records);
    }
}

impl DescriptorTable {
    /// Descriptors 0, 1 and 2; the table will hold at most `limit`.
    pub(crate) fn standard(limit: usize) -> Self {
        let mut files = Self {
            table: Vec::new(),
            open: Vec::new(),
            limit: limit.clamp(3, DESCRIPTORS_MAX),
            directory: b"/".to_vec(),
            lost_locks: false,
            records: Vec::new(),
        };
        for (object, path, flags) in [
            (Object::Null, &b"/dev/null"[..], libc::O_RDONLY),
            (Object::Log(Stream::Stdout), b"pipe:[2]", libc::O_WRONLY),
            (Object::Log(Stream::Stderr), b"pipe:[3]", libc::O_WRONLY),
        ] {
            // The limit is at least three.
            let _ = files.install(OpenFile::new(object, path, flags), false);
        }
        files
    }

    /// Whether a deserialised value keeps this type's invariants and the limits.
    pub(crate) fn is_sound(&self, limits: &Limits) -> bool {
        let exists = |OpenId(index): OpenId| self.open.get(index).is_some_and(Option::is_some);
        let references = |id: usize| self.table.iter().flatten().filter(|entry| entry.open == OpenId(id)).count();
        let is_counted = |(id, open): (usize, &Option<OpenFile>)| {
            open.as_ref().is_none_or(|open| open.references > 0 && open.references >= references(id))
        };
        self.limit == limits.descriptors.clamp(3, DESCRIPTORS_MAX)
            && self.table.len() <= self.limit
            && self.table.last().is_none_or(Option::is_some)
            && self.table.iter().flatten().all(|entry| exists(entry.open))
            && self.open.len() <= self.table.len().saturating_add(IN_FLIGHT_MAX).saturating_add(1)
            && self.open.iter().enumerate().all(is_counted)
    }

    /// Most descriptors at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The working directory, absolute.
    pub(crate) fn directory(&self) -> &[u8] {
        &self.directory
    }

    pub(crate) fn set_directory(&mut self, path: &[u8]) {
        self.directory = path.to_vec();
    }

    /// The entry of descriptor `fd`.
    pub(crate) fn get(&self, fd: i32) -> Result<Descriptor, Errno> {
        usize::try_from(fd).ok().and_then(|index| *self.table.get(index)?).ok_or(Errno::EBADF)
    }

    /// The open file of descriptor `fd`.
    pub(crate) fn open_file(&self, fd: i32) -> Result<&OpenFile, Errno> {
        let OpenId(index) = self.get(fd)?.open;
        self.open.get(index).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }

    /// The open file of descriptor `fd`, mutable.
    pub(crate) fn open_file_mut(&mut self, fd: i32) -> Result<&mut OpenFile, Errno> {
        let OpenId(index) = self.get(fd)?.open;
        self.open.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)
    }

    /// Refuses an open file for which the host would store too much.
    pub(crate) fn check_held(&self, more: &Object) -> Result<(), Errno> {
        let held = self.objects().fold(more.held_bytes(), |sum, object| sum.saturating_add(object.held_bytes()));
        if held > HELD_MAX { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// The objects of all open files.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.open.iter().flatten().map(|open| &open.object)
    }

    /// The locks of all open files that have some.
    pub(crate) fn locks(&self) -> impl Iterator<Item = (OpenId, &Locks)> {
        let all = self.open.iter().enumerate();
        all.filter_map(|(index, open)| Some((OpenId(index), open.as_ref()?.locks.as_deref()?)))
    }

    /// The locks of an open file, mutable.
    pub(crate) fn locks_mut(&mut self, OpenId(index): OpenId) -> Option<&mut Option<Box<Locks>>> {
        Some(&mut self.open.get_mut(index)?.as_mut()?.locks)
    }

    /// The process's record locks on files of durable mounts.
    pub(crate) fn records(&self) -> &[RecordLocks] {
        &self.records
    }

    pub(crate) fn records_mut(&mut self) -> &mut Vec<RecordLocks> {
        &mut self.records
    }

    /// The path of a file of a durable mount that is locked in a way in which workers cannot have it locked, too. A
    /// shared lock of the process's can stay: see [`DescriptorTable::share_durable`].
    pub(crate) fn locked_durable(&self) -> Option<String> {
        let is_locked = |open: &&OpenFile| {
            matches!(&open.object, Object::Host(file) if file.durable().is_some())
                && open.locks.as_ref().is_some_and(|locks| locks.ranges() > 0 || locks.whole().is_some())
        };
        let has_records = |open: &&OpenFile| {
            let locked =
                |key| self.records.iter().any(|owner| owner.locks.has_exclusive_range() && owner.file.key() == key);
            matches!(&open.object, Object::Host(file) if locked(file.key()))
        };
        let found = self.open.iter().flatten().find(|open| is_locked(open) || has_records(open));
        found.map(|open| String::from_utf8_lossy(&open.path).into_owned())
    }

    /// Whether there are files of durable mounts.
    pub(crate) fn has_durable(&self) -> bool {
        self.objects().any(|object| matches!(object, Object::Host(file) if file.durable().is_some()))
    }

    /// Prepares for a snapshot, whose workers share the open files of durable mounts.
    ///
    /// The snapshot keeps the process's shared record locks as long as it lives: each of its workers has them, and no
    /// other process can change what they protect. A worker's further locks are those of an open file of its own.
    pub(crate) fn share_durable(&mut self) {
        self.records.retain(|owner| owner.locks.ranges() > 0);
        self.records.iter().for_each(|owner| owner.file.share());
        for object in self.objects() {
            if let Object::Host(file) = object {
                file.share();
            }
        }
    }

    /// As POSIX says: closing any descriptor of a file releases all record locks that the process has on it.
    fn forget_records(&mut self, OpenId(index): OpenId) {
        if self.records.is_empty() {
            return;
        }
        if let Some(Some(OpenFile { object: Object::Host(file), .. })) = self.open.get(index) {
            let key = file.key();
            self.records.retain(|owner| owner.file.key() != key);
            self.lost_locks = true;
        }
    }

    /// Whether an open file that had locks was closed since the last call.
    pub(crate) fn has_lost_locks(&self) -> bool {
        self.lost_locks
    }

    /// See [`DescriptorTable::has_lost_locks`].
    pub(crate) fn take_lost_locks(&mut self) {
        self.lost_locks = false;
    }

    /// Puts another object in the place of those that `is_old` accepts.
    pub(crate) fn replace(&mut self, is_old: impl Fn(&Object) -> bool, new: &Object) {
        for open in self.open.iter_mut().flatten().filter(|open| is_old(&open.object)) {
            open.object = new.clone();
        }
    }

    /// All descriptors with their numbers, ascending.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.table).filter_map(|(fd, slot)| slot.as_ref().map(|_| fd))
    }

    /// Checks that the table has a free descriptor.
    pub(crate) fn check_room(&self) -> Result<(), Errno> {
        self.lowest_free(0).map(|_| ())
    }

    /// Installs `file` at the lowest free descriptor.
    pub(crate) fn install(&mut self, file: OpenFile, close_on_exec: bool) -> Result<i32, Errno> {
        let fd = self.lowest_free(0)?;
        let file = OpenFile { references: 1, ..file };
        let index = match self.open.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.open.push(None);
                self.open.len().saturating_sub(1)
            }
        };
        if let Some(slot) = self.open.get_mut(index) {
            *slot = Some(file);
        }
        self.set(fd, Descriptor { open: OpenId(index), close_on_exec })?;
        Ok(fd)
    }

    /// Closes `fd`. Returns the object if that was the last reference to its open file.
    pub(crate) fn close(&mut self, fd: i32) -> Result<Option<Object>, Errno> {
        let descriptor = self.get(fd)?;
        if let Some(slot) = usize::try_from(fd).ok().and_then(|index| self.table.get_mut(index)) {
            *slot = None;
        }
        self.trim();
        self.forget_records(descriptor.open);
        Ok(self.drop_reference(descriptor.open))
    }

    /// Closes the descriptors in `first..=last` that exist. Returns the objects that are no longer open.
    pub(crate) fn close_range(&mut self, first: u32, last: u32) -> Vec<Object> {
        let mut closed = Vec::new();
        for (fd, slot) in (0_u32..).zip(&mut self.table) {
            if (first..=last).contains(&fd)
                && let Some(descriptor) = slot.take()
            {
                closed.push(descriptor.open);
            }
        }
        self.trim();
        let gone = closed.into_iter().filter_map(|open| {
            self.forget_records(open);
            self.drop_reference(open)
        });
        gone.collect()
    }

    /// Sets FD_CLOEXEC on the descriptors in `first..=last` that exist.
    pub(crate) fn close_on_exec_range(&mut self, first: u32, last: u32) {
        for (fd, slot) in (0_u32..).zip(&mut self.table) {
            if let Some(descriptor) = slot
                && (first..=last).contains(&fd)
            {
                descriptor.close_on_exec = true;
            }
        }
    }

    pub(crate) fn set_close_on_exec(&mut self, fd: i32, close_on_exec: bool) -> Result<(), Errno> {
        let descriptor = self.get(fd)?;
        self.set(fd, Descriptor { close_on_exec, ..descriptor })
    }

    /// Duplicates `fd` to the lowest free descriptor from `lowest` on.
    pub(crate) fn duplicate(&mut self, fd: i32, lowest: i32, close_on_exec: bool) -> Result<i32, Errno> {
        let descriptor = self.get(fd)?;
        let lowest = usize::try_from(lowest).ok().filter(|&lowest| lowest < self.limit).ok_or(Errno::EINVAL)?;
        let new = self.lowest_free(lowest)?;
        self.set(new, Descriptor { close_on_exec, ..descriptor })?;
        self.share(descriptor.open);
        Ok(new)
    }

    /// Duplicates `fd` to `new`, and closes what was open there. Returns the object that is no longer open, if any.
    pub(crate) fn duplicate_to(&mut self, fd: i32, new: i32, close_on_exec: bool) -> Result<Option<Object>, Errno> {
        let descriptor = self.get(fd)?;
        let replaced = self.get(new).ok();
        self.set(new, Descriptor { close_on_exec, ..descriptor })?;
        self.share(descriptor.open);
        let Some(replaced) = replaced else { return Ok(None) };
        self.forget_records(replaced.open);
        Ok(self.drop_reference(replaced.open))
    }

    /// Sets the flags that `F_SETFL` may change; other bits of `flags` have no effect, as on Linux.
    pub(crate) fn set_status_flags(&mut self, fd: i32, flags: i32) -> Result<(), Errno> {
        let open = self.open_file_mut(fd)?;
        open.flags = (open.flags & !CHANGEABLE) | (flags & CHANGEABLE);
        Ok(())
    }

    /// Asserts the invariant: every open file has as many references as it counts.
    #[cfg(test)]
    pub(crate) fn check(&self, in_flight: &[OpenId]) {
        for (index, open) in self.open.iter().enumerate() {
            let holders = self.table.iter().flatten().map(|entry| &entry.open).chain(in_flight);
            let count = holders.filter(|holder| **holder == OpenId(index)).count();
            assert_eq!(open.as_ref().map_or(0, |open| open.references), count, "open file {index}");
        }
    }

    fn lowest_free(&self, lowest: usize) -> Result<i32, Errno> {
        let free = (lowest..self.limit).find(|&index| self.table.get(index).copied().flatten().is_none());
        free.and_then(|index| i32::try_from(index).ok()).ok_or(Errno::EMFILE)
    }

    fn set(&mut self, fd: i32, descriptor: Descriptor) -> Result<(), Errno> {
        let index = usize::try_from(fd).ok().filter(|&index| index < self.limit).ok_or(Errno::EBADF)?;
        if self.table.len() <= index {
            self.table.resize(index.saturating_add(1), None);
        }
        if let Some(slot) = self.table.get_mut(index) {
            *slot = Some(descriptor);
        }
        Ok(())
    }

    /// Adds a reference to an open file for a message in flight.
    pub(crate) fn hold(&mut self, open: OpenId) {
        self.share(open);
    }

    /// Installs an open file that a message referred to; the message's reference becomes the descriptor's.
    pub(crate) fn install_held(&mut self, open: OpenId, close_on_exec: bool) -> Result<i32, Errno> {
        let OpenId(index) = open;
        self.open.get(index).and_then(Option::as_ref).ok_or(Errno::EBADF)?;
        let fd = self.lowest_free(0)?;
        self.set(fd, Descriptor { open, close_on_exec })?;
        Ok(fd)
    }

    /// Drops a message's reference to an open file. Returns its object if it was the last reference.
    pub(crate) fn release(&mut self, open: OpenId) -> Option<Object> {
        self.drop_reference(open)
    }

    fn share(&mut self, OpenId(index): OpenId) {
        if let Some(open) = self.open.get_mut(index).and_then(Option::as_mut) {
            open.references = open.references.saturating_add(1);
        }
    }

    /// Drops a reference to an open file; returns its object if it was the last.
    fn drop_reference(&mut self, OpenId(index): OpenId) -> Option<Object> {
        let slot = self.open.get_mut(index)?;
        let open = slot.as_mut()?;
        open.references = open.references.saturating_sub(1);
        if open.references > 0 {
            return None;
        }
        let gone = slot.take();
        self.lost_locks |= gone.as_ref().is_some_and(|open| open.locks.is_some());
        let gone = gone.map(|open| open.object);
        while self.open.last().is_some_and(Option::is_none) {
            self.open.pop();
        }
        gone
    }

    fn trim(&mut self) {
        while self.table.last().is_some_and(Option::is_none) {
            self.table.pop();
        }
    }
}

#[cfg(test)]
mod tests;
