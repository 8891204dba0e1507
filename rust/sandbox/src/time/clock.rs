// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's clocks. Those that a request needs come from the vDSO: no system call.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mayfly_kvm::Machine;
use mayfly_machine::{ClockLine, read_tsc};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::time::hot_state::LINE;
use crate::time::timekeeping;

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

/// Holds this thread up until `until_ns` by [`monotonic_ns`], or until `outside` is readable; a signal may end that early.
pub(crate) fn sleep_until(until_ns: u64, outside: Option<BorrowedFd<'_>>) {
    let time = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
    let Some(outside) = outside else { return std::thread::sleep(time) };
    let seconds = time.as_secs().try_into().unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
    // Who waits looks for itself what there is.
    let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(outside, PollFlags::IN)], Some(&timeout));
}

/// How long what was seen of the clocks serves.
const OFFSET_MAX_AGE_NS: u64 = 40_000_000;

/// `CLOCK_REALTIME` in nanoseconds since 1970, UTC, at a monotonic time that has just been read: within a microsecond, and a step of
/// the clock is seen after 40 ms. One clock read a request is enough.
#[inline]
pub(crate) fn unix_ns(monotonic_ns: u64) -> u64 {
    look_if_due(monotonic_ns);
    monotonic_ns.wrapping_add(LINE.unix_offset_ns.load(Ordering::Relaxed))
}

/// Looks at the clocks if nobody has for a while.
#[inline]
fn look_if_due(monotonic_ns: u64) {
    if monotonic_ns.saturating_sub(LINE.looked_up_ns.load(Ordering::Acquire)) >= OFFSET_MAX_AGE_NS {
        timekeeping::look();
    }
}

/// Lets a program that is about to begin or go on tell the time by itself; returns what this thread may do so by.
#[inline]
pub(crate) fn tell(machine: &mut Machine, monotonic_ns: u64, suspended_ns: u64) -> Dial {
    look_if_due(monotonic_ns);
    match timekeeping::line() {
        Some(line) => {
            machine.set_clock(&behind(line, suspended_ns));
            Dial { tsc: line.tsc, monotonic_ns: line.monotonic_ns, rate: line.rate }
        }
        // Somebody publishes another one at this moment. What the program has may be of another request, so it asks.
        None => {
            machine.set_clock(&ClockLine { rate: 0, raw_rate: 0, ..machine.clock() });
            Dial::default()
        }
    }
}

/// What [`monotonic_ns`] is told from without asking: half as dear, and no more than some tens of nanoseconds away from it while the
/// line is young, as it is during a request's first leg. Without a rate the clock is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dial {
    tsc: u64,
    monotonic_ns: u64,
    rate: u32,
}

impl Dial {
    #[inline]
    pub(crate) fn monotonic_ns(&self) -> u64 {
        if self.rate == 0 {
            return monotonic_ns();
        }
        let cycles = u128::from(read_tsc().saturating_sub(self.tsc));
        self.monotonic_ns.wrapping_add(((cycles * u128::from(self.rate)) >> ClockLine::SHIFT) as u64)
    }
}

/// The clocks of a program that has stood frozen for so long.
fn behind(line: ClockLine, suspended_ns: u64) -> ClockLine {
    ClockLine {
        monotonic_ns: line.monotonic_ns.wrapping_sub(suspended_ns),
        raw_ns: line.raw_ns.wrapping_sub(suspended_ns),
        ..line
    }
}

/// As [`tell`], in the middle of a run: time does not go back.
pub(crate) fn tell_on(machine: &mut Machine, suspended_ns: u64) {
    look_if_due(monotonic_ns());
    if !machine.has_clock(LINE.line_tsc.load(Ordering::Relaxed))
        && let Some(line) = timekeeping::line()
    {
        let line = behind(line, suspended_ns);
        machine.set_clock(&timekeeping::continued(&machine.clock(), &line, read_tsc()));
    }
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
pub(crate) fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. Of the clocks asked for here only an ended thread's fails, and leaves 0.
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
