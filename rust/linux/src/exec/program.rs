// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is started.

use crate::exec::elf_source::Elf;
use crate::fs::mounts::Mounts;
use crate::net::allow_list::Network;

/// A program and how it is to be called.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The ELF file.
    pub elf: Elf<'a>,
    /// argv\[0\]; also what `/proc/self/exe` points to, taken as absolute.
    pub name: &'a str,
    /// Further arguments.
    pub args: &'a [String],
    /// The environment, in order.
    pub env: &'a [(String, String)],
    /// What it sees of the host's files.
    pub mounts: &'a Mounts,
    /// Where it may connect to.
    pub network: &'a Network,
}
