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

use mayfly_machine::{Regs, UserContext, VECTOR_STATE_BYTES, VectorState};

use crate::code::{KICK, UC_BYTES, UC_REGS, UC_XSAVE};
use crate::layout::{CONTEXT, CONTEXT_XSAVE, FRAMES, FRAMES_BYTES, ORDERS, ORDERS_BYTES};
use crate::poison::Poison;
use crate::ring::{check, vector};
use crate::sys::memory::SharedPages;

/// Words from [`UC_REGS`] to the end of the reserved ones.
const WORDS: usize = 23 + 1 + 8;
/// RFLAGS that programs have: CF, PF, AF, ZF, SF, TF, DF, OF, AC, ID.
const FLAGS: u64 = 0x24_0dd5;
/// IF, and the bit that is always 1.
const FLAGS_SET: u64 = 0x202;
/// The selectors of 64-bit user code and its stack (Linux, `asm/segment.h`).
const USER_CODE: u64 = 0x33;
const USER_STACK: u64 = 0x2b;
/// Bytes of `siginfo_t`, and where in that of a SIGSYS the word `si_arch` lies (sigaction(2)).
const SIGINFO_BYTES: u64 = 128;
const SIGINFO_ARCH: u64 = 28;

/// The flags that a program with these may have, and those that it must have.
pub(crate) fn user_flags(rflags: u64) -> u64 {
    rflags & FLAGS | FLAGS_SET
}

/// A program that a signal interrupted, as the stub's handler rang. All of it is hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// The signal: SIGSYS for a trapped system call, whose number is in RAX; [`KICK`] if the server stopped it.
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
    /// For a system call its convention, `AUDIT_ARCH_*`: another than x86-64's for `int 0x80`, and for `syscall` in
    /// 32-bit code. Else 0.
    pub arch: u32,
}

/// Reads the context that a handler rang for: each word once.
///
/// # Errors
///
/// [`Poison`] for a frame or a state that no program which is to go on has.
pub(crate) fn read(pages: &SharedPages, call: &libc::seccomp_data) -> Result<(Interrupted, Frame), Poison> {
    let [signal, siginfo, address, fs_base, gs_base, _selectors] = call.args;
    let signal = check::check_signal(signal)?;
    let offset = ORDERS_BYTES + check::in_frames(address, UC_BYTES, 16)?;
    let poison = Poison::Frame { address };
    let words = pages.words::<24>(offset + UC_REGS).ok_or(poison)?;
    #[rustfmt::skip]
    let [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags,
        selectors, code, vector, _mask, cr2, xsave] = words;
    check::in_frames(xsave, vector::LEAST as u64, 64)?;
    check::check_segment(selectors as u16)?;
    let arch = if signal == libc::SIGSYS {
        let siginfo = ORDERS_BYTES + check::in_frames(siginfo, SIGINFO_BYTES, 8)?;
        // The word that starts 4 bytes before it.
        let [word] = pages.words(siginfo + SIGINFO_ARCH - 4).ok_or(poison)?;
        (word >> 32) as u32
    } else {
        0
    };
    let regs = Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags };
    // The kernel has the words of the stub's last exception in every frame, be it an earlier request's.
    let (vector, code, cr2) = if is_exception(signal) { (vector, code, cr2) } else { (0, 0, 0) };
    let interrupted = Interrupted { signal, regs, fs_base, gs_base, vector, code, address: cr2, arch };
    Ok((interrupted, Frame { address, offset, xsave }))
}

/// Whether an exception of the processor's causes this signal.
fn is_exception(signal: i32) -> bool {
    signal != libc::SIGSYS && signal != KICK
}

/// A context whose place was checked: a signal's frame, or the one that the server loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it starts in the stub.
    pub(crate) address: u64,
    /// Where it starts in the worker's pages.
    offset: u64,
    /// Its XSAVE area's address.
    xsave: u64,
}

/// The context in [`CONTEXT`].
const LOADED: Frame = Frame { address: CONTEXT, offset: CONTEXT - ORDERS, xsave: CONTEXT_XSAVE };

/// What a program goes on with, besides its vector state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Goes {
    /// Where the context is written.
    pub(crate) frame: Frame,
    pub(crate) regs: Regs,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
}

/// Makes the frame one that the host code restores.
///
/// The words on the exception are cleared: the program can read its frames, and they may be an earlier request's.
#[must_use]
pub(crate) fn write_frame(pages: &SharedPages, goes: &Goes) -> bool {
    pages.set_words(goes.frame.offset + UC_REGS, words(goes))
}

