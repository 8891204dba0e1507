// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mayfly's own parts of a machine: guest kernel, and the processor that programs see.

pub(crate) mod cpuid;
pub(crate) mod kernel;
pub(crate) mod tsc;
