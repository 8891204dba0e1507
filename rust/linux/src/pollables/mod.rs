// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of pollables, and the operations on it.

pub(crate) mod application;
#[cfg(test)]
pub(crate) mod check;
pub(crate) mod datagrams;
pub(crate) mod epoll;
pub(crate) mod fifos;
pub(crate) mod inbound;
pub(crate) mod queues;
pub(crate) mod ready;
pub(crate) mod remote;
pub(crate) mod resolver;
pub(crate) mod socket;
pub(crate) mod sound;
pub(crate) mod table;
