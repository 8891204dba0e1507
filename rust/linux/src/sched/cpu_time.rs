// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU time of a program.

use crate::base::clock;

/// CPU time of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// CPU time up to `since_ns`.
    pub(crate) used_ns: u64,
    /// Since when the program has been running, by the host's monotonic clock.
    pub(crate) since_ns: Option<u64>,
}

impl CpuTime {
    pub(crate) fn now(&self) -> u64 {
        self.used_ns.saturating_add(self.unaccounted())
    }

    /// Time that is not in `used_ns` yet.
    pub(crate) fn unaccounted(&self) -> u64 {
        self.since_ns.map_or(0, |since| clock::now_ns().saturating_sub(since))
    }
}
