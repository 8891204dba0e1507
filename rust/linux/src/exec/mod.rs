// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program is made of when it starts: ELF, initial stack.

pub(crate) mod elf;
pub(crate) mod elf_source;
pub(crate) mod program;
pub(crate) mod stack;
