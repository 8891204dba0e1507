// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets, and the remote hosts that a program may reach.

pub(crate) mod address;
pub(crate) mod allow_list;
pub(crate) mod calls;
pub(crate) mod inbound;
pub(crate) mod interfaces;
pub(crate) mod remote;
pub(crate) mod resolver;
pub(crate) mod socket;
