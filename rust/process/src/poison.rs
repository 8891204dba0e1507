// SPDX-License-Identifier: MIT OR Apache-2.0
//! What no stub does whose filter and host code are whole.

/// Why a stub must not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The call was made by a process that is not the stub.
    #[error("a call of process {pid}, which is not the stub")]
    Process {
        /// Its number.
        pid: u32,
    },
    /// The call was made by another convention than x86-64's.
    #[error("a call by the convention {arch:#x}")]
    Convention {
        /// `AUDIT_ARCH_*`.
        arch: u32,
    },
    /// The call was made at an instruction of the host pages that makes none, or in the page of vsyscalls.
    #[error("a system call at {rip:#x}")]
    Place {
        /// The instruction behind it.
        rip: u64,
    },
    /// Another call than the doorbell's was made at its instruction, or a handler's, or a ring's.
    #[error("system call {number} where the doorbell's belongs")]
    Number {
        /// The call.
        number: i32,
    },
    /// It rang where no ring is expected in the stub's state.
    #[error("a ring that nothing led to")]
    Unexpected,
    /// The call at the orders' instruction is not the one that was ordered, in all its registers.
    #[error("system call {number} was not ordered")]
    Order {
        /// The call.
        number: i32,
    },
    /// A call was notified of that the filter traps.
    #[error("system call {number} should have been trapped")]
    Filter {
        /// The call.
        number: i32,
    },
    /// The frame is not where frames are.
    #[error("a signal's frame at {address:#x}")]
    Frame {
        /// The alleged address.
        address: u64,
    },
    /// A signal for which nothing rings.
    #[error("a ring for signal {signal}")]
    Signal {
        /// The alleged number.
        signal: u64,
    },
    /// A fault, or a trap, in the host code.
    #[error("signal {signal} in the host pages, at {rip:#x}")]
    HostCode {
        /// The number.
        signal: i32,
        /// The instruction.
        rip: u64,
    },
    /// Signals that no kick explains came again and again where a ring is answered.
    #[error("{signals} signals in a row in the host pages, the last at {rip:#x}")]
    Signals {
        /// How many.
        signals: u32,
        /// The last one's instruction.
        rip: u64,
    },
    /// The last call before a program went on had another result than expected. A program that goes on could ring the
    /// same, so that nothing is known of its memory.
    #[error("the last order returned {result:#x}")]
    LastOrder {
        /// What it returned, or the program says.
        result: u64,
    },
    /// The program left 64-bit mode.
    #[error("a signal in code segment {selector:#x}")]
    Segment {
        /// The selector.
        selector: u16,
    },
    /// The first ring named another listener than its own.
    #[error("listener {number} at birth")]
    Listener {
        /// The alleged number.
        number: u64,
    },
}
