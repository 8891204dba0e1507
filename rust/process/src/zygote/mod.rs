// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unfiltered process of which stubs are copies.

pub(crate) mod elf;
pub(crate) mod lasting;
pub(crate) mod script;
pub(crate) mod spawn;
#[allow(clippy::module_inception, reason = "the folder is about this type")]
pub(crate) mod zygote;
