// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the files of a durable directory take, and how much they may.
//!
//! ```text
//!  mounts of generations and tenants ──┐
//!                                      ├──> Durable: one for a directory of the host ──> Inode, Inode, ...: open files
//!  mounts of a storage program ────────┘
//! ```
//!
//! A file takes its size, rounded up to pages: holes count, as if they were written. A file without a name takes its
//! size until it is closed. Names count one each, directories' and symbolic links' too.
//!
//! # Invariants
//!
//! * `bytes` is the sum of what all files take, for changes made through this process. What others change in the
//!   directory meanwhile is not noticed before nothing uses it and it is counted anew.
//! * The size of an open file changes only while its [`Inode`] is locked, and the tree only while [`Durable::tree`] is.
//! * Locks are held over calls that may wait for a disk, so threads that may not block take none of them, except
//!   [`Durable::inodes`], under which nothing waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mayfly_machine::PAGE_SIZE;

use crate::base::errno::Errno;

/// How much the files of a durable mount may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DurableLimits {
    /// Their sizes together, in bytes; each counts in pages of 4 KiB, holes included.
    pub bytes: u64,
    /// Their names, those of directories and links included.
    pub files: u64,
}

/// What is known of a durable directory of the host: one for all mounts of it in this process.
#[derive(Debug)]
pub(crate) struct Durable {
    /// The directory's device and inode number on the host.
    key: (u64, u64),
    max_bytes: AtomicU64,
    max_files: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    /// Largest size of a file, by the process's own limit: a larger one would end it by a signal (SIGXFSZ).
    largest: u64,
    /// Held while names change, and while a file is opened.
    tree: Mutex<()>,
    /// The open files.
    inodes: Mutex<HashMap<u64, Weak<Inode>>>,
    /// Whether its files have been counted.
    counted: Mutex<bool>,
}

/// All durable directories in use.
static ALL: Mutex<Vec<Weak<Durable>>> = Mutex::new(Vec::new());

/// No code panics while it holds one of these locks in a state that others must not see.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Durable {
    /// That of the directory with these numbers, which has these limits from now on. `count` counts what it takes, if
    /// nothing uses it yet: bytes and names. It may wait for a disk.
    pub(crate) fn of<E>(
        key: (u64, u64),
        limits: DurableLimits,
        count: impl FnOnce() -> Result<(u64, u64), E>,
    ) -> Result<Arc<Self>, E> {
        let found = {
            let mut all = lock(&ALL);
            all.retain(|one| one.strong_count() > 0);
            let known = all.iter().filter_map(Weak::upgrade).find(|one| one.key == key);
            known.unwrap_or_else(|| {
                let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
                let new = Arc::new(Self {
                    key,
                    max_bytes: AtomicU64::new(0),
                    max_files: AtomicU64::new(0),
                    bytes: AtomicU64::new(0),
                    files: AtomicU64::new(0),
                    largest: limit.unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs()),
                    tree: Mutex::new(()),
                    inodes: Mutex::new(HashMap::new()),
                    counted: Mutex::new(false),
                });
                all.push(Arc::downgrade(&new));
                new
            })
        };
        let mut counted = lock(&found.counted);
        if !*counted {
            let (bytes, files) = count()?;
            found.bytes.store(bytes, Ordering::Relaxed);
            found.files.store(files, Ordering::Relaxed);
            *counted = true;
        }
        drop(counted);
        found.max_bytes.store(limits.bytes, Ordering::Relaxed);
        found.max_files.store(limits.files, Ordering::Relaxed);
        Ok(found)
    }

    pub(crate) fn limits(&self) -> DurableLimits {
        let of = |limit: &AtomicU64| limit.load(Ordering::Relaxed);
        DurableLimits { bytes: of(&self.max_bytes), files: of(&self.max_files) }
    }

    /// Bytes and names that are left.
    pub(crate) fn room(&self) -> (u64, u64) {
        let left = |max: &AtomicU64, used: &AtomicU64| {
            max.load(Ordering::Relaxed).saturating_sub(used.load(Ordering::Relaxed))
        };
        (left(&self.max_bytes, &self.bytes), left(&self.max_files, &self.files))
    }

    /// Largest size of a file.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// Until it is dropped, no other thread changes names.
    pub(crate) fn tree(&self) -> MutexGuard<'_, ()> {
        lock(&self.tree)
    }

    /// Takes room for a name.
    pub(crate) fn take_name(&self) -> Result<(), Errno> {
        let max = self.max_files.load(Ordering::Relaxed);
        let more = |files: u64| (files < max).then(|| files.saturating_add(1));
        match self.files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::ENOSPC),
        }
    }

    /// Gives it back.
    pub(crate) fn give_name(&self) {
        subtract(&self.files, 1);
    }

    /// Takes as many bytes as there are, `wanted` at most.
    fn take_bytes(&self, wanted: u64) -> u64 {
        let max = self.max_bytes.load(Ordering::Relaxed);
        let mut got = 0;
        let more = |bytes: u64| {
            got = max.saturating_sub(bytes).min(wanted);
            bytes.checked_add(got)
        };
        match self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => got,
            Err(_) => 0,
        }
    }

    /// What is known of an open file: its number, and its size at this moment. The tree is locked.
    pub(crate) fn inode(self: &Arc<Self>, number: u64, size: u64) -> Arc<Inode> {
        let mut inodes = lock(&self.inodes);
        if let Some(known) = inodes.get(&number).and_then(Weak::upgrade) {
            return known;
        }
        let account = Account { taken: whole_pages(size), is_nameless: false };
        let new = Arc::new(Inode { number, durable: Arc::clone(self), account: Mutex::new(account) });
        inodes.insert(number, Arc::downgrade(&new));
        new
    }

    /// The last name of a file of this size is gone. The tree is locked.
    pub(crate) fn lost_last_name(&self, number: u64, size: u64) {
        let open = lock(&self.inodes).get(&number).and_then(Weak::upgrade);
        match open {
            Some(inode) => lock(&inode.account).is_nameless = true,
            None => subtract(&self.bytes, whole_pages(size)),
        }
    }
}

