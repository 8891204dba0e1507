// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program's monotonic clock: where it was frozen, and how far it is behind the host's once it runs.
//!
//! ```text
//! booted, Runs       frozen at T, runs on with the host's clock   never behind the host's
//! from file, Runs    saved at T, runs on from T when loaded       behind by the time from T to the load
//! Suspends           frozen at T, runs on from T                  behind by the time from T to the first request
//! ```
//!
//! Differences wrap: the host may have been started since a snapshot was saved, and its clock be behind T.

use crate::program::MonotonicClock;
use crate::time::host_clock;

/// A frozen program's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrozenClock {
    /// When the program was frozen, by its own clock.
    pub(crate) at_ns: u64,
    /// What the program's clock does until a request.
    monotonic: MonotonicClock,
    /// How far the program's clock was behind the host's when the snapshot was made: not at all after a boot.
    behind_ns: u64,
}

impl FrozenClock {
    /// The clock of a program that is frozen now.
    pub(crate) fn now(monotonic: MonotonicClock) -> Self {
        Self { at_ns: host_clock::monotonic_ns(), monotonic, behind_ns: 0 }
    }

    /// The clock of a program that was saved when it stood at `at_ns`. The host may have been started since; a
    /// program's clock does not go back.
    pub(crate) fn loaded(at_ns: u64, monotonic: MonotonicClock) -> Self {
        Self { at_ns, monotonic, behind_ns: host_clock::monotonic_ns().wrapping_sub(at_ns) }
    }

    /// How far the program's clock is behind the host's if it runs from `now_ns` (of the host's clock) on.
    #[inline]
    fn behind_ns(&self, now_ns: u64) -> u64 {
        match self.monotonic {
            MonotonicClock::Runs => self.behind_ns,
            MonotonicClock::Suspends => now_ns.wrapping_sub(self.at_ns),
        }
    }
}

/// A worker's copy of the clock: the snapshot is cold memory after a world switch.
#[derive(Debug)]
pub(crate) struct WorkerClock {
    frozen: FrozenClock,
    state: ClockState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockState {
    /// The worker is at its snapshot.
    Frozen,
    /// The worker has had a request since.
    Runs,
    /// The worker has been prepared for its first request, and stands still since this time.
    Prepared(u64),
}

impl WorkerClock {
    pub(crate) fn new(frozen: FrozenClock) -> Self {
        Self { frozen, state: ClockState::Frozen }
    }

    /// A request begins at `now_ns` by the host's clock. If it is the first one since the worker was at its snapshot,
    /// or was prepared, the program's clock runs from here on: returns how many nanoseconds it has lost to the host's.
    #[inline]
    pub(crate) fn start(&mut self, now_ns: u64) -> Option<u64> {
        let lost_ns = self.lost_by(now_ns);
        self.state = ClockState::Runs;
        lost_ns
    }

    /// As [`Self::start`], and the program's clock stays as it is.
    #[inline]
    pub(crate) fn lost_by(&self, now_ns: u64) -> Option<u64> {
        match self.state {
            ClockState::Runs => None,
            ClockState::Frozen => Some(self.frozen.behind_ns(now_ns)),
            ClockState::Prepared(since_ns) => match self.frozen.monotonic {
                MonotonicClock::Runs => None,
                MonotonicClock::Suspends => Some(now_ns.saturating_sub(since_ns)),
            },
        }
    }

    /// Whether the worker has had a request since it was at its snapshot.
    pub(crate) fn runs(&self) -> bool {
        self.state == ClockState::Runs
    }

    /// The worker is prepared for its first request, and stands still from here on.
    pub(crate) fn prepared(&mut self, now_ns: u64) {
        self.state = ClockState::Prepared(now_ns);
    }

    /// How long ago the worker was prepared, if it has had no request since.
    pub(crate) fn prepared_for(&self, now_ns: u64) -> Option<u64> {
        match self.state {
            ClockState::Prepared(since_ns) => Some(now_ns.saturating_sub(since_ns)),
            ClockState::Frozen | ClockState::Runs => None,
        }
    }

    /// The worker is at its snapshot again.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.state = ClockState::Frozen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_suspended_goes_on_from_where_it_was_frozen() {
        let frozen = FrozenClock { at_ns: 100, monotonic: MonotonicClock::Suspends, behind_ns: 7 };
        let mut clock = WorkerClock::new(frozen);
        assert_eq!((clock.start(150), clock.start(160)), (Some(50), None));
        clock.reset();
        assert_eq!(clock.start(200), Some(100));
    }

    #[test]
    fn a_clock_stands_still_again_once_its_worker_is_prepared() {
        let frozen = FrozenClock { at_ns: 100, monotonic: MonotonicClock::Suspends, behind_ns: 0 };
        let mut clock = WorkerClock::new(frozen);
        assert_eq!(clock.start(150), Some(50));
        clock.prepared(170);
        assert_eq!((clock.prepared_for(200), clock.lost_by(200)), (Some(30), Some(30)));
        assert_eq!((clock.start(200), clock.start(300)), (Some(30), None));
        assert_eq!(clock.prepared_for(400), None);
        let mut clock = WorkerClock::new(FrozenClock { monotonic: MonotonicClock::Runs, ..frozen });
        clock.start(150);
        clock.prepared(170);
        assert_eq!(clock.start(200), None);
    }

    #[test]
    fn a_clock_that_runs_stays_as_far_behind_as_it_was() {
        let frozen = FrozenClock { at_ns: 100, monotonic: MonotonicClock::Runs, behind_ns: 7 };
        let mut clock = WorkerClock::new(frozen);
        assert_eq!((clock.start(150), clock.start(160)), (Some(7), None));
        assert_eq!(WorkerClock::new(FrozenClock::now(MonotonicClock::Runs)).start(150), Some(0));
    }
}
