// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's memory, whatever its processor is: guest-physical frames, page tables in them, pages of files, and the
//! ledger of how much memory there may be.
//!
//! The tables are in the processor's own format (Intel SDM vol. 3A, 5.5). A virtual machine's processor walks them
//! itself; for a processor that is another process they are the record of what it may reach.
//!
//! | module | subject |
//! |---|---|
//! | [`memory`] | a boot's memory, a worker's memory, and access to it |
//! | `allocation`, `frames` | which frames are in use |
//! | [`sealed`] | memory in files; the sealed memory of a frozen program |
//! | [`tables`], [`translations`] | page tables, and the host's small cache of walks |
//! | [`in_order`] | sealing memory in the order of addresses |
//! | [`take_back`] | making processors forget frames, and dropping their content |
//! | [`files`] | pages of files, from the page cache |
//! | [`shared_files`] | pages of files that are mapped shared, which machines write |
//! | [`ledger`] | how much memory machines hold, and how much they may hold |
//! | [`heap`] | how much freed memory the process's heap keeps |
//! | [`layout`] | where memory that is not the machine's own lies |
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod allocation;
pub mod files;
mod frames;
pub mod heap;
pub mod in_order;
pub mod layout;
pub mod ledger;
pub mod memory;
pub mod sealed;
pub mod shared_files;
pub mod tables;
pub mod take_back;
pub mod translations;
