// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks, and the watchdog that ends what takes too long.

pub(crate) mod clock;
pub(crate) mod host_clock;
pub(crate) mod hot_state;
pub(crate) mod timekeeping;
pub(crate) mod watchdog;
