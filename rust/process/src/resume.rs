// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages from which the trampoline restores a program's frozen state.
//!
//! ```text
//! 0x0000  XSAVE area, standard format
//! 0x1000  words: FS base, GS base, flags, RIP, RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 ... R15
//! ```
//!
//! RAX is not among what is restored: the trampoline takes it from the control line.

use mayfly_machine::{Regs, UserContext, VECTOR_STATE_BYTES};

use crate::layout::{RESUME, RESUME_BYTES, RESUME_WORDS};
use crate::ring::context::user_flags;
use crate::ring::vector;

/// `EFLAGS.TF`: it would trap behind the POPF, in the trampoline.
const FLAGS_TRAP: u64 = 0x100;

/// The pages at [`RESUME`] for a program that was frozen in this context.
///
/// `xcr0_allowed`: components of vector state that may be restored, as bits of XCR0; the rest is initial. Without
/// `keep_vector` that is all but x87 state and MXCSR, as for a program that was frozen inside a call of the doorbell.
///
/// ```
/// use mayfly_machine::{Regs, UserContext, VECTOR_STATE_BYTES, VectorState};
///
/// let vector = VectorState::from_words([0; VECTOR_STATE_BYTES / 4]);
/// let context = UserContext { regs: Regs { rip: 0x40_1000, ..Regs::default() }, fs_base: 7, gs_base: 0, vector };
/// let pages = mayfly_process::resume_pages(&context, 7, true);
/// assert_eq!((pages.len(), pages[4096]), (8192, 7));
/// ```
#[must_use]
pub fn resume_pages(context: &UserContext, xcr0_allowed: u64, keep_vector: bool) -> Vec<u8> {
    let mut area = [0; VECTOR_STATE_BYTES];
    for (place, word) in area.chunks_exact_mut(4).zip(context.vector.words()) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    vector::clean(&mut area, xcr0_allowed);
    if !keep_vector {
        vector::drop_vectors(&mut area);
    }
    let mut pages = area.to_vec();
    pages.resize((RESUME_WORDS - RESUME) as usize, 0);
    let Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } =
        context.regs;
    let flags = user_flags(rflags) & !FLAGS_TRAP;
    let (fs, gs) = (context.fs_base, context.gs_base);
    #[rustfmt::skip]
    let words =
        [fs, gs, flags, rip, rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15];
    pages.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    pages.resize(RESUME_BYTES as usize, 0);
    pages
}
