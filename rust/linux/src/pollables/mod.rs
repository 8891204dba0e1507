// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of all that can be waited for, and what is done to it.

pub(crate) mod application;
#[cfg(test)]
pub(crate) mod check;
pub(crate) mod epoll;
pub(crate) mod inbound;
pub(crate) mod ready;
pub(crate) mod remote;
pub(crate) mod socket;
pub(crate) mod table;
pub(crate) mod waiter;