fn subtract(counter: &AtomicU64, less: u64) {
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| Some(value.saturating_sub(less)));
}

fn whole_pages(size: u64) -> u64 {
    size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX)
}

/// An open file of a durable directory: one, however often it is open.
#[derive(Debug)]
pub(crate) struct Inode {
    number: u64,
    durable: Arc<Durable>,
    account: Mutex<Account>,
}

/// What a file takes.
#[derive(Debug)]
pub(crate) struct Account {
    taken: u64,
    is_nameless: bool,
}

impl Inode {
    pub(crate) fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Locks its size.
    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }

    /// Takes room for a file of `size` bytes; returns the size for which there is room.
    pub(crate) fn reserve(&self, account: &mut Account, size: u64) -> u64 {
        let missing = whole_pages(size).saturating_sub(account.taken);
        if missing > 0 {
            let got = self.durable.take_bytes(missing);
            account.taken = account.taken.saturating_add(got);
        }
        size.min(account.taken)
    }

    /// Gives back what a file of this size does not take.
    pub(crate) fn settle(&self, account: &mut Account, size: u64) {
        let size = whole_pages(size);
        match account.taken.checked_sub(size) {
            Some(less) => subtract(&self.durable.bytes, less),
            // Another process has made it longer.
            None => {
                let more = size.saturating_sub(account.taken);
                let _ = self
                    .durable
                    .bytes
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_add(more)));
            }
        }
        account.taken = size;
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let account = self.account.get_mut().unwrap_or_else(PoisonError::into_inner);
        if account.is_nameless {
            subtract(&self.durable.bytes, account.taken);
        }
        let mut inodes = lock(&self.durable.inodes);
        // It may have been opened again meanwhile.
        if inodes.get(&self.number).is_some_and(|known| known.strong_count() == 0) {
            inodes.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(key: u64, bytes: u64, files: u64) -> Arc<Durable> {
        Durable::of((u64::MAX, key), DurableLimits { bytes, files }, || Ok::<_, Errno>((0, 0))).unwrap()
    }

    #[test]
    fn sizes_count_in_pages_until_the_last_close_of_a_file_without_a_name() {
        let durable = durable(1, 5 * PAGE_SIZE, 2);
        let inode = durable.inode(7, 0);
        let again = durable.inode(7, 0);
        let mut account = inode.account();
        assert_eq!(inode.reserve(&mut account, 10), 10);
        assert_eq!(inode.reserve(&mut account, 100 * PAGE_SIZE), 5 * PAGE_SIZE);
        assert_eq!(durable.room(), (0, 2));
        inode.settle(&mut account, PAGE_SIZE + 1);
        drop(account);
        assert_eq!(durable.room().0, 3 * PAGE_SIZE);
        durable.lost_last_name(7, PAGE_SIZE + 1);
        drop(inode);
        assert_eq!(durable.room().0, 3 * PAGE_SIZE);
        drop(again);
        assert_eq!(durable.room().0, 5 * PAGE_SIZE);
        durable.lost_last_name(8, u64::MAX);
        assert_eq!(durable.room().0, 5 * PAGE_SIZE, "nothing wraps");
    }

    #[test]
    fn names_are_limited_and_mounts_of_one_directory_share_a_count() {
        let one = durable(2, 0, 2);
        one.take_name().unwrap();
        let other = durable(2, PAGE_SIZE, 2);
        assert!(Arc::ptr_eq(&one, &other));
        other.take_name().unwrap();
        assert_eq!(one.take_name(), Err(Errno::ENOSPC));
        one.give_name();
        assert_eq!(one.room(), (PAGE_SIZE, 1), "the last limits apply");
    }
}
