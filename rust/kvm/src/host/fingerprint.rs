// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fingerprint of a host: the processor that programs see, the kind of KVM, and the guest kernel's own bytes.
//!
//! An image depends on all of it: by what a program chose to do after CPUID, by its vector state, by the pages of the
//! guest kernel. A saved image can be used on hosts with the same fingerprint.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::error::FingerprintMismatch;
use crate::guest::kernel::{self, SyscallEntry};
use crate::host::host::Host;

/// What an image that was made on KVM depends on: see the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    stays_at_user: bool,
    task_type: u8,
    /// A digest of the guest kernel and the vDSO.
    kernel: u64,
    xcr0: u64,
    guest_xcr0: u64,
    /// Function, index, EAX, EBX, ECX, EDX.
    cpuid: Vec<[u32; 6]>,
}

impl Fingerprint {
    /// That of a host.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let variant = host.variant();
        let features = host.features();
        let leaf =
            |leaf: &kvm_bindings::kvm_cpuid_entry2| [leaf.function, leaf.index, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx];
        let mut kernel = XxHash3_64::new();
        for page in kernel::pages(variant) {
            kernel.write_u64(page.address);
            kernel.write_u8(page.prot.bits() | u8::from(page.user) << 7);
            kernel.write_u64(page.bytes.len() as u64);
            kernel.write(&page.bytes);
        }
        Self {
            stays_at_user: variant.syscall == SyscallEntry::User,
            task_type: variant.task_type,
            kernel: kernel.finish(),
            xcr0: features.xcr0,
            guest_xcr0: host.guest_xcr0(),
            cpuid: features.cpuid.as_slice().iter().map(leaf).collect(),
        }
    }

    /// Checks whether an image with this fingerprint can run on `host`.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn check(&self, host: &Host) -> Result<(), FingerprintMismatch> {
        let here = Self::of(host);
        if (self.stays_at_user, self.task_type) != (here.stays_at_user, here.task_type) {
            return Err(FingerprintMismatch::Kvm);
        }
        if self.kernel != here.kernel {
            return Err(FingerprintMismatch::Kernel);
        }
        if (self.xcr0, self.guest_xcr0) != (here.xcr0, here.guest_xcr0) {
            return Err(FingerprintMismatch::State { saved: self.xcr0, here: here.xcr0 });
        }
        if self.cpuid == here.cpuid {
            return Ok(());
        }
        let differs = |pair: &(&[u32; 6], &[u32; 6])| pair.0 != pair.1;
        let leaf = self.cpuid.iter().zip(&here.cpuid).find(differs).map(|(saved, _)| saved);
        let more = self.cpuid.get(here.cpuid.len()).or_else(|| here.cpuid.get(self.cpuid.len()));
        let [function, index, ..] = leaf.or(more).copied().unwrap_or_default();
        Err(FingerprintMismatch::Cpuid { function, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;

    #[test]
    fn what_differs_is_named() {
        let host = host();
        let fingerprint = Fingerprint::of(&host);
        assert_eq!(fingerprint.check(&host), Ok(()));
        let mut other = fingerprint.clone();
        other.stays_at_user ^= true;
        assert_eq!(other.check(&host), Err(FingerprintMismatch::Kvm));
        let mut other = fingerprint.clone();
        other.kernel ^= 1;
        assert_eq!(other.check(&host), Err(FingerprintMismatch::Kernel));
        let mut other = fingerprint.clone();
        other.xcr0 ^= 4;
        assert_eq!(
            other.check(&host),
            Err(FingerprintMismatch::State { saved: fingerprint.xcr0 ^ 4, here: fingerprint.xcr0 })
        );
        let mut other = fingerprint.clone();
        let seven = other.cpuid.iter_mut().find(|leaf| leaf[0] == 7).unwrap();
        seven[3] ^= 1 << 5;
        assert_eq!(other.check(&host), Err(FingerprintMismatch::Cpuid { function: 7, index: 0 }));
        let mut other = fingerprint.clone();
        other.cpuid.push([9, 0, 0, 0, 0, 0]);
        assert_eq!(other.check(&host), Err(FingerprintMismatch::Cpuid { function: 9, index: 0 }));
        let mut other = fingerprint;
        let last = other.cpuid.pop().unwrap();
        assert_eq!(other.check(&host), Err(FingerprintMismatch::Cpuid { function: last[0], index: last[1] }));
    }
}
