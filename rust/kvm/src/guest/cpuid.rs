// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's CPUID: an explicit allow-list of features whose state reset can restore.
//!
//! A feature is offered if it is on the list, the host's processor has it, and, on hardware KVM, KVM can virtualise it.
//! Paging-based KVM runs user code natively but lists almost nothing in `KVM_GET_SUPPORTED_CPUID`, so there the
//! processor alone decides.
//!
//! Bits: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. Left out on purpose: AMX (tile state), PKU and CET
//! (state outside XCR0's reach here), MONITOR, SYSENTER, 32-bit compatibility, performance counters, paravirtual
//! leaves.

use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < N {
        mask |= 1 << numbers[i];
        i += 1;
    }
    mask
}

/// SSE3, PCLMULQDQ, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const LEAF1_ECX: u32 = bits([0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// FPU, DE, PSE, TSC, MSR, PAE, CX8, PGE, CMOV, PAT, CLFSH, MMX, FXSR, SSE, SSE2.
const LEAF1_EDX: u32 = bits([0, 2, 3, 4, 5, 6, 8, 13, 15, 16, 19, 23, 24, 25, 26]);
/// FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, AVX512F, AVX512DQ, RDSEED, ADX, SMAP, AVX512IFMA, CLFLUSHOPT, CLWB,
/// AVX512CD, SHA, AVX512BW, AVX512VL.
const LEAF7_EBX: u32 = bits([0, 3, 5, 7, 8, 9, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);
/// AVX512VBMI, UMIP, AVX512VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512VNNI, AVX512BITALG, AVX512VPOPCNTDQ.
const LEAF7_ECX: u32 = bits([1, 2, 6, 8, 9, 10, 11, 12, 14]);
/// FSRM.
const LEAF7_EDX: u32 = bits([4]);
/// XSAVEOPT, XSAVEC, XGETBV with ECX = 1.
const LEAFD1_EAX: u32 = bits([0, 1, 2]);
/// LAHF, LZCNT, SSE4A, misaligned SSE, PREFETCHW.
const LEAF8_1_ECX: u32 = bits([0, 5, 6, 7, 8]);
/// SYSCALL, NX, RDTSCP, long mode.
const LEAF8_1_EDX: u32 = bits([11, 20, 27, 29]);
const HYPERVISOR: u32 = 1 << 31;
const XSAVE: u32 = 1 << 26;
const FSGSBASE: u32 = 1 << 0;
const SMEP: u32 = 1 << 7;
const SMAP: u32 = 1 << 20;
const UMIP: u32 = 1 << 2;

/// x87, SSE, AVX and the three parts of AVX-512: the state that the trampoline's `xrstor` restores.
pub(crate) const XCR0_ALLOWED: u64 = 0b1110_0111;

/// The processor features that a guest sees and gets.
#[derive(Debug, Clone)]
pub(crate) struct Features {
    pub(crate) cpuid: CpuId,
    pub(crate) xcr0: u64,
    pub(crate) xsave: bool,
    /// Size of the standard-format XSAVE area for `xcr0`.
    pub(crate) xsave_bytes: u32,
    pub(crate) fsgsbase: bool,
    pub(crate) smep: bool,
    pub(crate) smap: bool,
    pub(crate) umip: bool,
}

/// The host's CPUID, from which feature bits come.
struct HostCpuid<'a> {
    supported: Option<&'a [kvm_cpuid_entry2]>,
}

impl HostCpuid<'_> {
    fn native(function: u32, index: u32) -> CpuidResult {
        let base = function & 0xf000_0000;
        if function > __cpuid(base).eax {
            return CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
        }
        __cpuid_count(function, index)
    }

    /// The processor's leaf, limited to what KVM supports where KVM's list is meaningful.
    fn features(&self, function: u32, index: u32) -> CpuidResult {
        let native = Self::native(function, index);
        let Some(supported) = self.supported else { return native };
        match supported.iter().find(|entry| entry.function == function && entry.index == index) {
            Some(kvm) => CpuidResult {
                eax: native.eax & kvm.eax,
                ebx: native.ebx & kvm.ebx,
                ecx: native.ecx & kvm.ecx,
                edx: native.edx & kvm.edx,
            },
            None => CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
        }
    }
}

