// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads and what they wait for.

pub(crate) mod calls;
pub(crate) mod cpu_time;
pub(crate) mod threads;
