// SPDX-License-Identifier: MIT OR Apache-2.0
//! One mapping of an address space.

use mayfly_kvm::{Origin, Prot};

use crate::pages::PageRange;

/// What a mapping is, beyond what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anonymous and private: image, heap, `mmap`.
    Private,
    /// Anonymous and shared. With one process it differs from private in what `MADV_DONTNEED` does.
    Shared,
    /// The stack: a gap below it stays free of mappings that do not insist.
    Stack,
}

/// A mapping: pages with one protection, one kind and one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    pub(crate) range: PageRange,
    pub(crate) prot: Prot,
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
}

impl Vma {
    /// Whether a program sees no difference between this mapping and `other`, position apart. Where they
    /// come from is Mayfly's business, not the program's.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.prot == other.prot && self.kind == other.kind
    }

    /// Whether this mapping and `next`, which starts where it ends, are kept as one.
    pub(crate) fn merges_with(&self, next: &Self) -> bool {
        self.range.end() == next.range.start() && self.is_alike(next) && self.origin == next.origin
    }

    /// Whether anything at all may be done with the pages. On x86-64 a page that may be written or executed may
    /// also be read.
    pub(crate) fn is_accessible(&self) -> bool {
        self.prot != Prot::NONE
    }
}
