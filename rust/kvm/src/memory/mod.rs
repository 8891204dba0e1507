// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's physical memory, its page tables, and the ledger of how much there is.

pub(crate) mod files;
pub(crate) mod ledger;
pub(crate) mod memory;
pub(crate) mod tables;
pub(crate) mod take_back;
pub(crate) mod translations;
