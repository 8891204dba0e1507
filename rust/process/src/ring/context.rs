// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contexts: what the kernel saves of an interrupted program, and what the host code restores.
//!
//! ```text
//!  `ucontext_t`   0  flags, link, stack        unused
//!                40  R8 ... R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP, RFLAGS
//!               184  selectors, error code, trap number, mask, CR2
//!               224  address of the XSAVE area
//!               232  reserved words: here the frame for IRETQ, FS base, GS base, whether they are loaded
//! ```

use mayfly_machine::Regs;

use crate::code::{KICK, UC_BYTES, UC_REGS, UC_XSAVE};
use crate::layout::{CONTEXT, CONTEXT_XSAVE, ORDERS, ORDERS_BYTES};
use crate::poison::Poison;
use crate::ring::check;
use crate::sys::memory::SharedPages;

/// Words from [`UC_REGS`] to the end of the reserved ones.
const WORDS: usize = 23 + 1 + 8;
/// Least bytes of an XSAVE area: legacy area and header (SDM vol. 1, 13.4).
const XSAVE_LEAST: u64 = 576;
/// RFLAGS that programs have: CF, PF, AF, ZF, SF, TF, DF, OF, AC, ID.
const FLAGS: u64 = 0x24_0dd5;
/// IF, and the bit that is always 1.
const FLAGS_SET: u64 = 0x202;
/// The selectors of 64-bit user code and its stack (Linux, `asm/segment.h`).
const USER_CODE: u64 = 0x33;
const USER_STACK: u64 = 0x2b;

/// A program that a signal interrupted, as the stub's handler rang. All of it is hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// The signal: SIGSYS for a trapped system call, whose number is in RAX.
    pub signal: i32,
    /// The general registers.
    pub regs: Regs,
    /// The FS base.
    pub fs_base: u64,
    /// The GS base.
    pub gs_base: u64,
    /// The exception's vector; 0 for a system call or a kick.
    pub vector: u64,
    /// Its error code; 0 as above.
    pub code: u64,
    /// CR2: for a page fault, the address; 0 as above.
    pub address: u64,
}

/// Reads the context that a handler rang for: each word once.
///
/// # Errors
///
/// [`Poison`] for a frame or a state that no program which is to go on has.
pub(crate) fn read(pages: &SharedPages, call: &libc::seccomp_data) -> Result<(Interrupted, Frame), Poison> {
    let [signal, _siginfo, address, fs_base, gs_base, _selectors] = call.args;
    let signal = check::check_signal(signal)?;
    let offset = check::in_frames(address, UC_BYTES, 16)?;
    let poison = Poison::Frame { address };
    let words = pages.words::<24>(ORDERS_BYTES + offset + UC_REGS).ok_or(poison)?;
    #[rustfmt::skip]
    let [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags,
        selectors, code, vector, _mask, cr2, xsave] = words;
    check::in_frames(xsave, XSAVE_LEAST, 64)?;
    check::check_segment(selectors as u16)?;
    check::check_interrupted(signal, rip)?;
    let regs = Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags };
    // The kernel has the words of the stub's last exception in every frame, be it an earlier request's.
    let (vector, code, cr2) = if is_exception(signal) { (vector, code, cr2) } else { (0, 0, 0) };
    let interrupted = Interrupted { signal, regs, fs_base, gs_base, vector, code, address: cr2 };
    Ok((interrupted, Frame { offset, xsave }))
}

/// Whether an exception of the processor's causes this signal.
fn is_exception(signal: i32) -> bool {
    signal != libc::SIGSYS && signal != KICK
}

/// A frame whose place was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it starts in the frames.
    offset: u64,
    /// Its XSAVE area's address.
    xsave: u64,
}

/// Makes the frame one that the host code restores, with these registers.
///
/// The words on the exception are cleared: the program can read its frames, and they may be an earlier request's.
#[must_use]
pub(crate) fn write_frame(pages: &SharedPages, frame: Frame, regs: &Regs) -> bool {
    pages.set_words(ORDERS_BYTES + frame.offset + UC_REGS, words(regs, frame.xsave, None))
}

/// Writes a context with initial vector state where [`CONTEXT`] is; returns its address in the stub.
#[must_use]
pub(crate) fn write_context(pages: &SharedPages, regs: &Regs, fs_base: u64, gs_base: u64) -> Option<u64> {
    const MXCSR_RESET: u64 = 0x1f80;
    let (context, xsave) = (CONTEXT - ORDERS, CONTEXT_XSAVE - ORDERS);
    // XSTATE_BV is 0: everything is initialised, but MXCSR, which XRSTOR always loads.
    let area = pages.write(xsave, &[0; XSAVE_LEAST as usize]) && pages.set_words(xsave + 24, [MXCSR_RESET]);
    let words = words(regs, CONTEXT_XSAVE, Some((fs_base, gs_base)));
    (area && pages.set_words(context + UC_REGS, words)).then_some(CONTEXT)
}

