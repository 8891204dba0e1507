// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processor state that the first instruction of each way back into a program meets: what sets it, and why the last
//! request cannot.
//!
//! The inventory (`inventory.rs`) says what the program finds again; this table is about the few instructions before.
//! The trampoline, which restores registers, runs in the state that it finds. That state must not depend on the last
//! request, or else the next one begins with a fault in Mayfly's own code and another request's registers in the frame.
//!
//! `tests/ways.rs` walks the table: before each way it drives each row to its extremes, in programs that ring the
//! doorbell and in programs that serve connections, and compares what the next request finds with what a fresh fork's
//! finds. `rust/kvm/src/tests/ways.rs` does the same with all that KVM shows of the vCPU. Both run on paging-based KVM
//! and in the hardware lane.

/// A way back into the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The first run of a fork enters the trampoline.
    FirstRun,
    /// A vCPU that stands at the doorbell's own `out` runs into the trampoline by itself.
    Doorbell,
    /// The program rang by an `out` elsewhere, or in an unusual state: the host sets the registers.
    OddDoorbell,
    /// The response came on a connection, by a system call: its return leads into the trampoline.
    SystemCall,
    /// The request was given up: paused, waiting, or after a fault that its handler did not end.
    GivenUp,
    /// A worker that keeps its state is reset: the doorbell would return, so the host sets the registers.
    KeptReset,
    /// A worker that keeps its state: the doorbell or the system call returns to the code that made it.
    Kept,
    /// A paused request goes on where it was interrupted.
    Resumed,
    /// Another thread's turn, or a signal handler: the host loads a whole context.
    Context,
}

/// All ways, in the order of [`Meets::set_by`].
pub const WAYS: [Way; 9] = [
    Way::FirstRun,
    Way::Doorbell,
    Way::OddDoorbell,
    Way::SystemCall,
    Way::GivenUp,
    Way::KeptReset,
    Way::Kept,
    Way::Resumed,
    Way::Context,
];

/// What determines the state at the first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBy {
    /// The host sets it, to the same value each time, through the shared page.
    Host,
    /// The host sets it, by an ioctl.
    Ioctl,
    /// The host has checked it: another value takes [`Way::OddDoorbell`], or poisons the worker.
    Looked,
    /// The processor sets it on this way, whatever it was.
    Processor,
    /// Nothing that a program can do changes it.
    Fixed,
    /// Nothing before the trampoline sets it depends on it.
    Unused,
    /// It belongs to the request or the worker: the code that left it goes on.
    Own,
}

/// One part of the state that a way back meets.
#[derive(Debug, Clone, Copy)]
pub struct Meets {
    /// Its name; the extremes in `mayfly_engine::testing::extremes` use the same names.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What sets it on each way, in the order of [`WAYS`].
    pub set_by: [SetBy; WAYS.len()],
    /// Why the last request cannot.
    pub why: &'static str,
    /// Whether code at CPL 3 can change it; otherwise there are no extremes.
    pub has_extremes: bool,
}

use SetBy::{Fixed, Host, Ioctl, Looked, Own, Processor, Unused};

