// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells whether a file is still what it was, without reading it.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::errand::waiting_for;

/// Identity and version of a file. Two looks with equal stamps found one file that was neither replaced nor written in
/// between, as far as its file system's times tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    mode: u32,
    size: u64,
    /// Seconds and nanoseconds of the last modification.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of the inode.
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file at `path`, links followed. Takes as long as the file system takes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::of_metadata(&waiting_for(path, || fs::metadata(path))?))
    }

    /// The stamp of an open file; `path` is what to name if its file system does not answer.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of_opened(file: &File, path: &Path) -> io::Result<Self> {
        Ok(Self::of_metadata(&waiting_for(path, || file.metadata())?))
    }

    /// The stamp of a file with this metadata.
    #[must_use]
    pub fn of_metadata(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of a file for which the kernel returned `stat`.
    #[must_use]
    #[allow(clippy::useless_conversion, reason = "the fields' types differ from one architecture to another")]
    pub fn of_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            mode: stat.st_mode.into(),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime.into(), i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            changed: (stat.st_ctime.into(), i64::try_from(stat.st_ctime_nsec).unwrap_or_default()),
        }
    }

    /// The file's size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The same stamp without the device. Some file systems get another device number at each mount, so stamps that
    /// outlive a mount leave it out: no two files agree in all the rest.
    #[must_use]
    pub const fn without_device(self) -> Self {
        Self { device: 0, ..self }
    }

    /// The same stamp without size and times: a directory stays the same directory whatever its entries are.
    #[must_use]
    pub const fn without_content(self) -> Self {
        Self { size: 0, modified: (0, 0), changed: (0, 0), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_when_the_file_is_written_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let stamp = || FileStamp::of(&path).unwrap();
        let first = stamp();
        assert_eq!((first, first.size()), (FileStamp::of_opened(&crate::open(&path).unwrap(), &path).unwrap(), 3));
        assert_eq!(FileStamp::of_stat(&rustix::fs::stat(&path).unwrap()), first);
        fs::write(&path, "three").unwrap();
        let written = stamp();
        assert_ne!(written, first);
        assert_eq!(written.without_content(), first.without_content());
        let other = folder.path().join("other");
        fs::write(&other, "three").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(stamp().without_device().without_content(), first.without_device().without_content());
        assert!(FileStamp::of(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_directory_without_its_content_is_the_same_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = || FileStamp::of(folder.path()).unwrap().without_device().without_content();
        let first = stamp();
        fs::create_dir(folder.path().join("more")).unwrap();
        assert_eq!(stamp(), first);
    }
}
