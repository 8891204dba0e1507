// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records what a program found in its mounts while it booted: a saved process depends on it, besides its program.
//!
//! A snapshot depends on files that it no longer has open: its source, its settings, the libraries that it did not
//! find. A process that is loaded later must have what a boot would find then. So each look-up in a mount is noted with
//! its result, until the freeze, and all are repeated when the process is loaded.
//!
//! A directory counts as unchanged while it is the same directory. Its entries are noted when they are listed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mayfly_files::FileStamp;
use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;
use crate::fs::mounts::{Mount, Mounts};
use crate::host::files;
use crate::host::listing::DirectoryEntry;

/// Most look-ups that are noted. A program with more is not saved.
const SEEN_MAX: usize = 32_768;

/// A look-up of a path in a mount, or a listing of its entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Lookup {
    device: u32,
    rest: Vec<u8>,
    listed: bool,
}

/// The result of a look-up; an error number if it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum LookupResult {
    Node(FileStamp),
    Names(u64),
    Error(i32),
}

/// All look-ups, with their results.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen(BTreeMap<Lookup, LookupResult>);

/// The notes of a process and its forks.
#[derive(Debug)]
pub(crate) struct Witnesses(Mutex<Notes>);

#[derive(Debug)]
enum Notes {
    Taken(Seen),
    /// There were too many look-ups.
    TooMany,
    /// Two look-ups of one path had different results.
    Changed,
    Forgotten,
}

/// Reasons why there are no notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWitness {
    /// There were too many look-ups.
    #[error("the program looked at more than {SEEN_MAX} files when it booted")]
    TooMany,
    /// A file changed meanwhile.
    #[error("a file changed while the program booted")]
    Changed,
    /// The notes were discarded.
    #[error("there is no record of the files that the program looked at when it booted")]
    Forgotten,
}

impl Witnesses {
    pub(crate) fn new() -> Self {
        Self::of(Seen::default())
    }

    pub(crate) fn of(seen: Seen) -> Self {
        Self(Mutex::new(Notes::Taken(seen)))
    }

    /// Looks up `rest` in a mount that has a directory, for a program that boots.
    pub(crate) fn look_up(&self, mount: &Mount, rest: &[u8]) -> Result<files::HostNode, Errno> {
        let root = mount.root.as_ref().ok_or(Errno::ENOENT)?;
        let node = files::look_up(root, rest, mount.device, true);
        self.note(mount, rest, false, found(&node));
        node
    }

    /// As [`Witnesses::look_up`], but lists a directory.
    pub(crate) fn list(&self, mount: &Mount, rest: &[u8]) -> Result<Vec<(Vec<u8>, DirectoryEntry)>, Errno> {
        let root = mount.root.as_ref().ok_or(Errno::ENOENT)?;
        let names = files::list(root, rest, true);
        self.note(mount, rest, true, listed(&names));
        names
    }

    fn note(&self, mount: &Mount, rest: &[u8], listed: bool, found: LookupResult) {
        let mut notes = self.notes();
        let Notes::Taken(Seen(seen)) = &mut *notes else { return };
        let lookup = Lookup { device: mount.device, rest: rest.to_vec(), listed };
        match seen.get(&lookup) {
            Some(known) if *known == found => {}
            Some(_) => *notes = Notes::Changed,
            None if seen.len() >= SEEN_MAX => *notes = Notes::TooMany,
            None => {
                seen.insert(lookup, found);
            }
        }
    }

    /// Discards the notes: the process will not be saved.
    pub(crate) fn forget(&self) {
        *self.notes() = Notes::Forgotten;
    }

