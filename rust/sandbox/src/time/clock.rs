// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time that requests and programs get: from the host's clocks, as `timekeeping.rs` last read them.

use std::sync::atomic::Ordering;

use mayfly_engine::Machine;
use mayfly_machine::{ClockLine, read_tsc};

use crate::time::host_clock::monotonic_ns;
use crate::time::hot_state::HOT;
use crate::time::timekeeping;

/// `CLOCK_REALTIME` in nanoseconds since 1970, UTC, for a monotonic time that was just read. It is exact to a
/// microsecond; a step of the clock shows after 40 ms. So one clock read a request is enough.
#[inline]
pub(crate) fn unix_ns(monotonic_ns: u64) -> u64 {
    timekeeping::look_if_due(monotonic_ns);
    monotonic_ns.wrapping_add(HOT.unix_offset_ns.load(Ordering::Relaxed))
}

/// Gives a program that is about to run the clocks that it reads without a system call. Returns a clock for this
/// thread.
#[inline]
pub(crate) fn tell(machine: &mut Machine, monotonic_ns: u64, suspended_ns: u64) -> TscClock {
    timekeeping::look_if_due(monotonic_ns);
    match timekeeping::line() {
        Some(line) => {
            machine.set_clock(&behind(line, suspended_ns));
            TscClock { tsc: line.tsc, monotonic_ns: line.monotonic_ns, rate: line.rate }
        }
        // Another thread is publishing a line. The one that the program has may be another request's, so its clocks
        // make system calls.
        None => {
            machine.set_clock(&ClockLine { rate: 0, raw_rate: 0, ..machine.clock() });
            TscClock::default()
        }
    }
}

/// Computes [`monotonic_ns`] from the time-stamp counter: at half the cost, and within some tens of nanoseconds while
/// the line is young, as it is during a request's first leg. Without a rate it reads the clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TscClock {
    tsc: u64,
    monotonic_ns: u64,
    rate: u32,
}

impl TscClock {
    #[inline]
    pub(crate) fn monotonic_ns(&self) -> u64 {
        if self.rate == 0 {
            return monotonic_ns();
        }
        let cycles = u128::from(read_tsc().saturating_sub(self.tsc));
        self.monotonic_ns.wrapping_add(((cycles * u128::from(self.rate)) >> ClockLine::SHIFT) as u64)
    }
}

/// The clocks of a program that was frozen for `suspended_ns`.
fn behind(line: ClockLine, suspended_ns: u64) -> ClockLine {
    ClockLine {
        monotonic_ns: line.monotonic_ns.wrapping_sub(suspended_ns),
        raw_ns: line.raw_ns.wrapping_sub(suspended_ns),
        ..line
    }
}

/// As [`tell`], in the middle of a run: time does not go backwards.
pub(crate) fn tell_on(machine: &mut Machine, suspended_ns: u64) {
    timekeeping::look_if_due(monotonic_ns());
    if !machine.has_clock(HOT.line_tsc.load(Ordering::Relaxed))
        && let Some(line) = timekeeping::line()
    {
        let line = behind(line, suspended_ns);
        machine.set_clock(&timekeeping::continued(&machine.clock(), &line, read_tsc()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::host_clock::now_ns;

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