fn words(regs: &Regs, xsave: u64, bases: Option<(u64, u64)>) -> [u64; WORDS] {
    let Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } = *regs;
    let rflags = rflags & FLAGS | FLAGS_SET;
    let (fs_base, gs_base) = bases.unwrap_or_default();
    #[rustfmt::skip]
    let words = [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags,
        USER_CODE, 0, 0, 0, 0, xsave,
        rip, USER_CODE, rflags, rsp, USER_STACK, fs_base, gs_base, bases.is_some().into()];
    words
}

const _: () = assert!(UC_XSAVE == UC_REGS + 23 * 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FRAMES, FRAMES_BYTES};

    const FRAME: u64 = FRAMES + 0x8000;
    const XSAVE: u64 = FRAMES + 0x8200;

    fn pages(change: impl FnOnce(&mut [u64; WORDS])) -> SharedPages {
        let pages = SharedPages::new(c"worker", ORDERS_BYTES + FRAMES_BYTES).unwrap();
        let regs = Regs { rip: 0x40_0000, rsp: 0x50_0000, rax: 39, rflags: 0x246, ..Regs::default() };
        let mut words = words(&regs, XSAVE, None);
        change(&mut words);
        assert!(pages.set_words(ORDERS_BYTES + (FRAME - FRAMES) + UC_REGS, words));
        pages
    }

    fn ring(signal: i32, frame: u64) -> libc::seccomp_data {
        libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [signal as u64, 0, frame, 1, 2, 0] }
    }

    #[test]
    fn a_context_is_read_whole() {
        let pages = pages(|words| words[19..23].copy_from_slice(&[6, 14, 0, 0xdead]));
        let (seen, _) = read(&pages, &ring(libc::SIGSEGV, FRAME)).unwrap();
        assert_eq!((seen.regs.rip, seen.regs.rsp, seen.regs.rax), (0x40_0000, 0x50_0000, 39));
        assert_eq!((seen.fs_base, seen.gs_base), (1, 2));
        assert_eq!((seen.code, seen.vector, seen.address), (6, 14, 0xdead));
    }

    #[test]
    fn frames_areas_and_segments_that_are_not_a_programs_are_poison() {
        let fine = pages(|_| {});
        for address in [0, FRAME + 8, FRAMES - 16, FRAMES + FRAMES_BYTES - 16, u64::MAX - 15] {
            assert_eq!(read(&fine, &ring(libc::SIGSYS, address)), Err(Poison::Frame { address }));
        }
        for xsave in [0, XSAVE + 8, FRAMES - 64, FRAMES + FRAMES_BYTES - 64, CONTEXT_XSAVE] {
            let pages = pages(|words| words[23] = xsave);
            assert_eq!(read(&pages, &ring(libc::SIGSYS, FRAME)), Err(Poison::Frame { address: xsave }));
        }
        let compatibility = pages(|words| words[18] = 0x2b_0000_0000_0023);
        assert_eq!(read(&compatibility, &ring(libc::SIGSYS, FRAME)), Err(Poison::Segment { selector: 0x23 }));
        let in_host = pages(|words| words[16] = crate::layout::CODE);
        assert!(matches!(read(&in_host, &ring(libc::SIGSEGV, FRAME)), Err(Poison::HostCode { .. })));
        assert!(read(&in_host, &ring(libc::SIGUSR1, FRAME)).is_ok());
        assert!(matches!(read(&fine, &ring(libc::SIGTERM, FRAME)), Err(Poison::Signal { .. })));
    }

    #[test]
    fn a_resumed_context_has_the_programs_flags_and_segments_and_nothing_of_the_fault() {
        let pages = pages(|words| words[19..23].copy_from_slice(&[6, 14, 7, 0xdead]));
        let (mut seen, frame) = read(&pages, &ring(libc::SIGSEGV, FRAME)).unwrap();
        seen.regs.rflags = u64::MAX;
        assert!(write_frame(&pages, frame, &seen.regs));
        let words = pages.words::<WORDS>(ORDERS_BYTES + (FRAME - FRAMES) + UC_REGS).unwrap();
        assert_eq!(words[18..24], [0x33, 0, 0, 0, 0, XSAVE], "code, vector, mask, CR2");
        // No IOPL, NT, RF, VM, VIF, VIP; IF is set.
        assert_eq!(words[24..29], [0x40_0000, 0x33, 0x24_0fd7, 0x50_0000, 0x2b]);
        assert_eq!(words[31], 0, "FS and GS base stay");
    }
}
