// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults and other exceptions: what a fault is allowed to bring in, and which signal it is otherwise.
//! How the program's handler gets it is in `delivery.rs`.

use mayfly_kvm::{Machine, MemoryError, PageFaultCode, layout};

use crate::address_space::AddressSpace;
use crate::file_fault;
use crate::frame::Trap;
use crate::pages::{self, PageRange};
use crate::process::{Process, Step};
use crate::signals;
use crate::vma::{Kind, Vma};
use mayfly_kvm::{Origin, PAGE_SIZE, Prot};

/// `si_code`s (`<asm-generic/siginfo.h>`).
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const FPE_INTDIV: i32 = 1;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;

/// How a program was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The signal.
    pub signal: i32,
    /// The processor's exception, unless the program sent the signal itself.
    pub vector: Option<u8>,
    /// The address that the program accessed, for a page fault.
    pub address: Option<u64>,
    /// Where the program was: the faulting instruction, or the one after the system call that sent the signal.
    pub rip: u64,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "killed by {} at {:#x}", signals::name(self.signal), self.rip)?;
        match (self.address, self.vector) {
            (Some(address), _) => write!(f, ": access to {address:#x}"),
            (None, Some(vector)) => write!(f, ": processor exception {vector}"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// What is done to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

/// Why an address may not be accessed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No mapping allows it.
    Denied,
    /// The mapping allows it, but the file has nothing there.
    PastEnd,
    /// The mapping allows it, and getting it may hold the thread up.
    NotHere,
    /// The machine has no page for it, or is broken.
    Machine(MemoryError),
}

/// Makes `access` to `address` possible if the address space allows it: brings in a page, or makes one writable.
pub(crate) fn bring_in(
    machine: &mut Machine,
    memory: &AddressSpace,
    address: u64,
    access: Access,
    may_block: bool,
) -> Result<(), Refused> {
    let vma = memory.find(address).ok_or(Refused::Denied)?;
    let allowed = match access {
        Access::Read => vma.is_accessible(),
        Access::Write => vma.prot.contains(Prot::WRITE),
        Access::Execute => vma.prot.contains(Prot::EXEC),
    };
    if !allowed {
        return Err(Refused::Denied);
    }
    let page = pages::align_down(address);
    let is_mapped = machine.is_mapped(page);
    if let Kind::File { file, .. } = vma.kind
        && (!is_mapped || access == Access::Write)
    {
        let file = memory.mapped_file(file).ok_or(Refused::PastEnd)?;
        return file_fault::bring_in(machine, memory.is_booting(), vma, file, page, access, may_block);
    }
    if let Kind::Written { inode, .. } = vma.kind
        && !is_mapped
    {
        let whole = PageRange::at(page, PAGE_SIZE).ok_or(Refused::Denied)?;
        let Kind::Written { offset, .. } = vma.over(whole).kind else { return Err(Refused::PastEnd) };
        if memory.written_size(inode).is_none_or(|size| offset >= size) {
            return Err(Refused::PastEnd);
        }
        // The request's in any case: a reset may leave the file shorter, and what lies behind its end is not there.
        return machine.map_zero(page, vma.prot, Origin::Request).map_err(Refused::Machine);
    }
    if is_mapped {
        // The page is there and the mapping allows it: make it writable, or retry, since the entry was made meanwhile.
        return match access {
            Access::Write => machine.make_writable(page, vma.origin).map_err(Refused::Machine),
            Access::Read | Access::Execute => Ok(()),
        };
    }
    machine.map_zero(page, vma.prot, vma.origin).map_err(Refused::Machine)?;
    if memory.is_booting() {
        run_ahead(machine, vma, page);
    }
    Ok(())
}

/// Most pages that follow on one that a booting program touches.
const AHEAD_PAGES: u64 = 15;

/// Maps zero pages ahead of a program that touches one page after the other while it boots, in either direction: a fault takes tens of
/// microseconds, and a page that is not written after all takes no memory, since the image is sparse. A program that touches pages here
/// and there gets those alone.
fn run_ahead(machine: &mut Machine, vma: &Vma, page: u64) {
    let (below, above) = (page.checked_sub(PAGE_SIZE), page.checked_add(PAGE_SIZE));
    let is_there = |address: Option<u64>| address.is_some_and(|at| vma.range.contains(at) && machine.is_mapped(at));
    let upwards = match (is_there(below), is_there(above)) {
        (true, false) => true,
        (false, true) => false,
        _ => return,
    };
    let mut next = if upwards { above } else { below };
    for _ in 0..AHEAD_PAGES {
        // A favour: it ends where the mapping, the free pages or the machine's memory do.
        let Some(at) = next.filter(|&at| vma.range.contains(at)) else { break };
        if machine.map_zero(at, vma.prot, vma.origin).is_err() {
            break;
        }
        next = if upwards { at.checked_add(PAGE_SIZE) } else { at.checked_sub(PAGE_SIZE) };
    }
}

/// A page fault of the program.
pub(crate) fn page_fault(
    process: &Process,
    machine: &mut Machine,
    address: u64,
    code: PageFaultCode,
    rip: u64,
) -> Step {
    if address < layout::USER_END && code.reserved() {
        return Step::Poison(format!("page tables with reserved bits for {address:#x}"));
    }
    // The instruction came from CPL 3: what it reads at CPL 0 are descriptor tables. For addresses that are not the program's,
    // paging-based KVM gives codes of its own making.
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
    match bring_in(machine, &process.memory, address, access, process.may_block) {
        Ok(()) => Step::Continue,
        Err(Refused::Denied) => {
            Step::Faulted(Fault { signal: libc::SIGSEGV, vector: Some(14), address: Some(address), rip })
        }
        Err(Refused::PastEnd) => {
            Step::Faulted(Fault { signal: libc::SIGBUS, vector: Some(14), address: Some(address), rip })
        }
        // The program's instruction is made again.
        Err(Refused::NotHere) => process.elsewhere(),
        Err(Refused::Machine(error)) => error.into(),
    }
}

/// An exception of the program other than a page fault. Signals are those of Linux, `arch/x86/kernel/traps.c`.
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
        // #NMI, #DF, #MC and the reserved ones are nothing that a program meets.
        _ => return Step::Violation(format!("exception {vector} at {rip:#x}")),
    };
    Step::Faulted(Fault { signal, vector: Some(vector), address: None, rip })
}

/// A fault that the program has a handler for goes there instead of ending it. `error` is the exception's code.
///
/// One in Mayfly's own code never does: a handler would read registers of another request, had the way back to it gone wrong.
pub(crate) fn or_handler(process: &mut Process, machine: &mut Machine, step: Step, error: u64) -> Step {
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
    fn exceptions_that_no_program_meets_are_violations() {
        for vector in [2, 8, 15, 18, 31, 255] {
            assert!(matches!(exception(vector, 0x1000), Step::Violation(_)), "{vector}");
        }
    }

    #[test]
    fn a_fault_says_what_and_where() {
        let fault = Fault { signal: libc::SIGSEGV, vector: Some(14), address: Some(0x10), rip: 0x40_1000 };
        assert_eq!(fault.to_string(), "killed by SIGSEGV at 0x401000: access to 0x10");
        let abort = Fault { signal: libc::SIGABRT, vector: None, address: None, rip: 0x40_1000 };
        assert_eq!(abort.to_string(), "killed by SIGABRT at 0x401000");
    }
}
