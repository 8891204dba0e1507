// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses to pages, and reasons to refuse one.

use mayfly_machine::MemoryError;

/// Kind of access to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

/// Why an access was refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No mapping permits it.
    Denied,
    /// The mapping permits it, but lies past the end of its file.
    PastEnd,
    /// The mapping permits it, but getting the page may block this thread.
    NotHere,
    /// The machine has no page left, or is broken.
    Machine(MemoryError),
}
