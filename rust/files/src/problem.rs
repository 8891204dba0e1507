// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a file is not opened or read, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FileType;

/// What lies at a path where something else is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// `/dev/zero`, a terminal, and the like.
    CharacterDevice,
    /// A disk or a partition.
    BlockDevice,
    /// A symbolic link, where none is followed.
    Link,
    /// A kind that the system does not name.
    Unknown,
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Symlink => Self::Link,
            FileType::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Link => "a symbolic link",
            Self::Unknown => "of an unknown kind",
        })
    }
}

/// What is wrong with a file. The message has no path: [`FileError`] adds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// What the system said.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is of another kind.
    #[error("it is {found}: expected {expected}")]
    Kind {
        /// What it is.
        found: FileKind,
        /// What is needed there.
        expected: FileKind,
    },
    /// It is a view of the kernel's state; reading it may wait or change something.
    #[error("it belongs to the kernel ({system}): expected a file that is stored, as on a disk")]
    OfKernel {
        /// The file system.
        system: &'static str,
    },
    /// It is larger than the limit.
    #[error("it has {bytes} bytes: expected at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// It was written to while it was read.
    #[error("it changes while it is read: write another file, and rename that one when it is complete")]
    Changes,
    /// Another file got its name while it was opened; only where `/proc` is not mounted.
    #[error("another file has taken its place while it was opened: try again")]
    Replaced,
    /// Another process prevents opening it, by `F_SETLEASE`.
    #[error("another process has had a lease on it for {waited:?}: end that process, or try again")]
    Leased {
        /// How long the open waited.
        waited: Duration,
    },
}

impl Problem {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<rustix::io::Errno> for Problem {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<Problem> for io::Error {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidInput, other),
        }
    }
}

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}
