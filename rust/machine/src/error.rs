// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of a machine's memory and of its system calls.

/// Why an operation on a machine's address space failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The address is not page aligned, or the range leaves the program's part of the address space.
    #[error("address range {address:#x}+{len:#x} is unaligned or outside the program's address space")]
    Range {
        /// Start of the range.
        address: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The machine's memory limit is reached.
    #[error("the machine's memory limit of {limit_pages} pages is reached")]
    Limit {
        /// The limit in pages.
        limit_pages: u64,
    },
    /// The process's bound on memory is reached.
    #[error("the process's bound on memory is reached")]
    Full,
    /// A page is already there.
    #[error("page {address:#x} is already mapped")]
    Exists {
        /// The page.
        address: u64,
    },
    /// No page is there.
    #[error("page {address:#x} is not mapped")]
    Absent {
        /// The page.
        address: u64,
    },
    /// The kernel refused to take pages back; the machine must not be used again.
    #[error("the host kernel refused to take pages back (errno {errno})")]
    Host {
        /// The error number.
        errno: i32,
    },
}

/// A guest address that is not mapped for the wanted access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("guest address {address:#x} is not accessible")]
pub struct BadAddress {
    /// The first byte that is not accessible.
    pub address: u64,
}

/// A system call whose return address is not a user address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("system call with return address {rip:#x}")]
pub struct BadReturn {
    /// The address the call would return to.
    pub rip: u64,
}
