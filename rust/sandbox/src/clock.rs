// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's clocks. Those that a request needs come from the vDSO: no system call.

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
