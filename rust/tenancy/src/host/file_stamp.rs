// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells whether a file is still what it was, without reading it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mayfly_files::waiting_for;

/// A file's identity, size and times: while these stay, its content is not read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// That of the file at `path`, links followed. Takes as long as the file system takes.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = waiting_for(path, || fs::metadata(path))?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}
