// SPDX-License-Identifier: MIT OR Apache-2.0
//! General registers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The general registers of a processor in 64-bit mode, RIP and RFLAGS among them (Intel SDM vol. 1, 3.4).
///
/// ```
/// use mayfly_machine::Regs;
///
/// let entry = Regs { rip: 0x40_1000, rsp: 0x7ffe_f000_0000, ..Regs::default() };
/// assert_eq!(entry.rax, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// A row of numbers, in the order of the fields.
impl Serialize for Regs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } = *self;
        [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags]
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Regs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags] =
            <[u64; 18]>::deserialize(deserializer)?;
        Ok(Self { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags })
    }
}
