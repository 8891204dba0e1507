// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of system calls.

pub(crate) mod counters;
pub(crate) mod epoll;
pub(crate) mod notices;
pub(crate) mod pipes;
pub(crate) mod poll;
