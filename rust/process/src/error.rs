// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors, one type per operation.

use std::io;

use crate::filter::asm::AssembleError;
use crate::poison::Poison;

/// A script that does not fit its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a zygote's script does not fit its pages")]
pub struct ScriptTooLong;

/// Why no zygote could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Memory for the host code, the script or the executable.
    #[error("memory for a zygote: {0}")]
    Memory(#[source] io::Error),
    /// The sockets between server and zygote.
    #[error("sockets for a zygote: {0}")]
    Socket(#[source] io::Error),
    /// The process.
    #[error("a zygote's process: {0} (clone, execveat of memory; see vm.memfd_noexec and the limit on processes)")]
    Spawn(#[source] io::Error),
    /// One of its first system calls.
    #[error("a zygote's first calls: {0}")]
    Script(String),
    /// A region of the image lies outside the program's memory, or is not of whole pages.
    #[error("a region {address:#x}+{bytes:#x} outside the program's memory, or not of whole pages")]
    Region {
        /// Its start.
        address: u64,
        /// Its length.
        bytes: u64,
    },
    /// The image could not be mapped.
    #[error("mapping the image into a zygote: {0}")]
    Image(String),
    /// The filter cannot be encoded.
    #[error("the seccomp filter: {0}")]
    Filter(#[from] AssembleError),
    /// Its script is too long.
    #[error(transparent)]
    TooLong(#[from] ScriptTooLong),
}

impl StartError {
    pub(crate) fn memory(error: io::Error) -> Self {
        Self::Memory(error)
    }

    pub(crate) fn socket(error: io::Error) -> Self {
        Self::Socket(error)
    }

    pub(crate) fn spawn(error: io::Error) -> Self {
        Self::Spawn(error)
    }
}

/// Why no stub could be made, or none reaped.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The worker's memory.
    #[error("memory for a stub: {0}")]
    Memory(#[source] io::Error),
    /// A region lies outside the program's part of the address space, or is not of whole pages.
    #[error("a region {address:#x}+{bytes:#x} outside the program's memory, or not of whole pages")]
    Region {
        /// Its start.
        address: u64,
        /// Its length.
        bytes: u64,
    },
    /// Too many regions.
    #[error("a stub is made with at most {most} regions; orders map the others")]
    Regions {
        /// The bound.
        most: usize,
    },
    /// Regions of too many files.
    #[error("a stub is made with regions of at most {most} files; orders map the others")]
    Files {
        /// The bound.
        most: usize,
    },
    /// A system call of the zygote's or the new stub's.
    #[error("the birth of a stub: {0}")]
    Script(String),
    /// The script is too long.
    #[error(transparent)]
    TooLong(#[from] ScriptTooLong),
    /// The zygote did not answer; it is given up.
    #[error("the zygote did not answer: {0}")]
    Line(#[source] io::Error),
    /// The zygote was given up earlier.
    #[error("the zygote is gone")]
    Gone,
    /// The kernel does not make wake-ups synchronous.
    #[error("SECCOMP_IOCTL_NOTIF_SET_FLAGS: {0}")]
    Wake(#[source] io::Error),
    /// The processor cannot be chosen.
    #[error("binding a stub to a processor: {0}")]
    Pin(#[source] io::Error),
    /// A signal to a stub, or waiting for its end.
    #[error("ending a stub: {0}")]
    End(#[source] io::Error),
    /// The stub's first rings.
    #[error("the first rings of a stub: {0}")]
    Ring(#[from] RingError),
    /// A stub could not be waited for.
    #[error("stub {pid} cannot be waited for (errno {errno})")]
    Reap {
        /// Its number.
        pid: i32,
        /// The error number.
        errno: i32,
    },
}

/// Why a stub cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The process has ended.
    #[error("the stub has ended")]
    Gone,
    /// It did what no stub does; it must not run again.
    #[error("the stub is poisoned: {0}")]
    Poisoned(#[from] Poison),
    /// An answer that does not belong to what is waiting: an error of the server's, and the stub is as it was.
    #[error("the stub does not wait for such an answer")]
    NotWaiting,
    /// An order had another result than expected.
    #[error("an ordered call returned {result:#x}")]
    OrderFailed {
        /// What it returned.
        result: u64,
    },
    /// An ioctl of the listener.
    #[error("{call}: {source}")]
    Ioctl {
        /// The ioctl.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
