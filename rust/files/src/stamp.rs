// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells whether a file is still what it was, without reading it.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::errand::waiting_for;

/// A file's identity, size and times: while these stay, its content is not read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at `path`, links followed. Takes as long as the file system takes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&waiting_for(path, || fs::metadata(path))?))
    }

    /// The stamp of an open file; `path` is what to name if its file system does not answer.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of_opened(file: &File, path: &Path) -> io::Result<Self> {
        Ok(Self::from_metadata(&waiting_for(path, || file.metadata())?))
    }

    fn from_metadata(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The stamp but for the device: some file systems get another number whenever they are mounted, and no two files
    /// agree in all the rest.
    #[must_use]
    pub fn without_device(&self) -> Self {
        Self { device: 0, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_or_replaced_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let first = FileStamp::of(&path).unwrap();
        assert_eq!((first, first.size()), (FileStamp::of_opened(&crate::open(&path).unwrap(), &path).unwrap(), 3));
        fs::write(&path, "three").unwrap();
        assert_ne!(first, FileStamp::of(&path).unwrap());
        let other = folder.path().join("other");
        fs::write(&other, "one").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(first.without_device(), FileStamp::of(&path).unwrap().without_device());
        assert!(FileStamp::of(&folder.path().join("none")).is_err());
    }
}
