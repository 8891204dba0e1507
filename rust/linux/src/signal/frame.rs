// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal frames: `struct rt_sigframe` of x86-64, which a handler finds on its stack, and the return from it.
//!
//! ```text
//! interrupted RSP, or the end of the alternate stack
//!   - 128            red zone of the System V ABI (not on the alternate stack)
//!   fpstate          XSAVE area, 64-byte aligned; behind it FP_XSTATE_MAGIC2
//!   frame + 312      siginfo (with SA_SIGINFO)
//!   frame + 8        ucontext
//!   frame            address of the restorer; RSP of the handler: a multiple of 16, less 8
//! ```
//!
//! Sources: `<asm/sigcontext.h>`, `<asm/ucontext.h>`, SDM vol. 1, 13.4 (XSAVE area). A frame that a program returns
//! from is validated: its state must be one that a processor at CPL 3 can have, so that KVM has no reason to refuse it.

use mayfly_engine::Machine;
use mayfly_machine::{Regs, VectorState};

use crate::signal::signals::{Action, AlternateStack, Info, SA_ONSTACK, SA_SIGINFO, SignalSet};

const RED_ZONE: u64 = 128;
/// Offsets in the frame.
pub(crate) const UCONTEXT: u64 = 8;
const SIGINFO: usize = 312;
pub(crate) const SIGINFO_OFFSET: u64 = SIGINFO as u64;
/// Size of the frame.
const FRAME_BYTES: u64 = 440;
/// Number of words in a ucontext.
pub(crate) const UCONTEXT_WORDS: usize = 38;

/// `uc_flags`: fpstate is an XSAVE area; SS is saved, and restored strictly.
const UC_FLAGS: u64 = 1 | 2 | 4;
const USER_CODE: u64 = 0x33;
const USER_DATA: u64 = 0x2b;

/// Offsets in the XSAVE area.
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XMM: usize = 160;
const XMM_END: usize = 416;
const SOFTWARE: usize = 464;
const LEGACY_BYTES: usize = 512;
const HEADER_BYTES: usize = 64;
pub(crate) const MAGIC_BYTES: usize = 4;
const MAGIC_1: u32 = 0x4650_5853;
const MAGIC_2: u32 = 0x4650_5845;
/// x87 and SSE.
const LEGACY_COMPONENTS: u64 = 3;
/// Initial values of the x87 control word and of MXCSR.
const FCW_INITIAL: u16 = 0x37f;
const MXCSR_INITIAL: u32 = 0x1f80;
/// Valid bits of MXCSR on a processor that does not report them (SDM vol. 1, 11.6.6).
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

/// The processor's report of an exception.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trap {
    pub(crate) number: u64,
    pub(crate) error: u64,
    pub(crate) address: u64,
}

/// Addresses of a frame's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAddresses {
    pub(crate) frame: u64,
    pub(crate) fpstate: u64,
}

/// Computes the addresses of a frame; `None` if it would not fit the alternate stack, or the address space.
pub(crate) fn addresses(
    rsp: u64,
    action: &Action,
    stack: &AlternateStack,
    vector_bytes: usize,
) -> Option<FrameAddresses> {
    // The stack pointer may have any value, and may be unused.
    let below = rsp.wrapping_sub(RED_ZONE);
    let was_on_it = stack.is_used_at(rsp);
    let enters = action.has(SA_ONSTACK) && stack.size != 0 && !stack.is_used_at(below);
    let top = if enters { stack.pointer.checked_add(stack.size)? } else { below };
    let area = u64::try_from(vector_bytes.checked_add(MAGIC_BYTES)?).ok()?;
    let fpstate = top.checked_sub(area)? & !63;
    let frame = (fpstate.checked_sub(FRAME_BYTES)? & !15).checked_sub(8)?;
    let fits = !(enters || was_on_it) || stack.spans(frame);
    fits.then_some(FrameAddresses { frame, fpstate })
}

