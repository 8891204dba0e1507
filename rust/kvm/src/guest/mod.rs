// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine has of Mayfly itself: guest kernel, vDSO, and the processor that programs are told of.

pub(crate) mod cpuid;
pub(crate) mod kernel;
pub(crate) mod tsc;
pub(crate) mod vdso;
