// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the embedder does next after an exit.

use mayfly_machine::MemoryError;

use crate::base::signal_names;

/// How a program was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The signal.
    pub signal: i32,
    /// The processor's exception, unless the program sent the signal itself.
    pub vector: Option<u8>,
    /// The address that the program accessed, for a page fault.
    pub address: Option<u64>,
    /// The instruction that faulted, or the one after the system call that sent the signal.
    pub rip: u64,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "killed by {} at {:#x}", signal_names::name(self.signal), self.rip)?;
        match (self.address, self.vector) {
            (Some(address), _) => write!(f, ": access to {address:#x}"),
            (None, Some(vector)) => write!(f, ": processor exception {vector}"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// What the embedder does next after an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run the machine again.
    Continue,
    /// The program has ended.
    Exited {
        /// Its exit status, 0 to 255.
        status: i32,
    },
    /// The program was killed by a signal.
    Faulted(Fault),
    /// The program needs another page, and the machine's memory limit is reached.
    MemoryLimit,
    /// All threads wait. Call [`crate::Process::wake`] at `until_ns`, when something has arrived from outside, or when
    /// [`crate::Process::remote_events`] is readable.
    Waits {
        /// Deadline by the monotonic clock; `None`: never. A deadline of *now* means that the next step may block.
        until_ns: Option<u64>,
        /// The call that one of the threads waits in.
        call: &'static str,
    },
    /// The program has brought the machine into a state that no program needs, and may be attacking. The machine must
    /// not be used again.
    Violation(String),
    /// The machine cannot continue, for this reason. It must not be used again.
    Poison(String),
}

impl From<MemoryError> for Step {
    /// The guest causes the memory limit. Any other error means that address space and page tables disagree: the
    /// machine must not be used again.
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Limit { .. } | MemoryError::Full => Self::MemoryLimit,
            other => Self::Poison(format!("guest memory: {other}")),
        }
    }
}
