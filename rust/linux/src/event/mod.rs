// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of pollables: queues, timers, epoll sets, and the bits of `poll`.

pub(crate) mod calls;
pub(crate) mod epoll_set;
pub(crate) mod events;
pub(crate) mod fifo;
pub(crate) mod interest;
pub(crate) mod look;
pub(crate) mod poll_bits;
pub(crate) mod queue;
pub(crate) mod timer;