    /// A copy of the notes.
    pub(crate) fn seen(&self) -> Result<Seen, NoWitness> {
        match &*self.notes() {
            Notes::Taken(seen) => Ok(seen.clone()),
            Notes::TooMany => Err(NoWitness::TooMany),
            Notes::Changed => Err(NoWitness::Changed),
            Notes::Forgotten => Err(NoWitness::Forgotten),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Each note is written in one step, so the notes are consistent even if a thread panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Repeats all look-ups; an error names the first path whose result differs.
    pub(crate) fn check(&self, mounts: &Mounts) -> Result<(), String> {
        for (Lookup { device, rest, listed: names }, then) in &self.0 {
            let mount = mounts.iter().find(|mount| mount.device == *device);
            let root = mount.and_then(|mount| mount.root.as_ref());
            let now = match root {
                Some(root) if *names => listed(&files::list(root, rest, true)),
                Some(root) => found(&files::look_up(root, rest, *device, true)),
                None => return Err(format!("mount number {device}")),
            };
            if now != *then {
                let guest = mount.map_or(&b""[..], |mount| &mount.guest);
                return Err(String::from_utf8_lossy(&[guest, b"/", rest].concat()).into_owned());
            }
        }
        Ok(())
    }
}

fn found(node: &Result<files::HostNode, Errno>) -> LookupResult {
    match node {
        Ok(node) => LookupResult::Node(node.stamp),
        Err(errno) => LookupResult::Error(errno.number()),
    }
}

fn listed(names: &Result<Vec<(Vec<u8>, DirectoryEntry)>, Errno>) -> LookupResult {
    match names {
        Ok(names) => {
            let mut names: Vec<_> = names.iter().map(|(name, entry)| (name, entry.inode, entry.kind)).collect();
            names.sort_unstable();
            // The hasher's keys are fixed, and only the build that wrote a file reads it.
            let mut hasher = DefaultHasher::new();
            names.hash(&mut hasher);
            LookupResult::Names(hasher.finish())
        }
        Err(errno) => LookupResult::Error(errno.number()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fs::mounts::MountPoint;

    fn mounts(folder: &tempfile::TempDir) -> Mounts {
        let point = MountPoint {
            guest: "/m".into(),
            host: folder.path().into(),
            access: crate::fs::mounts::MountAccess::ReadOnly,
        };
        Mounts::open(&[point]).unwrap()
    }

    /// Looks up paths in a mount, applies a change, and returns the check's result.
    fn differs(change: impl FnOnce(&std::path::Path)) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "1").unwrap();
        fs::create_dir(folder.path().join("listed")).unwrap();
        let mounts = mounts(&folder);
        let (mount, _) = mounts.find(b"/m").unwrap();
        let witnesses = Witnesses::new();
        witnesses.look_up(mount, b"").unwrap();
        witnesses.look_up(mount, b"file").unwrap();
        witnesses.look_up(mount, b"missing").unwrap_err();
        witnesses.list(mount, b"listed").unwrap();
        let seen = witnesses.seen().unwrap();
        let bytes = postcard::to_stdvec(&seen).unwrap();
        change(folder.path());
        postcard::from_bytes::<Seen>(&bytes).unwrap().check(&mounts)
    }

    #[test]
    fn a_change_that_a_boot_would_notice_is_found() {
        assert_eq!(differs(|_| {}), Ok(()));
        assert_eq!(differs(|folder| fs::write(folder.join("unseen"), "").unwrap()), Ok(()), "not listed");
        assert_eq!(differs(|folder| fs::write(folder.join("file"), "22").unwrap()), Err("/m/file".into()));
        assert_eq!(differs(|folder| fs::remove_file(folder.join("file")).unwrap()), Err("/m/file".into()));
        assert_eq!(differs(|folder| fs::write(folder.join("missing"), "").unwrap()), Err("/m/missing".into()));
        assert_eq!(differs(|folder| fs::write(folder.join("listed/a"), "").unwrap()), Err("/m/listed".into()));
    }

    #[test]
    fn notes_that_changed_or_were_discarded_or_are_too_many_are_no_witness() {
        let folder = tempfile::tempdir().unwrap();
        let mounts = mounts(&folder);
        let (mount, _) = mounts.find(b"/m").unwrap();
        let witnesses = Witnesses::new();
        let _ = witnesses.look_up(mount, b"late");
        fs::write(folder.path().join("late"), "").unwrap();
        let _ = witnesses.look_up(mount, b"late");
        assert_eq!(witnesses.seen().err(), Some(NoWitness::Changed));
        let witnesses = Witnesses::new();
        witnesses.forget();
        assert_eq!(witnesses.seen().err(), Some(NoWitness::Forgotten));
        let witnesses = Witnesses::new();
        for number in 0..=SEEN_MAX {
            witnesses.note(mount, &number.to_le_bytes(), false, LookupResult::Error(2));
        }
        assert_eq!(witnesses.seen().err(), Some(NoWitness::TooMany));
    }
}
