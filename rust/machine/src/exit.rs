// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a machine stopped.

/// The error code of a page fault (SDM vol. 3A, 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFaultCode(u64);

impl PageFaultCode {
    /// The code with these bits.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The code as the processor has it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The page was present: the access was not allowed.
    #[must_use]
    pub const fn present(self) -> bool {
        self.0 & 1 != 0
    }

    /// The access was a write.
    #[must_use]
    pub const fn write(self) -> bool {
        self.0 & 2 != 0
    }

    /// The access came from CPL 3.
    #[must_use]
    pub const fn user(self) -> bool {
        self.0 & 4 != 0
    }

    /// A reserved bit was set in an entry: a bug of the host.
    #[must_use]
    pub const fn reserved(self) -> bool {
        self.0 & 8 != 0
    }

    /// The access was an instruction fetch.
    #[must_use]
    pub const fn fetch(self) -> bool {
        self.0 & 16 != 0
    }
}

/// Why a machine's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The program rang the doorbell: RDI is the operation, RSI its argument, RDX the ABI version. All of them are
    /// untrusted.
    Doorbell,
    /// The program made a system call: RAX is the number; RDI, RSI, RDX, R10, R8, R9 the arguments.
    Syscall,
    /// A page fault at CPL 3; the next run retries the instruction.
    PageFault {
        /// The address that was accessed.
        address: u64,
        /// The error code.
        code: PageFaultCode,
        /// Address of the instruction.
        rip: u64,
    },
    /// Another exception; the next run retries or, for a trap, goes on.
    Exception {
        /// The vector, 0 to 31.
        vector: u8,
        /// The error code, or 0.
        code: u64,
        /// Address of the instruction.
        rip: u64,
    },
    /// A signal, or the machine's kicker, interrupted the run; the program can go on.
    Kicked,
    /// Something that no well-behaved machine does; it must not be used again.
    Unexpected(Unexpected),
}

/// Exits that poison a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexpected {
    /// The vCPU shut down, as after a triple fault.
    #[error("the virtual processor shut down")]
    Shutdown,
    /// KVM failed to emulate or enter.
    #[error("KVM internal error {suberror}")]
    Internal {
        /// KVM's suberror.
        suberror: u32,
    },
    /// The vCPU could not be entered.
    #[error("KVM could not enter the guest (reason {reason:#x})")]
    Entry {
        /// The hardware's reason.
        reason: u64,
    },
    /// Port I/O that the bitmap should not have let through, or a string instruction on the doorbell.
    #[error("port I/O on {port:#x}")]
    Port {
        /// The port.
        port: u16,
    },
    /// Access to physical memory that does not exist.
    #[error("access to guest-physical address {address:#x} outside memory")]
    Mmio {
        /// The guest-physical address.
        address: u64,
    },
    /// An exception at CPL 0, where the guest kernel never faults, or of code that is not 64-bit code.
    #[error("exception {vector} in the guest kernel at {rip:#x} (cs {cs:#x})")]
    Kernel {
        /// The vector.
        vector: u8,
        /// The instruction.
        rip: u64,
        /// The code segment that it ran in.
        cs: u64,
    },
    /// An exit at another privilege than the one that it is made at: user code is, or claims to be, at CPL 0.
    #[error("an exit at the wrong privilege: port {port:#x}, rip {rip:#x}, rsp {rsp:#x}, flags {rflags:#x}")]
    Privilege {
        /// The port that tells what kind of exit it is.
        port: u16,
        /// The instruction.
        rip: u64,
        /// The stack pointer.
        rsp: u64,
        /// The flags.
        rflags: u64,
    },
    /// A stub process did what none does.
    #[error("a stub process: {0}")]
    Stub(String),
    /// A stub process ended, which the server did not ask for.
    #[error("the program's process ended: {what}")]
    Ended {
        /// All that is known of it.
        what: String,
        /// It was killed, as by the kernel when memory is short: not by what its program did.
        killed: bool,
    },
    /// Any other exit.
    #[error("KVM exit {0}")]
    Other(String),
}

/// Who is to blame for an exit that poisons a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The program has done what a processor answers with a general-protection fault.
    Fault,
    /// The program has put the machine into a state that no program needs: this may be an attack.
    Program,
    /// The host has given the machine a wrong state or wrong page tables; the program cannot cause this.
    Host,
}

impl Unexpected {
    /// Who is to blame. A machine runs a program and the few instructions of the guest kernel: the host is to blame for
    /// what only the host can get wrong, and the program for everything else.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            // String or wide I/O on the ports that user code may write: as bad as on any other port, where it is #GP.
            Self::Port { .. } => Blame::Fault,
            // KVM cannot continue the guest: because of an instruction that it cannot emulate (paging-based KVM
            // emulates while RSP is not canonical), faults within faults, or an exit that nothing in a machine asks
            // for.
            Self::Shutdown
            | Self::Internal { .. }
            | Self::Kernel { .. }
            | Self::Privilege { .. }
            | Self::Stub(_)
            | Self::Ended { killed: false, .. }
            | Self::Other(_) => Blame::Program,
            // The host has set the state that the processor refuses; guest-physical addresses come from page tables,
            // which only the host writes.
            Self::Entry { .. } | Self::Mmio { .. } | Self::Ended { killed: true, .. } => Blame::Host,
        }
    }
}
