// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files whose pages a machine maps.

use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Tells files apart: the caller gives two files different keys, and one file always the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileKey(pub u64, pub u64);

/// Pages of a file in a row.
#[derive(Debug, Clone, Copy)]
pub struct FilePages<'a> {
    /// A regular file, open for reading.
    pub file: BorrowedFd<'a>,
    /// The file's key.
    pub key: FileKey,
    /// Number of the first page in the file.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// A file that is open as long as the value exists.
pub trait OpenFile: AsFd + Debug + Send + Sync {}

impl<T: AsFd + Debug + Send + Sync> OpenFile for T {}

/// A file that a machine maps shared: what its program writes to the pages is written to the file.
#[derive(Debug, Clone)]
pub struct SharedFile {
    /// The file, open for reading, and for writing if `writable`.
    pub file: Arc<dyn OpenFile>,
    /// Its key.
    pub key: FileKey,
    /// Whether its pages may be written.
    pub writable: bool,
}

impl SharedFile {
    /// Whether both are the same file, with the same access.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.key, self.writable) == (other.key, other.writable)
    }
}
