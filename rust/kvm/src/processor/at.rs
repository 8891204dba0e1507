// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a vCPU stands: how its last run ended, or what was set since.

/// Where the vCPU stands: how its last run ended, or what was set since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// It exited by the doorbell, in a state from which it runs into the trampoline by itself.
    Bell,
    /// It exited by the doorbell in any other state, at CPL 3.
    Doorbell,
    /// It exited by a system call.
    Syscall,
    /// It exited by an exception of user code.
    Exception { vector: u8 },
    /// It was interrupted, or failed: it may be anywhere.
    Anywhere,
    /// Its registers have been set since: it is at CPL 3, between two instructions.
    User,
}