#[rustfmt::skip]
/// The table.
pub const MEETS: &[Meets] = &[
    //                                    first run doorbell   odd        call       given up   kept reset kept   resumed context
    Meets { name: "rip", what: "where it goes on",
        set_by:                          [Host,     Looked,    Host,      Host,      Host,      Host,      Looked, Own,   Host],
        why: "behind the doorbell's `out` there is a jump to the trampoline in a page that no program can write; elsewhere the host sets RIP, or the RCX of SYSRET",
        has_extremes: true },
    Meets { name: "cpl", what: "the privilege: CS",
        set_by:                          [Host,     Looked,    Looked,    Looked,    Ioctl,     Looked,    Looked, Own,   Ioctl],
        why: "only `syscall` and exceptions raise it, into the guest kernel, which the exit tells of: by IF and RIP on hardware; on paging-based KVM by POR in the entry, which no KVM emulates, and by CS where RSP has it emulate",
        has_extremes: true },
    Meets { name: "ss", what: "the stack segment",
        set_by:                          [Host,     Fixed,     Fixed,     Processor, Ioctl,     Fixed,     Own,    Own,   Ioctl],
        why: "there is one stack segment for CPL 3, and a null one is refused there",
        has_extremes: true },
    Meets { name: "rsp", what: "the stack pointer",
        set_by:                          [Host,     Looked,    Host,      Host,      Host,      Host,      Own,    Own,   Host],
        why: "one outside the lower half takes the odd way; besides, the trampoline's first instruction sets it",
        has_extremes: true },
    Meets { name: "flags", what: "RFLAGS: TF NT RF AC ID IOPL DF and the arithmetic flags",
        set_by:                          [Host,     Looked,    Host,      Host,      Host,      Host,      Own,    Own,   Host],
        why: "all but the arithmetic flags must be as they are at first, or it takes the odd way",
        has_extremes: true },
    Meets { name: "selectors", what: "DS, ES, FS and GS",
        set_by:                          [Host,     Unused,    Unused,    Unused,    Ioctl,     Unused,    Own,    Own,   Ioctl],
        why: "in 64-bit mode no access depends on DS and ES; the trampoline uses none by FS and GS, and reads and clears all four first",
        has_extremes: true },
    Meets { name: "bases", what: "FS and GS base",
        set_by:                          [Host,     Unused,    Unused,    Unused,    Ioctl,     Unused,    Own,    Own,   Ioctl],
        why: "the trampoline makes no access by FS or GS before it sets them",
        has_extremes: true },
    Meets { name: "x87", what: "x87 registers, control and status word, an exception that is unmasked and pending",
        set_by:                          [Unused,   Unused,    Unused,    Unused,    Unused,    Unused,    Own,    Own,   Ioctl],
        why: "the first x87 instruction is XRSTOR, which raises no pending exception and replaces it",
        has_extremes: true },
    Meets { name: "vector", what: "MXCSR, vector and mask registers, XINUSE",
        set_by:                          [Unused,   Unused,    Unused,    Unused,    Unused,    Unused,    Own,    Own,   Ioctl],
        why: "the first vector instruction is XRSTOR, of all components that XCR0 has",
        has_extremes: true },
    Meets { name: "general", what: "general registers but RSP",
        set_by:                          [Host,     Unused,    Host,      Host,      Host,      Host,      Own,    Own,   Host],
        why: "the trampoline reads none before it loads it",
        has_extremes: true },
    Meets { name: "events", what: "exceptions, interrupts and traps about to be delivered, and an instruction that KVM has yet to finish",
        set_by:                          [Fixed,    Looked,    Host,      Host,      Ioctl,     Host,      Own,    Own,   Ioctl],
        why: "the trap flag takes the odd way; to set registers drops pending exceptions; the `out` is finished by the run that follows",
        has_extremes: true },
    Meets { name: "control", what: "CR0, CR3, CR4, EFER, XCR0, descriptor tables, TSS, MSRs",
        set_by:                          [Host,     Fixed,     Fixed,     Fixed,     Ioctl,     Fixed,     Fixed,  Fixed, Ioctl],
        why: "CPL 3 cannot write them, emulated or not; nothing at CPL 0 does",
        has_extremes: false },
    Meets { name: "debug", what: "DR0 to DR3 and DR7",
        set_by:                          [Fixed,    Fixed,     Fixed,     Fixed,     Fixed,     Fixed,     Fixed,  Fixed, Fixed],
        why: "CPL 3 cannot write them; DR6 tells of the last trap, and nothing reads it",
        has_extremes: false },
    Meets { name: "pages", what: "the doorbell's page, the control line and their translations",
        set_by:                          [Fixed,    Fixed,     Fixed,     Fixed,     Fixed,     Fixed,     Fixed,  Fixed, Fixed],
        why: "above the program's part of the address space: no system call maps, protects or unmaps there, and user entries are read-only",
        has_extremes: false },
];
