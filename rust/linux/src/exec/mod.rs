// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs before they start: the ELF file and the initial stack.

pub(crate) mod elf;
pub(crate) mod elf_source;
pub(crate) mod program;
pub(crate) mod stack;