/// The content of a frame besides registers.
pub(crate) struct FrameContents<'a> {
    pub(crate) action: &'a Action,
    pub(crate) info: &'a Info,
    pub(crate) trap: Trap,
    pub(crate) mask: SignalSet,
    pub(crate) stack: &'a AlternateStack,
}

/// The bytes of the frame.
pub(crate) fn build(regs: &Regs, addresses: FrameAddresses, contents: &FrameContents<'_>) -> Vec<u8> {
    let stack = contents.stack;
    let selectors = USER_CODE | USER_DATA << 48;
    let trap = contents.trap;
    #[rustfmt::skip]
    let words: [u64; 39] = [
        contents.action.restorer,
        UC_FLAGS, 0, stack.pointer, stack.flags.cast_unsigned().into(), stack.size,
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        regs.rdi, regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp, regs.rip, regs.rflags,
        selectors, trap.error, trap.number, contents.mask.bits(), trap.address, addresses.fpstate,
        0, 0, 0, 0, 0, 0, 0, 0,
        contents.mask.bits(),
    ];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    debug_assert_eq!(bytes.len(), SIGINFO);
    if contents.action.has(SA_SIGINFO) {
        bytes.extend(contents.info.to_bytes());
    }
    bytes
}

/// The vector state in a frame's format.
pub(crate) fn build_vector(state: &VectorState, features: u64, size: usize) -> Vec<u8> {
    let mut bytes = state.to_bytes();
    bytes.truncate(size);
    let size_word = u32::try_from(size).unwrap_or_default();
    put(&mut bytes, SOFTWARE, &MAGIC_1.to_le_bytes());
    put(&mut bytes, SOFTWARE.saturating_add(4), &size_word.saturating_add(4).to_le_bytes());
    put(&mut bytes, SOFTWARE.saturating_add(8), &features.to_le_bytes());
    put(&mut bytes, SOFTWARE.saturating_add(16), &size_word.to_le_bytes());
    put(&mut bytes, SOFTWARE.saturating_add(20), &[0; 28]);
    let components = word(&bytes, LEGACY_BYTES) | LEGACY_COMPONENTS;
    put(&mut bytes, LEGACY_BYTES, &components.to_le_bytes());
    bytes.extend(MAGIC_2.to_le_bytes());
    bytes
}

/// A handler's initial vector state.
pub(crate) fn initial_vector(state: &VectorState) -> VectorState {
    let mut bytes = vec![0; LEGACY_BYTES.saturating_add(HEADER_BYTES)];
    let mask = u32_at(&state.to_bytes(), MXCSR_MASK);
    put(&mut bytes, 0, &FCW_INITIAL.to_le_bytes());
    put(&mut bytes, MXCSR, &MXCSR_INITIAL.to_le_bytes());
    put(&mut bytes, MXCSR_MASK, &mask.to_le_bytes());
    put(&mut bytes, LEGACY_BYTES, &LEGACY_COMPONENTS.to_le_bytes());
    state.with_bytes(&bytes)
}

