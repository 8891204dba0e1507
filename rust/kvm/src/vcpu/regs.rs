// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts registers between KVM's types and the engines'; no other module does.

use kvm_bindings::{kvm_regs, kvm_xsave};
use mayfly_machine::{Regs, VectorState};

/// KVM's general registers as the engines'.
#[inline]
pub(crate) fn from_kvm(regs: &kvm_regs) -> Regs {
    let kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } = *regs;
    Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

/// The engines' general registers as KVM's.
#[inline]
pub(crate) fn to_kvm(regs: &Regs) -> kvm_regs {
    let Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } = *regs;
    kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

/// Vector and x87 state as `KVM_GET_XSAVE` has it, as the engines'.
pub(crate) fn vector_from_kvm(xsave: &kvm_xsave) -> VectorState {
    VectorState::from_words(xsave.region)
}

/// The engines' vector state as KVM's.
pub(crate) fn vector_to_kvm(state: &VectorState) -> kvm_xsave {
    kvm_xsave { region: *state.words(), ..Default::default() }
}
