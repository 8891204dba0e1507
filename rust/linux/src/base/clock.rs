// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deadlines: times of the host's monotonic clock, in nanoseconds. They do not wrap within five hundred years.

use rustix::time::{ClockId, Timespec};

const SECOND_NS: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC`, now. The host's vDSO answers: no system call.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(ClockId::Monotonic))
}

/// `CLOCK_BOOTTIME`, now.
pub(crate) fn boottime_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(ClockId::Boottime))
}

/// `CLOCK_REALTIME`, now.
pub(crate) fn realtime_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(ClockId::Realtime))
}

/// The monotonic time at which `CLOCK_REALTIME` will be `unix_ns`, unless the realtime clock is set before.
pub(crate) fn from_unix_ns(unix_ns: u64) -> u64 {
    let unix_now = nanoseconds(rustix::time::clock_gettime(ClockId::Realtime));
    now_ns().saturating_add(unix_ns.saturating_sub(unix_now))
}

/// A valid `timespec`'s time in nanoseconds; saturates at `u64::MAX`.
pub(crate) fn total_ns(seconds: u64, nanoseconds: u64) -> u64 {
    seconds.saturating_mul(SECOND_NS).saturating_add(nanoseconds)
}

/// A duration as the words of a `timespec`.
pub(crate) fn timespec(ns: u64) -> [u64; 2] {
    [ns / SECOND_NS, ns % SECOND_NS]
}

/// A time moved by `by_ns`, which may be negative in two's complement. Saturates at both ends, so `u64::MAX` (never) is
/// preserved.
pub(crate) fn postponed(time_ns: u64, by_ns: u64) -> u64 {
    let moved = i128::from(time_ns).saturating_add(i128::from(by_ns.cast_signed()));
    u64::try_from(moved.max(0)).unwrap_or(u64::MAX)
}

fn nanoseconds(time: Timespec) -> u64 {
    total_ns(u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether the monotonic clock has reached `until_ns`.
pub(crate) fn is_over(until_ns: Option<u64>) -> bool {
    until_ns.is_some_and(|until| now_ns() >= until)
}