/// The vector state of a frame; `None` if no processor would load it. `bytes` are as long as [`build_vector`] makes
/// them, or the legacy part only if [`has_extended`] is false.
pub(crate) fn read_vector(bytes: &[u8], now: &VectorState, features: u64, extended: bool) -> Option<VectorState> {
    let mut bytes = bytes.to_vec();
    if extended {
        bytes.truncate(bytes.len().checked_sub(MAGIC_BYTES)?);
        let asked = word(&bytes, SOFTWARE.saturating_add(8)) & features;
        let present = word(&bytes, LEGACY_BYTES);
        let reserved = bytes.get(LEGACY_BYTES.saturating_add(8)..LEGACY_BYTES.saturating_add(HEADER_BYTES))?;
        if present & !features != 0 || reserved.iter().any(|&byte| byte != 0) {
            return None;
        }
        let present = present & asked;
        if present & 1 == 0 {
            put(&mut bytes, 0, &[0; MXCSR]);
            put(&mut bytes, 0, &FCW_INITIAL.to_le_bytes());
            put(&mut bytes, 32, &[0; 128]);
        }
        if present & 2 == 0 {
            bytes.get_mut(XMM..XMM_END)?.fill(0);
        }
        put(&mut bytes, LEGACY_BYTES, &(present | LEGACY_COMPONENTS).to_le_bytes());
    } else {
        bytes.resize(LEGACY_BYTES, 0);
        bytes.extend(LEGACY_COMPONENTS.to_le_bytes());
        bytes.resize(LEGACY_BYTES.saturating_add(HEADER_BYTES), 0);
    }
    let current = now.to_bytes();
    let mask = match u32_at(&current, MXCSR_MASK) {
        0 => MXCSR_MASK_DEFAULT,
        mask => mask,
    };
    if u32_at(&bytes, MXCSR) & !mask != 0 {
        return None;
    }
    // A program cannot set bits that no component owns.
    put(&mut bytes, MXCSR_MASK, current.get(MXCSR_MASK..MXCSR_MASK.saturating_add(4))?);
    put(&mut bytes, XMM_END, current.get(XMM_END..LEGACY_BYTES)?);
    Some(now.with_bytes(&bytes))
}

/// Whether a legacy area says that an extended one of this size follows. Otherwise Linux restores the legacy part only.
pub(crate) fn has_extended(legacy: &[u8], size: usize) -> bool {
    let size_word = u32::try_from(size).unwrap_or_default();
    u32_at(legacy, SOFTWARE) == MAGIC_1
        && u32_at(legacy, SOFTWARE.saturating_add(16)) == size_word
        && u32_at(legacy, SOFTWARE.saturating_add(4)) >= size_word
}

/// Whether an extended area ends with its magic number.
pub(crate) fn ends_with_magic(area: &[u8]) -> bool {
    area.ends_with(&MAGIC_2.to_le_bytes())
}

/// Size of the legacy part, which describes the rest.
pub(crate) const LEGACY: usize = LEGACY_BYTES;

/// The content of a ucontext.
pub(crate) struct Returned {
    pub(crate) regs: Regs,
    pub(crate) mask: SignalSet,
    pub(crate) stack: [u64; 3],
    pub(crate) fpstate: u64,
}

/// Decodes a ucontext; `None` if a program cannot continue with it.
pub(crate) fn read(words: &[u64; UCONTEXT_WORDS]) -> Option<Returned> {
    #[rustfmt::skip]
    let [
        _flags, _link, stack_pointer, stack_flags, stack_size,
        r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags,
        selectors, _error, _trap, _old_mask, _address, fpstate,
        _, _, _, _, _, _, _, _,
        mask,
    ] = *words;
    // Linux loads the selector with RPL 3; there is only one code segment here. The machine drops flags that a program
    // may not set.
    if selectors & 0xffff | 3 != USER_CODE || !Machine::is_program_address(rip) {
        return None;
    }
    #[rustfmt::skip]
    let regs = Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags };
    Some(Returned { regs, mask: SignalSet::mask(mask), stack: [stack_pointer, stack_flags, stack_size], fpstate })
}

