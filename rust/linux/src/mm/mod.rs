// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program's memory: its mappings, and page faults.

pub(crate) mod access;
pub(crate) mod address_space;
mod ahead;
pub(crate) mod calls;
pub(crate) mod durable_fault;
pub(crate) mod fault;
pub(crate) mod file_fault;
pub(crate) mod mapped_file;
pub(crate) mod overlay_fault;
pub(crate) mod placement;
pub(crate) mod user;
pub(crate) mod vma;
