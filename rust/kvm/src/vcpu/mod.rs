// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vCPU: exits, memslots, registers.

pub(crate) mod regs;
pub(crate) mod vcpu;
