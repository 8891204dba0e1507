// SPDX-License-Identifier: MIT OR Apache-2.0
//! One check of readiness.

use crate::base::clock;
use crate::event::poll_bits::bits::WRITE;
use crate::signal::signals::SignalSet;

/// One check of readiness: at one point in time, and of bounded cost, since epolls within epolls can have more paths
/// than members.
#[derive(Debug)]
pub(crate) struct Look {
    left: u32,
    now_ns: Option<u64>,
    /// Signals pending for the thread that checks.
    pub(crate) pending: SignalSet,
}

impl Look {
    pub(crate) fn new() -> Self {
        Self { left: 16_384, now_ns: None, pending: SignalSet::default() }
    }

    /// A check for a thread with these pending signals.
    pub(crate) fn with_signals(pending: SignalSet) -> Self {
        Self { pending, ..Self::new() }
    }

    /// Counts a step; `false` if there were too many.
    pub(crate) fn step(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    /// The time of the check by the monotonic clock. Most checks do not need it.
    pub(crate) fn now_ns(&mut self) -> u64 {
        *self.now_ns.get_or_insert_with(clock::now_ns)
    }
}

/// An output stream is always writable.
pub(crate) const LOG_READINESS: u32 = WRITE;

/// The earlier of two times; `None` is never.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
