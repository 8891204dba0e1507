// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mapping of an address space.

use mayfly_machine::{Origin, Prot};
use serde::{Deserialize, Serialize};

use crate::base::ids::InodeId;
use crate::base::pages::PageRange;

/// What a mapping is, apart from its protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VmaKind {
    /// Anonymous and private: image, heap, `mmap`.
    Private,
    /// Anonymous and shared. With one process it differs from private in what `MADV_DONTNEED` does.
    Shared,
    /// The stack: only fixed mappings may lie in the gap below it.
    Stack,
    /// A file of the host's.
    File {
        file: FileId,
        /// Where in the file the mapping starts, in bytes; a multiple of the page size.
        offset: u64,
        /// MAP_SHARED: it can never become writable, since only read-only files can be mapped shared.
        shared: bool,
    },
    /// A file of a durable mount, shared: its pages are the host's.
    Durable {
        file: FileId,
        /// Where in the file the mapping starts, in bytes; a multiple of the page size.
        offset: u64,
        /// Whether it may become writable.
        writable: bool,
    },
    /// A file of the overlay. Pages of a shared mapping hold the file's newest content.
    Overlay {
        inode: InodeId,
        /// Where in the file the mapping starts, in bytes; a multiple of the page size.
        offset: u64,
        shared: bool,
        /// Whether it may become writable; a private one always may.
        writable: bool,
    },
}

/// Index of a mapped file in its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId(pub(crate) u16);

impl VmaKind {
    /// The same kind, `bytes` further on in the mapping.
    fn shifted(self, bytes: u64) -> Self {
        match self {
            Self::File { file, offset, shared } => Self::File { file, offset: offset.wrapping_add(bytes), shared },
            Self::Durable { file, offset, writable } => {
                Self::Durable { file, offset: offset.wrapping_add(bytes), writable }
            }
            Self::Overlay { inode, offset, shared, writable } => {
                Self::Overlay { inode, offset: offset.wrapping_add(bytes), shared, writable }
            }
            other => other,
        }
    }
}

/// A mapping: pages with one protection, one kind and one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vma {
    pub(crate) range: PageRange,
    pub(crate) prot: Prot,
    pub(crate) kind: VmaKind,
    pub(crate) origin: Origin,
}

impl Vma {
    /// The same mapping, but for `range`: a part of it, or an extension.
    pub(crate) fn covering(&self, range: PageRange) -> Self {
        let kind = self.kind.shifted(range.start().wrapping_sub(self.range.start()));
        Self { range, kind, ..*self }
    }

    /// Whether a program sees no difference between this mapping and `other`, apart from their position. Their origins
    /// are Mayfly's, and do not count.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.prot == other.prot && other.kind == self.kind.shifted(other.range.start().wrapping_sub(self.range.start()))
    }

    /// Whether this mapping and `next`, which starts where it ends, are merged.
    pub(crate) fn merges_with(&self, next: &Self) -> bool {
        self.range.end() == next.range.start() && self.is_alike(next) && self.origin == next.origin
    }

    /// Whether any access is permitted. On x86-64 a page that may be written or executed may also be read.
    pub(crate) fn is_accessible(&self) -> bool {
        self.prot != Prot::NONE
    }
}
