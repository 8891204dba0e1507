// SPDX-License-Identifier: MIT OR Apache-2.0
//! A timer as a file: `timerfd_create(2)`. Its expiration is not an action: reads and checks of readiness compute it.

use serde::{Deserialize, Serialize};

use crate::base::clock;

/// A timer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Timer {
    /// The clock that the program chose.
    pub(crate) clock: i32,
    /// The next expiration by the monotonic clock in nanoseconds; `None`: the timer is disarmed.
    pub(crate) next_ns: Option<u64>,
    /// The time between expirations; 0: it expires once.
    pub(crate) interval_ns: u64,
}

impl Timer {
    /// Number of expirations since it was set or read.
    pub(crate) fn expired(&self, now_ns: u64) -> u64 {
        match self.next_ns.and_then(|next| now_ns.checked_sub(next)) {
            Some(late) => late.checked_div(self.interval_ns).unwrap_or(0).saturating_add(1),
            None => 0,
        }
    }

    /// Postpones it by the time for which the program was frozen, unless its clock runs while a machine is suspended.
    pub(crate) fn postpone(&mut self, by_ns: u64) {
        if self.clock == libc::CLOCK_MONOTONIC {
            self.next_ns = self.next_ns.map(|next| clock::postponed(next, by_ns));
        }
    }

    /// Its next expiration after `now_ns`.
    pub(crate) fn next(&self, now_ns: u64) -> Option<u64> {
        let next = self.next_ns?;
        let passed = self.expired(now_ns);
        if passed > 0 && self.interval_ns == 0 {
            return None;
        }
        Some(next.saturating_add(passed.saturating_mul(self.interval_ns)))
    }

    /// Takes the expirations until `now_ns`.
    pub(crate) fn take(&mut self, now_ns: u64) -> u64 {
        let expired = self.expired(now_ns);
        self.next_ns = self.next(now_ns);
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_counted_until_they_are_taken() {
        let mut timer = Timer { clock: 1, next_ns: Some(100), interval_ns: 10 };
        assert_eq!((timer.expired(99), timer.next(99)), (0, Some(100)));
        assert_eq!((timer.expired(100), timer.next(100)), (1, Some(110)));
        assert_eq!(timer.take(125), 3);
        assert_eq!((timer.expired(125), timer.next(125)), (0, Some(130)));
    }

    #[test]
    fn a_timer_without_an_interval_expires_once() {
        let mut timer = Timer { clock: 1, next_ns: Some(100), interval_ns: 0 };
        assert_eq!((timer.expired(1 << 60), timer.next(1 << 60)), (1, None));
        assert_eq!((timer.take(200), timer.take(300)), (1, 0));
    }
}
