// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image that was made of a process depends on: the processor that programs see, which is the host's, and the
//! engine's own code in the image.

use std::arch::x86_64::__cpuid_count;
use std::hash::Hasher;

use mayfly_machine::vdso;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::code::doorbell_page;
use crate::ring::vector::vector_components;

/// Leaves of CPUID by which programs choose what to run: identity, features, state, extended features.
const LEAVES: [(u32, u32); 8] =
    [(0, 0), (1, 0), (7, 0), (7, 1), (0xd, 0), (0xd, 1), (0x8000_0001, 0), (0x8000_0008, 0)];
/// In leaf 1, EBX has the number of the processor that asks.
const NUMBER: u32 = 0xff00_0000;
/// In leaf 1, ECX bit 27 and in leaf 7, ECX bit 4 say what the kernel has enabled: they are the same for all processes.
const COUNT_EBX: u32 = 0x00ff_0000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// A digest of the doorbell and the vDSO.
    code: u64,
    /// Components of vector state.
    components: u64,
    /// EAX, EBX, ECX, EDX of each leaf.
    cpuid: Vec<[u32; 4]>,
}

/// Why an image cannot run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintMismatch {
    /// The engine's code has changed.
    #[error("it has the host code of another Mayfly")]
    Code,
    /// Programs have other vector registers.
    #[error("its processor state has the components {saved:#x}, and this host's has {here:#x}")]
    State {
        /// The image's.
        saved: u64,
        /// The host's.
        here: u64,
    },
    /// Programs see another processor.
    #[error("it was made on another processor: they differ in leaf {function:#x}.{index} of CPUID")]
    Cpuid {
        /// The first leaf that differs.
        function: u32,
        /// Its index.
        index: u32,
    },
}

impl Fingerprint {
    /// That of this host.
    #[must_use]
    pub fn here() -> Self {
        let mut code = XxHash3_64::new();
        code.write(&doorbell_page());
        code.write(vdso::image());
        let leaf = |(function, index)| {
            let result = __cpuid_count(function, index);
            let ebx = if function == 1 { result.ebx & !(NUMBER | COUNT_EBX) } else { result.ebx };
            [result.eax, ebx, result.ecx, result.edx]
        };
        Self { code: code.finish(), components: vector_components(), cpuid: LEAVES.map(leaf).to_vec() }
    }

    /// Checks whether an image with this fingerprint can run here.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn check(&self) -> Result<(), FingerprintMismatch> {
        let here = Self::here();
        if self.code != here.code {
            return Err(FingerprintMismatch::Code);
        }
        if self.components != here.components {
            return Err(FingerprintMismatch::State { saved: self.components, here: here.components });
        }
        let other = self.cpuid.iter().zip(&here.cpuid).zip(LEAVES).find(|((saved, here), _)| saved != here);
        match other {
            Some((_, (function, index))) => Err(FingerprintMismatch::Cpuid { function, index }),
            None if self.cpuid.len() == here.cpuid.len() => Ok(()),
            None => Err(FingerprintMismatch::Cpuid { function: 0, index: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let here = Fingerprint::here();
        assert_eq!(here.check(), Ok(()));
        assert_eq!(Fingerprint { code: here.code ^ 1, ..here.clone() }.check(), Err(FingerprintMismatch::Code));
        let other = Fingerprint { components: here.components ^ 4, ..here.clone() };
        assert_eq!(other.check(), Err(FingerprintMismatch::State { saved: other.components, here: here.components }));
        let mut other = here.clone();
        other.cpuid[2][1] ^= 1 << 5;
        assert_eq!(other.check(), Err(FingerprintMismatch::Cpuid { function: 7, index: 0 }));
        let mut other = here;
        other.cpuid.pop();
        assert!(other.check().is_err());
    }
}