/// Builds the guest's CPUID. `supported` is KVM's list where it is meaningful (hardware KVM), else `None`.
pub(crate) fn features(supported: Option<&[kvm_cpuid_entry2]>) -> Option<Features> {
    let host = HostCpuid { supported };
    let basic = HostCpuid::native(0, 0);
    let one = host.features(1, 0);
    let seven = host.features(7, 0);
    let xstate = HostCpuid::native(0xd, 0);
    let xsave = one.ecx & XSAVE != 0;
    let xcr0 = if xsave { (u64::from(xstate.edx) << 32 | u64::from(xstate.eax)) & XCR0_ALLOWED } else { 3 };
    // AVX-512 state is all or nothing (SDM vol. 1, 13.3).
    let xcr0 = if xcr0 & 0xe0 == 0xe0 && seven.ebx & (1 << 16) != 0 { xcr0 } else { xcr0 & 7 };
    let avx512 = xcr0 & 0xe0 == 0xe0;
    let avx512_ebx = bits([16, 17, 21, 28, 30, 31]);
    let avx512_ecx = bits([1, 6, 11, 12, 14]);

    let mut entries = Vec::new();
    let mut put = |function: u32, index: u32, significant: bool, value: CpuidResult| {
        entries.push(kvm_cpuid_entry2 {
            function,
            index,
            flags: if significant { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
            eax: value.eax,
            ebx: value.ebx,
            ecx: value.ecx,
            edx: value.edx,
            ..Default::default()
        });
    };

    put(0, 0, false, CpuidResult { eax: basic.eax.min(0xd), ..basic });
    put(
        1,
        0,
        false,
        CpuidResult {
            eax: HostCpuid::native(1, 0).eax,
            // One logical processor with APIC id 0; the cache-line size stays.
            ebx: (HostCpuid::native(1, 0).ebx & 0xff00) | 1 << 16,
            ecx: (one.ecx & LEAF1_ECX) | HYPERVISOR,
            edx: one.edx & LEAF1_EDX,
        },
    );
    if basic.eax >= 2 && basic.ebx == u32::from_le_bytes(*b"Genu") {
        put(2, 0, false, HostCpuid::native(2, 0));
        for index in 0..4 {
            let cache = HostCpuid::native(4, index);
            if cache.eax & 0x1f == 0 {
                break;
            }
            // Bits 14 and up count the cores that share the cache: one here.
            put(4, index, true, CpuidResult { eax: cache.eax & 0x3fff, ..cache });
        }
    }
    let seven_masked = CpuidResult {
        eax: 0,
        ebx: seven.ebx & LEAF7_EBX & if avx512 { !0 } else { !avx512_ebx },
        ecx: seven.ecx & LEAF7_ECX & if avx512 { !0 } else { !avx512_ecx },
        edx: seven.edx & LEAF7_EDX,
    };
    put(7, 0, true, seven_masked);
    if xsave {
        let size = xsave_area_bytes(xcr0);
        put(0xd, 0, true, CpuidResult { eax: xcr0 as u32, ebx: size, ecx: size, edx: 0 });
        put(0xd, 1, true, CpuidResult { eax: host.features(0xd, 1).eax & LEAFD1_EAX, ebx: size, ecx: 0, edx: 0 });
        for index in 2..8 {
            if xcr0 & (1 << index) != 0 {
                put(0xd, index, true, HostCpuid::native(0xd, index));
            }
        }
    }
    let extended = host.features(0x8000_0001, 0);
    put(0x8000_0000, 0, false, CpuidResult { eax: 0x8000_0006, ebx: basic.ebx, ecx: basic.ecx, edx: basic.edx });
    put(
        0x8000_0001,
        0,
        false,
        CpuidResult {
            eax: HostCpuid::native(0x8000_0001, 0).eax,
            ebx: 0,
            ecx: extended.ecx & LEAF8_1_ECX,
            edx: extended.edx & LEAF8_1_EDX | bits([11, 20, 29]),
        },
    );
    // Caches, for the C library's copying routines. The brand string is left out: it identifies the host.
    for function in 0x8000_0005..=0x8000_0006 {
        put(function, 0, false, HostCpuid::native(function, 0));
    }

    Some(Features {
        cpuid: CpuId::from_entries(&entries).ok()?,
        xcr0,
        xsave,
        xsave_bytes: xsave_area_bytes(xcr0),
        fsgsbase: seven_masked.ebx & FSGSBASE != 0,
        smep: seven_masked.ebx & SMEP != 0,
        smap: seven_masked.ebx & SMAP != 0,
        umip: seven_masked.ecx & UMIP != 0,
    })
}

/// Size of the standard-format XSAVE area for these components (SDM vol. 1, 13.4).
fn xsave_area_bytes(xcr0: u64) -> u32 {
    (2..8)
        .filter(|index| xcr0 & (1 << index) != 0)
        .map(|index| {
            let component = HostCpuid::native(0xd, index);
            component.eax + component.ebx
        })
        .fold(576, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_feature_is_offered_whose_state_reset_cannot_restore() {
        let features = features(None).unwrap();
        let entries = features.cpuid.as_slice();
        let leaf = |function, index| entries.iter().find(|e| e.function == function && e.index == index);
        let seven = leaf(7, 0).unwrap();
        assert_eq!(seven.ecx & bits([3, 4, 7]), 0, "PKU, OSPKE, CET_SS");
        assert_eq!(seven.edx & bits([20, 22, 24, 25]), 0, "CET_IBT, AMX");
        assert_eq!(features.xcr0 & !XCR0_ALLOWED, 0);
        assert!(entries.iter().all(|e| e.function & 0xf000_0000 != 0x4000_0000), "no paravirtual leaves");
    }

    #[test]
    fn the_xsave_area_fits_the_doorbell_page() {
        let features = features(None).unwrap();
        assert!(
            u64::from(xsave_area_bytes(features.xcr0))
                <= crate::guest::kernel::RESUME_REGS - crate::guest::kernel::RESUME_XSAVE
        );
    }
}
