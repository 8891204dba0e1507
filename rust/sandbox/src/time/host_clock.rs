// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's clocks, read from the kernel. Those that a request needs come from the vDSO: no system call.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

/// Blocks this thread until `until_ns` by [`monotonic_ns`], or until `outside` is readable; a signal may end the wait
/// early.
pub(crate) fn sleep_until(until_ns: u64, outside: Option<BorrowedFd<'_>>) {
    let time = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
    let Some(outside) = outside else { return std::thread::sleep(time) };
    let seconds = time.as_secs().try_into().unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
    // The caller finds out by itself what has happened.
    let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(outside, PollFlags::IN)], Some(&timeout));
}

/// CPU time of the calling thread in nanoseconds: a system call.
pub(crate) fn own_cpu_ns() -> u64 {
    now_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the calling thread, and of the process that it runs a program in, if there is one.
pub(crate) fn run_cpu_ns(processor: Option<libc::clockid_t>) -> u64 {
    own_cpu_ns().wrapping_add(processor.map_or(0, now_ns))
}

/// CPU time of a thread of this process in nanoseconds: a system call. 0 if the thread has ended.
pub(crate) fn thread_cpu_ns(thread: i32) -> u64 {
    // The kernel's encoding of another thread's CPU clock (MAKE_THREAD_CPUCLOCK in linux/posix-timers.h, which glibc's
    // pthread_getcpuclockid(3) uses): all bits of the thread's number inverted, "per thread" and "scheduler's clock".
    const PER_THREAD_SCHED: i32 = 6;
    now_ns(!thread << 3 | PER_THREAD_SCHED)
}

#[inline]
pub(crate) fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. Of the clocks that are read here, only those of ended
    // threads and processes fail, which leaves 0.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_sleep_ends_at_its_time_and_one_in_the_past_at_once() {
        let start = monotonic_ns();
        sleep_until(start + 20_000_000, None);
        assert!(monotonic_ns() - start >= 20_000_000);
        sleep_until(0, None);
        sleep_until(start, None);
    }

    #[test]
    fn a_sleep_ends_when_something_arrives() {
        let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let start = monotonic_ns();
        sleep_until(start + 20_000_000, Some(other.as_fd()));
        assert!(monotonic_ns() - start >= 20_000_000);
        one.write_all(b"x").unwrap();
        sleep_until(u64::MAX, Some(other.as_fd()));
        assert!(monotonic_ns() - start < 10_000_000_000);
    }
}
