// SPDX-License-Identifier: MIT OR Apache-2.0
//! Meters the CPU time of requests, for accounting.
//!
//! ```text
//!   first leg    start ─────────────── answer ── reset: elapsed time, from clock and counter
//!                  └── pause: what the limit is charged
//!   later legs   resume ── pause or answer: by the thread's CPU clock
//!   reset        elapsed time, where it does not follow the first leg at once
//! ```
//!
//! # Exactness
//!
//! The steady state has the first line only, and makes no system call for it. Elapsed time is an upper bound of CPU
//! time: if other threads had the processor meanwhile, that counts too, up to the slice; time beyond the slice was not
//! the program's.

use crate::time::clock::TscClock;

/// The CPU time of a worker's requests.
#[derive(Debug, Default)]
pub(super) struct CpuMeter {
    ns: u64,
    /// When the measured leg began; 0 if none is measured.
    began_ns: u64,
    /// The most that it may count.
    most_ns: u64,
    tsc_clock: TscClock,
}

impl CpuMeter {
    /// A request's first leg begins.
    #[inline]
    pub(super) fn begin(&mut self, now: u64, slice_ns: u64, tsc_clock: TscClock) {
        (self.began_ns, self.most_ns, self.tsc_clock) = (now, slice_ns, tsc_clock);
    }

    /// A leg has ended with a pause, and has cost `used_ns`.
    #[cold]
    pub(super) fn pause(&mut self, used_ns: u64) {
        self.began_ns = 0;
        self.add(used_ns);
    }

    pub(super) fn add(&mut self, used_ns: u64) {
        self.ns = self.ns.saturating_add(used_ns);
    }

    /// A reset begins: measured with the leg before it, or by itself if that has been counted.
    #[inline]
    pub(super) fn begin_reset(&mut self) {
        if self.began_ns == 0 {
            self.began_ns = self.tsc_clock.monotonic_ns();
        }
    }

    /// Ends the measurement.
    #[inline]
    pub(super) fn end(&mut self) {
        if self.began_ns != 0 {
            let passed = self.tsc_clock.monotonic_ns().saturating_sub(self.began_ns);
            self.add(passed.min(self.most_ns));
            self.began_ns = 0;
        }
    }

    #[inline]
    pub(super) fn take(&mut self) -> u64 {
        self.end();
        std::mem::take(&mut self.ns)
    }
}