/// Writes a context with initial vector state where [`CONTEXT`] is.
#[must_use]
pub(crate) fn write_start(pages: &SharedPages, regs: &Regs, fs_base: u64, gs_base: u64) -> Option<Goes> {
    let xsave = CONTEXT_XSAVE - ORDERS;
    // XSTATE_BV is 0: everything is initialised, but MXCSR, which XRSTOR always loads.
    let area = pages.clear(xsave, vector::LEAST) && pages.set_words(xsave + 24, [vector::MXCSR_RESET.into()]);
    let goes = Goes { frame: LOADED, regs: *regs, fs_base, gs_base };
    (area && write_frame(pages, &goes)).then_some(goes)
}

/// Writes a whole context where [`CONTEXT`] is, with these components of vector state at most.
#[must_use]
pub(crate) fn write_context(pages: &SharedPages, context: &UserContext, allowed: u64) -> Option<Goes> {
    let mut area = [0; VECTOR_STATE_BYTES];
    for (place, word) in area.chunks_exact_mut(4).zip(context.vector.words()) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    vector::clean(&mut area, allowed);
    let (fs_base, gs_base) = (context.fs_base, context.gs_base);
    let goes = Goes { frame: LOADED, regs: context.regs, fs_base, gs_base };
    let known = area.get(..vector::bytes())?;
    (pages.write(CONTEXT_XSAVE - ORDERS, known) && write_frame(pages, &goes)).then_some(goes)
}

/// Reads the vector state of a context, with these components at most.
pub(crate) fn read_vector(pages: &SharedPages, frame: Frame, allowed: u64) -> Option<VectorState> {
    let mut area = [0; VECTOR_STATE_BYTES];
    // The area's end is that of its pages, whatever a program says.
    let (offset, room) = if frame == LOADED {
        (CONTEXT_XSAVE - ORDERS, ORDERS_BYTES - (CONTEXT_XSAVE - ORDERS))
    } else {
        let offset = frame.xsave.checked_sub(FRAMES)?;
        (ORDERS_BYTES + offset, FRAMES_BYTES.checked_sub(offset)?)
    };
    let known = vector::bytes().min(room as usize);
    if !pages.read(offset, area.get_mut(..known)?) {
        return None;
    }
    vector::clean(&mut area, allowed);
    let mut words = [0; VECTOR_STATE_BYTES / 4];
    for (word, four) in words.iter_mut().zip(area.chunks_exact(4)) {
        *word = four.try_into().map_or(0, u32::from_le_bytes);
    }
    Some(VectorState::from_words(words))
}

fn words(goes: &Goes) -> [u64; WORDS] {
    let Goes { frame, regs, fs_base, gs_base } = *goes;
    let Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } = regs;
    let rflags = user_flags(rflags);
    #[rustfmt::skip]
    let words = [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags,
        USER_CODE, 0, 0, 0, 0, frame.xsave,
        rip, USER_CODE, rflags, rsp, USER_STACK, fs_base, gs_base, 1];
    words
}

