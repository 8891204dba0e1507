// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files whose pages a machine maps.

use std::os::fd::BorrowedFd;

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
