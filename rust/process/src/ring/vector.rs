// SPDX-License-Identifier: MIT OR Apache-2.0
//! Vector state as XRSTOR takes it: an XSAVE area in the standard format (Intel SDM vol. 1, 13.4).
//!
//! ```text
//!    0  x87 and SSE state; MXCSR at 24; bytes 464 to 511 are software's: the kernel's, in a signal's frame
//!  512  XSTATE_BV, XCOMP_BV, 48 bytes of zeroes
//!  576  AVX, AVX-512, ... where CPUID says
//! ```
//!
//! # Invariant
//!
//! An area that was [cleaned](clean) makes no XRSTOR fault.

use std::arch::x86_64::{__cpuid_count, _fxsave, _xgetbv};
use std::sync::OnceLock;

use mayfly_machine::VECTOR_STATE_BYTES;

const MXCSR: usize = 24;
/// MXCSR as the processor has it at reset.
pub(crate) const MXCSR_RESET: u32 = 0x1f80;
const SOFTWARE: std::ops::Range<usize> = 464..512;
const XSTATE_BV: usize = 512;
const HEADER_REST: std::ops::Range<usize> = 520..576;
/// Least bytes of an area: legacy part and header.
pub(crate) const LEAST: usize = 576;
/// The x87 component.
const X87: u64 = 1;
/// Components that a program's state has: x87, SSE, AVX, AVX-512. Neither protection keys, which come back as those of
/// an initial state, nor AMX, for which a process must ask.
const PROGRAMS: u64 = 0b1110_0111;

/// The components of vector state that programs have on this processor, as bits of XCR0.
#[must_use]
pub fn vector_components() -> u64 {
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: XCR0 exists on a processor with XSAVE.
        unsafe { _xgetbv(0) }
    }
    static COMPONENTS: OnceLock<u64> = OnceLock::new();
    *COMPONENTS.get_or_init(|| {
        if std::arch::is_x86_feature_detected!("xsave") {
            // SAFETY: the processor has XSAVE, and the kernel has enabled it.
            PROGRAMS & unsafe { xcr0() }
        } else {
            0
        }
    })
}

/// Bytes of an area that may matter to this processor: up to the end of the last of these components.
pub(crate) fn bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let components = vector_components();
        let ends = (2..64_u32).filter(|bit| components >> bit & 1 != 0).map(|bit| {
            // SDM vol. 1, 13.5: size in EAX, offset in EBX.
            let component = __cpuid_count(0xd, bit);
            (component.eax + component.ebx) as usize
        });
        ends.max().unwrap_or(LEAST).clamp(LEAST, VECTOR_STATE_BYTES)
    })
}

/// Bits of MXCSR that this processor has (SDM vol. 1, 11.6.6).
fn mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Area([u8; 512]);
    static MASK: OnceLock<u32> = OnceLock::new();
    *MASK.get_or_init(|| {
        let mut area = Area([0; 512]);
        // SAFETY: every x86-64 processor has FXSAVE; the area has its size and alignment.
        unsafe { _fxsave(area.0.as_mut_ptr()) };
        let mask = word(&area.0, 28);
        // Processors without the word have all bits but DAZ.
        let known = if mask == 0 { 0xffbf } else { mask };
        known & 0xffff
    })
}

fn word(area: &[u8], at: usize) -> u32 {
    area.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The area's XSTATE_BV.
fn components(area: &[u8]) -> u64 {
    u64::from(word(area, XSTATE_BV)) | u64::from(word(area, XSTATE_BV + 4)) << 32
}

/// Makes an area one that XRSTOR takes, with these components at most.
pub(crate) fn clean(area: &mut [u8; VECTOR_STATE_BYTES], allowed: u64) {
    let components = components(area) & allowed & vector_components();
    let mxcsr = word(area, MXCSR) & mxcsr_mask();
    area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&components.to_le_bytes());
    area[SOFTWARE].fill(0);
    area[HEADER_REST].fill(0);
}

/// Makes an area's vector registers initial ones, and keeps x87 state and MXCSR, which XRSTOR loads anyway: by the
/// System V ABI a called function, such as the doorbell, may leave anything in the former.
pub(crate) fn drop_vectors(area: &mut [u8; VECTOR_STATE_BYTES]) {
    let kept = components(area) & X87;
    area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&kept.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleaned_area_has_nothing_that_xrstor_refuses() {
        let mut area = [0xff; VECTOR_STATE_BYTES];
        clean(&mut area, u64::MAX);
        assert_eq!(components(&area), vector_components());
        assert_eq!(word(&area, MXCSR), mxcsr_mask());
        assert!(area[SOFTWARE].iter().chain(&area[HEADER_REST]).all(|&byte| byte == 0));
        assert!(area[..MXCSR].iter().chain(&area[576..]).all(|&byte| byte == 0xff), "the state itself stays");
        clean(&mut area, 0b11);
        assert_eq!(components(&area), 0b11 & vector_components());
        drop_vectors(&mut area);
        assert_eq!(components(&area), 1);
    }

    #[test]
    fn the_processor_has_x87_and_sse_and_an_area_that_fits() {
        assert_eq!(vector_components() & 3, 3);
        assert!((LEAST..=VECTOR_STATE_BYTES).contains(&bytes()));
        assert_eq!(mxcsr_mask() & 0x1f80, 0x1f80);
    }
}
