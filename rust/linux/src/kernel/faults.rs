// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults and other exceptions of a program, and the signals that they become.

use mayfly_engine::Machine;
use mayfly_machine::{PageFaultCode, layout};

use crate::base::step::{Fault, Step};
use crate::kernel::process::Process;
use crate::mm::access::{Access, Refused};
use crate::mm::fault::fault_in;
use crate::signal::frame::Trap;
use crate::signal::signals;

/// `si_code`s (`<asm-generic/siginfo.h>`).
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const FPE_INTDIV: i32 = 1;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;

/// Handles a page fault of the program. `may_block`: as [`crate::Context::may_block`].
pub(crate) fn page_fault(
    process: &Process,
    machine: &mut Machine,
    address: u64,
    code: PageFaultCode,
    rip: u64,
    may_block: bool,
) -> Step {
    if address < layout::USER_END && code.reserved() {
        return Step::Poison(format!("a page-table entry with reserved bits for {address:#x}"));
    }
    // The instruction is the program's, at CPL 3: what it reads at CPL 0 are descriptor tables. For addresses that are
    // not the program's, paging-based KVM reports error codes of its own.
    if address < layout::USER_END && !code.user() {
        return Step::Violation(format!("an access to {address:#x} at CPL 0, by the instruction at {rip:#x}"));
    }
    let access = if code.write() {
        Access::Write
    } else if code.fetch() {
        Access::Execute
    } else {
        Access::Read
    };
    match fault_in(machine, &process.memory, process.overlay.inodes(), address, access, may_block) {
        Ok(()) => Step::Continue,
        Err(Refused::Denied) => {
            Step::Faulted(Fault { signal: libc::SIGSEGV, vector: Some(14), address: Some(address), rip })
        }
        Err(Refused::PastEnd) => {
            Step::Faulted(Fault { signal: libc::SIGBUS, vector: Some(14), address: Some(address), rip })
        }
        // The program's instruction is repeated.
        Err(Refused::NotHere) => process.continue_elsewhere(),
        Err(Refused::Machine(error)) => error.into(),
    }
}

/// The step for an exception of the program other than a page fault. Signals are Linux's: `arch/x86/kernel/traps.c`.
pub(crate) fn exception(vector: u8, rip: u64) -> Step {
    let signal = match vector {
        // #DE, #MF, #XM
        0 | 16 | 19 => libc::SIGFPE,
        // #DB, #BP
        1 | 3 => libc::SIGTRAP,
        // #UD
        6 => libc::SIGILL,
        // #TS, #NP, #SS, #AC
        10 | 11 | 12 | 17 => libc::SIGBUS,
        // #OF, #BR, #NM, #GP, #PF, #CP
        4 | 5 | 7 | 13 | 14 | 21 => libc::SIGSEGV,
        // A program cannot cause #NMI, #DF, #MC and the reserved ones.
        _ => return Step::Violation(format!("exception {vector} at {rip:#x}")),
    };
    Step::Faulted(Fault { signal, vector: Some(vector), address: None, rip })
}

/// Delivers a fault to the program's handler, if there is one, instead of ending the program. `error` is the
/// exception's code.
///
/// A fault in Mayfly's own guest code always ends it: a handler would read registers of another request if the return
/// to the program had gone wrong.
pub(crate) fn deliver_or(process: &mut Process, machine: &mut Machine, step: Step, error: u64) -> Step {
    let Step::Faulted(fault) = step else { return step };
    if layout::is_own_code(fault.rip) {
        return Step::Violation(format!("in Mayfly's own code: {fault}"));
    }
    let vector = fault.vector.unwrap_or_default();
    let trap = Trap { number: vector.into(), error, address: fault.address.unwrap_or(0) };
    let code = match (fault.signal, vector) {
        (libc::SIGSEGV, 14) if fault.address.is_some_and(|address| process.memory.find(address).is_some()) => {
            SEGV_ACCERR
        }
        (libc::SIGSEGV, 14) => SEGV_MAPERR,
        (libc::SIGBUS, 14) => BUS_ADRERR,
        (libc::SIGBUS, 17) => BUS_ADRALN,
        (libc::SIGFPE, 0) => FPE_INTDIV,
        (libc::SIGILL, _) => ILL_ILLOPN,
        (libc::SIGTRAP, 1) => TRAP_TRACE,
        _ => signals::SI_KERNEL,
    };
    process.fault(machine, fault, code, trap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal_of(vector: u8) -> Option<i32> {
        match exception(vector, 0x1000) {
            Step::Faulted(fault) => Some(fault.signal),
            _ => None,
        }
    }

    #[test]
    fn exceptions_become_the_signals_of_linux() {
        assert_eq!(signal_of(0), Some(libc::SIGFPE));
        assert_eq!(signal_of(3), Some(libc::SIGTRAP));
        assert_eq!(signal_of(6), Some(libc::SIGILL));
        assert_eq!(signal_of(13), Some(libc::SIGSEGV));
        assert_eq!(signal_of(17), Some(libc::SIGBUS));
        assert_eq!(signal_of(19), Some(libc::SIGFPE));
    }

    #[test]
    fn exceptions_that_no_program_can_cause_are_violations() {
        for vector in [2, 8, 15, 18, 31, 255] {
            assert!(matches!(exception(vector, 0x1000), Step::Violation(_)), "{vector}");
        }
    }

    #[test]
    fn a_fault_names_signal_and_address() {
        let fault = Fault { signal: libc::SIGSEGV, vector: Some(14), address: Some(0x10), rip: 0x40_1000 };
        assert_eq!(fault.to_string(), "killed by SIGSEGV at 0x401000: access to 0x10");
        let abort = Fault { signal: libc::SIGABRT, vector: None, address: None, rip: 0x40_1000 };
        assert_eq!(abort.to_string(), "killed by SIGABRT at 0x401000");
    }
}
