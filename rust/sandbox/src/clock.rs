// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's clocks. Those that a request needs come from the vDSO: no system call.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::line::LINE;

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

/// Holds this thread up until `until_ns` by [`monotonic_ns`].
pub(crate) fn sleep_until(until_ns: u64) {
    std::thread::sleep(Duration::from_nanos(until_ns.saturating_sub(monotonic_ns())));
}

/// How long the offset between the two clocks serves.
const OFFSET_MAX_AGE_NS: u64 = 40_000_000;

/// `CLOCK_REALTIME` in nanoseconds since 1970, UTC, at a monotonic time that has just been read: within a microsecond, and a step of
/// the clock is seen after 40 ms. One clock read a request is enough.
#[inline]
pub(crate) fn unix_ns(monotonic_ns: u64) -> u64 {
    if monotonic_ns.saturating_sub(LINE.looked_up_ns.load(Ordering::Acquire)) >= OFFSET_MAX_AGE_NS {
        look_up_unix_offset();
    }
    monotonic_ns.wrapping_add(LINE.unix_offset_ns.load(Ordering::Relaxed))
}

/// Compares the two clocks. Several threads may do so at once.
#[cold]
fn look_up_unix_offset() {
    // The reading in between cannot be far from the middle of the other two, unless this thread was interrupted.
    let offset = (0..3)
        .map(|_| {
            let (before, unix, after) = (monotonic_ns(), now_ns(libc::CLOCK_REALTIME), monotonic_ns());
            (after.wrapping_sub(before), unix.wrapping_sub(before.wrapping_add(after.wrapping_sub(before) / 2)))
        })
        .min()
        .map_or(0, |(_, offset)| offset);
    LINE.unix_offset_ns.store(offset, Ordering::Relaxed);
    // Whoever sees this time sees that offset, or a newer one.
    LINE.looked_up_ns.store(monotonic_ns(), Ordering::Release);
}

/// CPU time of the calling thread in nanoseconds: a system call.
pub(crate) fn own_cpu_ns() -> u64 {
    now_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of a thread of this process in nanoseconds: a system call. 0 if there is no such thread any more.
pub(crate) fn thread_cpu_ns(thread: i32) -> u64 {
    // The kernel's encoding of another thread's CPU clock (MAKE_THREAD_CPUCLOCK in linux/posix-timers.h, which glibc's
    // pthread_getcpuclockid(3) uses): all bits of the thread's number inverted, "per thread" and "scheduler's clock".
    const PER_THREAD_SCHED: i32 = 6;
    now_ns(!thread << 3 | PER_THREAD_SCHED)
}

#[inline]
fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. Of the clocks asked for here only an ended thread's fails, and leaves 0.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_at_its_time_and_one_in_the_past_at_once() {
        let start = monotonic_ns();
        sleep_until(start + 20_000_000);
        assert!(monotonic_ns() - start >= 20_000_000);
        sleep_until(0);
        sleep_until(start);
    }

    #[test]
    fn the_wall_clock_is_the_hosts() {
        for _ in 0..100 {
            let ours = unix_ns(monotonic_ns());
            let hosts = now_ns(libc::CLOCK_REALTIME);
            // Generous: the thread may be interrupted between the two.
            assert!(hosts.abs_diff(ours) < 50_000_000, "{ours} and {hosts}");
        }
    }
}
