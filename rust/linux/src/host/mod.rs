// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's files, sockets and names, on behalf of guests: every system call that the host makes for a guest's is
//! made here.

pub(crate) mod attributes;
pub(crate) mod closing;
pub(crate) mod dns;
pub(crate) mod durable;
pub(crate) mod file_table;
pub(crate) mod files;
pub(crate) mod listing;
pub(crate) mod permits;
pub(crate) mod quota;
pub(crate) mod sockets;
