// SPDX-License-Identifier: MIT OR Apache-2.0
//! One look at what is ready.

use crate::base::clock;
use crate::event::poll_bits::bits::WRITE;
use crate::signal::signals::SignalSet;

/// One look at what is ready: all of it at one time, and bounded, since epolls within epolls can have more paths than
/// members.
#[derive(Debug)]
pub(crate) struct Look {
    left: u32,
    now_ns: Option<u64>,
    /// Signals that wait for the thread that looks.
    pub(crate) pending: SignalSet,
}

impl Look {
    pub(crate) fn new() -> Self {
        Self { left: 16_384, now_ns: None, pending: SignalSet::default() }
    }

    /// A look that sees these signals.
    pub(crate) fn with_signals(pending: SignalSet) -> Self {
        Self { pending, ..Self::new() }
    }

    /// One step more; `false` if there were too many.
    pub(crate) fn step(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    /// When it takes place, by the monotonic clock. Most looks need not know.
    pub(crate) fn now_ns(&mut self) -> u64 {
        *self.now_ns.get_or_insert_with(clock::now_ns)
    }
}

/// An output stream can always be written.
pub(crate) const LOG_READINESS: u32 = WRITE;

/// The earlier of two times, either of which may be never.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
