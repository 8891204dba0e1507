// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a stub's event means for its machine.

use std::io;

use mayfly_machine::layout::{LOWER_HALF_END, page_floor};
use mayfly_machine::{Exit, PageFaultCode, Regs, RunError, Unexpected};
use mayfly_memory::memory::Memory;
use mayfly_memory::tables::{Entry, Tables};

use crate::code::KICK;
use crate::code::places;
use crate::filter::policy::ARCH_X86_64;
use crate::processor::pages;
use crate::processor::processor::{At, Next, Processor};
use crate::ring::context::Interrupted;
use crate::ring::ring::Event;

/// `#GP` and `#PF`.
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u64 = 14;
/// Flags of a program whose flags are not known.
const FLAGS: u64 = 0x202;
/// `int 0x80`, and its length: where a program has no such gate, its error code says which (SDM vol. 3A, 7.13).
const INT_80_BYTES: u64 = 2;
const INT_80_CODE: u64 = 0x80 << 3 | 2;
/// A page is mapped this often in a row for the same instruction; then something else is wrong.
const FILLS: u32 = 8;

impl Processor {
    /// Takes note of an event; the exit that it is, or nothing if the program can go on.
    #[inline]
    pub(crate) fn event(&mut self, event: Event, memory: &Memory, tables: Tables) -> Result<Option<Exit>, RunError> {
        self.next = Next::Same;
        match event {
            Event::Doorbell([rdi, rsi, rdx, r10, r8, r9]) => {
                self.at = At::Doorbell;
                let (rip, rflags) = (places().bell_after, FLAGS);
                self.regs = Regs { rdi, rsi, rdx, r10, r8, r9, rip, rflags, ..Regs::default() };
                Ok(Some(Exit::Doorbell))
            }
            Event::Call { number, arguments: [rdi, rsi, rdx, r10, r8, r9], rip } => {
                self.at = At::Call;
                let (rax, rcx, r11) = (number as u64, rip, FLAGS);
                self.regs = Regs { rax, rdi, rsi, rdx, r10, r8, r9, rcx, r11, rip, rflags: FLAGS, ..Regs::default() };
                Ok(Some(Exit::Syscall))
            }
            Event::Signal(interrupted) => self.signal(&interrupted, memory, tables),
            Event::Rewinding => {
                self.at = At::Rewinding;
                self.next = Next::Rewind;
                Ok(Some(Exit::Kicked))
            }
        }
    }

    fn signal(&mut self, seen: &Interrupted, memory: &Memory, tables: Tables) -> Result<Option<Exit>, RunError> {
        (self.regs, self.fs_base, self.gs_base) = (seen.regs, seen.fs_base, seen.gs_base);
        self.at = At::Signal;
        let Regs { rip, .. } = seen.regs;
        match seen.signal {
            KICK => Ok(Some(Exit::Kicked)),
            libc::SIGSYS if seen.arch != ARCH_X86_64 => {
                // Programs have no 32-bit system calls: the gate is not theirs.
                self.regs.rip = rip.wrapping_sub(INT_80_BYTES);
                let rip = self.regs.rip;
                Ok(Some(Exit::Exception { vector: GENERAL_PROTECTION, code: INT_80_CODE, rip }))
            }
            // The page of vsyscalls, which programs do not have either.
            libc::SIGSYS if rip >= LOWER_HALF_END => {
                let code = PageFaultCode::new(0x14);
                Ok(Some(Exit::PageFault { address: rip, code, rip }))
            }
            libc::SIGSYS => {
                self.at = At::Syscall;
                // As the processor leaves them at a system call.
                (self.regs.rcx, self.regs.r11) = (rip, self.regs.rflags);
                Ok(Some(Exit::Syscall))
            }
            _ if seen.vector == PAGE_FAULT => self.page_fault(seen, memory, tables),
            _ => {
                let vector = seen.vector.min(31) as u8;
                Ok(Some(Exit::Exception { vector, code: seen.code, rip }))
            }
        }
    }

    fn page_fault(&mut self, seen: &Interrupted, memory: &Memory, tables: Tables) -> Result<Option<Exit>, RunError> {
        let (address, rip) = (seen.address, seen.regs.rip);
        if seen.signal == libc::SIGBUS {
            // Memory that is allowed, and is not there: a file that was truncated, or no memory left.
            let source = io::Error::from_raw_os_error(libc::EFAULT);
            return Err(RunError { call: "the program's access to its memory", source });
        }
        let entry = if address < LOWER_HALF_END { tables.entry(memory, address) } else { Entry::EMPTY };
        // Whether there is a page, the tables say; the stub may not have it mapped yet.
        let code = PageFaultCode::new(seen.code & !1 | u64::from(entry.is_present()));
        self.fault = Some(page_floor(address));
        if !pages::allow(entry, code) {
            return Ok(Some(Exit::PageFault { address, code, rip }));
        }
        let (last, at, times) = self.filled;
        let times = if (last, at) == (page_floor(address), rip) { times + 1 } else { 0 };
        self.filled = (page_floor(address), rip, times);
        if times >= FILLS {
            let what = format!("the page at {address:#x} cannot be reached, although it is mapped");
            return Ok(Some(Exit::Unexpected(Unexpected::Stub(what))));
        }
        Ok(None)
    }
}
