// SPDX-License-Identifier: MIT OR Apache-2.0
//! The background threads, which do what takes too long for loops, and the queues in front of them.

pub(crate) mod background;
pub(crate) mod deferred;
pub(crate) mod descriptor_watch;
pub(crate) mod fair;
pub(crate) mod job;
pub(crate) mod orders;
pub(crate) mod overflow;
pub(crate) mod sleepers;
pub(crate) mod threads;
