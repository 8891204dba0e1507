// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers that send signals.

pub(crate) mod calls;
pub(crate) mod timers;