/// The floating-point exception that is raised: `si_code` of SIGFPE. `simd` for #XM, else #MF.
pub(crate) fn float_exception(state: &VectorState, simd: bool) -> i32 {
    let bytes = state.to_bytes();
    let raised = if simd {
        let control = u32_at(&bytes, MXCSR);
        control & !(control >> 7)
    } else {
        let word = u32_at(&bytes, 0);
        (word >> 16) & !(word & 0xffff)
    };
    // FPE_FLTINV, FLTDIV, FLTOVF, FLTUND, FLTRES.
    [(0x01, 7), (0x04, 3), (0x08, 4), (0x12, 5), (0x20, 6)]
        .iter()
        .find(|(bit, _)| raised & bit != 0)
        .map_or(0, |&(_, code)| code)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
        *slot = *byte;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |eight| u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: usize = 2688;

    #[test]
    fn a_frame_is_aligned_and_leaves_the_red_zone() {
        for rsp in 0x7000_0000..0x7000_0100 {
            let addresses = addresses(rsp, &Action::default(), &AlternateStack::NONE, AREA).unwrap();
            assert_eq!(addresses.frame % 16, 8);
            assert_eq!(addresses.fpstate % 64, 0);
            assert!(addresses.frame + FRAME_BYTES <= addresses.fpstate);
            assert!(addresses.fpstate + AREA as u64 + 4 <= rsp - RED_ZONE);
        }
    }

    #[test]
    fn the_alternate_stack_is_entered_once_and_not_left_at_its_lower_end() {
        let stack = AlternateStack { pointer: 0x1_0000, flags: 0, size: 0x2000 };
        let action = Action { flags: SA_ONSTACK, ..Action::default() };
        let first = addresses(0x7000_0000, &action, &stack, AREA).unwrap();
        assert!(stack.spans(first.frame) && first.fpstate + AREA as u64 + 4 <= 0x1_2000);
        let second = addresses(first.frame, &action, &stack, AREA).unwrap();
        assert!(second.frame < first.frame);
        assert_eq!(addresses(second.frame, &action, &stack, AREA), None);
        assert_eq!(addresses(0x7000_0000, &action, &AlternateStack { size: 0xc00, ..stack }, AREA), None);
        assert!(addresses(0x10, &action, &stack, AREA).is_some());
        assert_eq!(addresses(0x100, &action, &AlternateStack::NONE, AREA), None);
    }

    /// A vector state of a real machine.
    fn state() -> (VectorState, u64, usize) {
        let mut machine = mayfly_engine::testing::boot_machine(16 << 20);
        let (features, size) = machine.vector_features();
        (machine.context().unwrap().unwrap().vector, features, size)
    }

    #[test]
    fn saved_vector_state_is_restored() {
        let (state, features, size) = state();
        let area = build_vector(&state, features, size);
        assert_eq!(area.len(), size + MAGIC_BYTES);
        assert!(has_extended(&area[..LEGACY], size) && ends_with_magic(&area));
        let back = read_vector(&area, &state, features, true).unwrap().to_bytes();
        assert_eq!(back[..SOFTWARE], state.to_bytes()[..SOFTWARE]);
    }

    #[test]
    fn state_that_no_processor_loads_is_refused() {
        let (state, features, size) = state();
        let area = build_vector(&state, features, size);
        // MXCSR's reserved bits, components that the guest does not have, and each kind of reserved byte of the header.
        for (at, bit) in [
            (MXCSR + 3, 0x80),
            (LEGACY + 1, 0x02),
            (LEGACY + 7, 0x80),
            (LEGACY + 8, 1),
            (LEGACY + 16, 1),
            (LEGACY + 63, 1),
        ] {
            let mut bad = area.clone();
            bad[at] |= bit;
            assert!(read_vector(&bad, &state, features, true).is_none(), "{at}");
        }
        let mut legacy = area[..LEGACY].to_vec();
        legacy[MXCSR + 3] = 1;
        assert!(read_vector(&legacy, &state, features, false).is_none());
    }

    #[test]
    fn a_frame_returns_to_an_address_of_the_programs() {
        let with = |rip: u64, selectors: u64| {
            let mut words = [0; UCONTEXT_WORDS];
            (words[21], words[23]) = (rip, selectors);
            read(&words).is_some()
        };
        assert!(with(0x40_0000, USER_CODE | USER_DATA << 48));
        assert!(!with(0x40_0000, 0x10) && !with(0x40_0000, 0x23) && !with(0x40_0000, 0x08));
        assert!(!with(1 << 47, USER_CODE) && !with(u64::MAX, USER_CODE) && !with(1 << 63, USER_CODE));
    }
}
