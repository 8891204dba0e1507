// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seccomp filter as data.

pub(crate) mod asm;
pub(crate) mod policy;
