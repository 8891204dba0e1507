// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls.

pub(crate) mod datagrams;
pub(crate) mod interfaces;
pub(crate) mod messages;
pub(crate) mod names;
pub(crate) mod netlink;
pub(crate) mod receive;
pub(crate) mod remote;
pub(crate) mod rights;
pub(crate) mod socket_options;
pub(crate) mod sockets;
pub(crate) mod transfer;
