// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of machines.

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

/// Why a machine could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A step failed that the engine needs the kernel for.
    #[error("{call}: {source}")]
    Call {
        /// The system call, the ioctl, or the step.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The machine's memory could not be mapped.
    #[error("guest memory of {bytes} bytes: {source}")]
    Map {
        /// Size asked for.
        bytes: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Mayfly's own pages or the inbox did not fit.
    #[error("guest memory: {0}")]
    Memory(#[from] MemoryError),
}

impl CreateError {
    /// Whether the process's bound on memory is the reason.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Memory(MemoryError::Full))
    }

    /// Makes the error of a failed mapping of this size.
    pub fn map(bytes: u64) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Map { bytes, source }
    }
}

/// A processor could not be run, or its state not be read or set, for a reason of the host's.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct RunError {
    /// The system call, the ioctl, or the step.
    pub call: &'static str,
    /// What the kernel said.
    pub source: std::io::Error,
}

/// Why a machine could not be frozen into an image.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Reading the processor's state failed.
    #[error(transparent)]
    Processor(#[from] RunError),
    /// Sealing or mapping the image failed.
    #[error("{call}: {source}")]
    Image {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Taking pages away from the program failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The processor is not in user mode where it could be resumed.
    #[error("the machine is not at a point where it can be frozen: {0}")]
    State(String),
}

impl FreezeError {
    /// Makes the error of a system call that failed for the image.
    pub fn image(call: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Image { call, source }
    }
}
