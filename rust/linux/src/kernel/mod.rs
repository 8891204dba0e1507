// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process, and the path of a call: the only place with `impl Process` below the crate's top.

pub(crate) mod application;
pub(crate) mod buffers;
pub(crate) mod call;
pub(crate) mod closing;
pub(crate) mod cpu_time;
pub(crate) mod delivery;
pub(crate) mod faults;
pub(crate) mod figures;
pub(crate) mod hosts;
pub(crate) mod inbound;
pub(crate) mod process;
pub(crate) mod remote;
pub(crate) mod residency;
pub(crate) mod save;
pub(crate) mod switch;
pub(crate) mod thread_list;
pub(crate) mod timers;
pub(crate) mod unknown;
pub(crate) mod waiters;
pub(crate) mod work_limits;
