// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened to a vCPU last.

/// What happened to the vCPU last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// It left by the doorbell, in a state in which it runs into the trampoline by itself.
    Bell,
    /// It left by the doorbell in any other state, at CPL 3.
    Doorbell,
    /// It left by a system call.
    Syscall,
    /// It left by an exception of user code.
    Exception { vector: u8 },
    /// It was interrupted, or failed: it may be anywhere.
    Anywhere,
    /// Its registers have been set since: it is at CPL 3, between two instructions.
    User,
}
