// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program to start.

use crate::exec::elf_source::Elf;
use crate::fs::mounts::Mounts;
use crate::net::allow_list::Network;

/// A program with its arguments, environment and resources.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The ELF file.
    pub elf: Elf<'a>,
    /// argv\[0\]; also the target of `/proc/self/exe`, taken as absolute.
    pub name: &'a str,
    /// Further arguments.
    pub args: &'a [String],
    /// The environment, in order.
    pub env: &'a [(String, String)],
    /// Its mounts.
    pub mounts: &'a Mounts,
    /// The hosts that it may connect to.
    pub network: &'a Network,
}