const _: () = assert!(UC_XSAVE == UC_REGS + 23 * 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FRAMES, FRAMES_BYTES};

    const ADDRESS: u64 = FRAMES + 0x1000;
    const XSAVE: u64 = FRAMES + 0x1200;
    const OFFSET: u64 = ORDERS_BYTES + ADDRESS - FRAMES;
    const SIGINFO: u64 = ADDRESS + UC_BYTES;

    fn goes(regs: Regs) -> Goes {
        let frame = Frame { address: ADDRESS, offset: OFFSET, xsave: XSAVE };
        Goes { frame, regs, fs_base: 1, gs_base: 2 }
    }

    fn pages(change: impl FnOnce(&mut [u64; WORDS])) -> SharedPages {
        let (pages, _file) = SharedPages::new(c"worker", ORDERS_BYTES + FRAMES_BYTES).unwrap();
        let regs = Regs { rip: 0x40_0000, rsp: 0x50_0000, rax: 39, rflags: 0x246, ..Regs::default() };
        let mut words = words(&goes(regs));
        change(&mut words);
        assert!(pages.set_words(OFFSET + UC_REGS, words));
        assert!(pages.set_words(SIGINFO - ADDRESS + OFFSET + 24, [0x4000_0003_0000_0001]));
        pages
    }

    fn ring(signal: i32, frame: u64) -> libc::seccomp_data {
        ring_with(signal, SIGINFO, frame)
    }

    fn ring_with(signal: i32, siginfo: u64, frame: u64) -> libc::seccomp_data {
        libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [signal as u64, siginfo, frame, 1, 2, 0] }
    }

    #[test]
    fn a_context_is_read_whole() {
        let pages = pages(|words| words[19..23].copy_from_slice(&[6, 14, 0, 0xdead]));
        let (seen, _) = read(&pages, &ring(libc::SIGSEGV, ADDRESS)).unwrap();
        assert_eq!((seen.regs.rip, seen.regs.rsp, seen.regs.rax), (0x40_0000, 0x50_0000, 39));
        assert_eq!((seen.fs_base, seen.gs_base), (1, 2));
        assert_eq!((seen.code, seen.vector, seen.address, seen.arch), (6, 14, 0xdead, 0));
    }

    #[test]
    fn the_convention_is_a_system_calls_and_its_siginfo_lies_in_the_frames() {
        let pages = pages(|_| {});
        assert_eq!(read(&pages, &ring(libc::SIGSYS, ADDRESS)).unwrap().0.arch, 0x4000_0003);
        for address in [0, FRAMES - 8, FRAMES + FRAMES_BYTES - 64, SIGINFO + 4] {
            let outcome = read(&pages, &ring_with(libc::SIGSYS, address, ADDRESS));
            assert_eq!(outcome, Err(Poison::Frame { address }));
        }
    }

    #[test]
    fn frames_areas_and_segments_that_are_not_a_programs_are_poison() {
        let fine = pages(|_| {});
        for address in [0, ADDRESS + 8, FRAMES - 16, FRAMES + FRAMES_BYTES - 16, u64::MAX - 15] {
            assert_eq!(read(&fine, &ring(libc::SIGSYS, address)), Err(Poison::Frame { address }));
        }
        for xsave in [0, XSAVE + 8, FRAMES - 64, FRAMES + FRAMES_BYTES - 64, CONTEXT_XSAVE] {
            let pages = pages(|words| words[23] = xsave);
            assert_eq!(read(&pages, &ring(libc::SIGSYS, ADDRESS)), Err(Poison::Frame { address: xsave }));
        }
        let compatibility = pages(|words| words[18] = 0x2b_0000_0000_0023);
        assert_eq!(read(&compatibility, &ring(libc::SIGSYS, ADDRESS)), Err(Poison::Segment { selector: 0x23 }));
        assert!(matches!(read(&fine, &ring(libc::SIGTERM, ADDRESS)), Err(Poison::Signal { .. })));
    }

    #[test]
    fn a_resumed_context_has_the_programs_flags_and_segments_and_nothing_of_the_fault() {
        let pages = pages(|words| words[19..23].copy_from_slice(&[6, 14, 7, 0xdead]));
        let (mut seen, frame) = read(&pages, &ring(libc::SIGSEGV, ADDRESS)).unwrap();
        seen.regs.rflags = u64::MAX;
        assert!(write_frame(&pages, &Goes { frame, regs: seen.regs, fs_base: 3, gs_base: 4 }));
        let words = pages.words::<WORDS>(OFFSET + UC_REGS).unwrap();
        assert_eq!(words[18..24], [0x33, 0, 0, 0, 0, XSAVE], "code, vector, mask, CR2");
        // No IOPL, NT, RF, VM, VIF, VIP; IF is set.
        assert_eq!(words[24..29], [0x40_0000, 0x33, 0x24_0fd7, 0x50_0000, 0x2b]);
        assert_eq!(words[29..], [3, 4, 1]);
    }

    #[test]
    fn vector_state_that_is_loaded_is_read_again_and_no_more_than_that() {
        let pages = pages(|_| {});
        let mut bytes = vec![0x5a; VECTOR_STATE_BYTES];
        bytes[512..520].copy_from_slice(&7_u64.to_le_bytes());
        let state = VectorState::from_words([0; VECTOR_STATE_BYTES / 4]).with_bytes(&bytes);
        let context = UserContext { regs: Regs::default(), fs_base: 0, gs_base: 0, vector: state };
        let goes = write_context(&pages, &context, 3).unwrap();
        let seen = read_vector(&pages, goes.frame, u64::MAX).unwrap().to_bytes();
        assert_eq!(seen[512..576], [&[3][..], &[0; 63]].concat());
        assert_eq!((seen[0], seen[463], seen[464], seen[511]), (0x5a, 0x5a, 0, 0));
        // A frame at the end of the frames: what lies behind them is not read.
        let last = Frame { xsave: FRAMES + FRAMES_BYTES - 576, ..goes.frame };
        let last = Frame { address: ADDRESS, ..last };
        assert!(read_vector(&pages, last, u64::MAX).unwrap().to_bytes()[576..].iter().all(|&byte| byte == 0));
    }
}
