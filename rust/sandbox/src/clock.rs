// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's clocks, by the vDSO: no system call.

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME` in nanoseconds since 1970, UTC.
#[inline]
pub(crate) fn unix_ns() -> u64 {
    now_ns(libc::CLOCK_REALTIME)
}

#[inline]
fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. The call cannot fail for these clocks, which every Linux has.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
