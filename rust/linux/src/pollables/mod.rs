// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of pollables, and the operations on it.

pub(crate) mod application;
#[cfg(test)]
pub(crate) mod check;
pub(crate) mod epoll;
pub(crate) mod inbound;
pub(crate) mod ready;
pub(crate) mod remote;
pub(crate) mod socket;
pub(crate) mod table;
