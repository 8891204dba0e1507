// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few words that every request reads and other threads sometimes write, in one cache line: after a world switch,
//! each page that a request touches costs a TLB miss.

use std::sync::atomic::AtomicU64;

#[repr(align(64))]
pub(crate) struct HotState {
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, as last read: `timekeeping.rs`.
    pub(crate) unix_offset_ns: AtomicU64,
    /// When it was read, by the monotonic clock.
    pub(crate) looked_up_ns: AtomicU64,
    /// The counter's value in the newest published [`ClockLine`](mayfly_machine::ClockLine).
    pub(crate) line_tsc: AtomicU64,
    /// When the watchdog looks next; 0 while it is looking: `watchdog.rs`.
    pub(crate) looks_at_ns: AtomicU64,
}

pub(crate) static HOT: HotState = HotState {
    unix_offset_ns: AtomicU64::new(0),
    looked_up_ns: AtomicU64::new(0),
    line_tsc: AtomicU64::new(0),
    looks_at_ns: AtomicU64::new(0),
};
