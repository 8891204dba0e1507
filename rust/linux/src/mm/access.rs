// SPDX-License-Identifier: MIT OR Apache-2.0
//! An access to a page, and why it was refused.

use mayfly_machine::MemoryError;

/// What is done to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

/// Why an address may not be accessed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No mapping allows it.
    Denied,
    /// The mapping allows it, but the file has nothing there.
    PastEnd,
    /// The mapping allows it, and getting it may hold the thread up.
    NotHere,
    /// The machine has no page for it, or is broken.
    Machine(MemoryError),
}
