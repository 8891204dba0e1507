// SPDX-License-Identifier: MIT OR Apache-2.0
//! The numbers from which a program computes the time.

use std::arch::x86_64::{_mm_lfence, _rdtsc};

/// Reads the time-stamp counter, after all earlier instructions have completed.
#[inline]
#[must_use]
pub fn read_tsc() -> u64 {
    // SAFETY: every x86-64 processor has both instructions, and Linux lets programs read the counter.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// The clocks in a machine's control line: their values, in nanoseconds, when the host's counter stood at `tsc`, and
/// their rates, in 2^-31 nanoseconds per cycle.
///
/// No two lines that are given to a machine have the same `tsc`: by it the vDSO sees that its line was replaced while
/// it was reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockLine {
    /// The host's time-stamp counter.
    pub tsc: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME`.
    pub realtime_ns: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// `CLOCK_MONOTONIC_RAW`.
    pub raw_ns: u64,
    /// Rate of all of them but the last; 0 makes programs use system calls.
    pub rate: u32,
    /// Rate of `CLOCK_MONOTONIC_RAW`; 0 as above.
    pub raw_rate: u32,
}

impl ClockLine {
    /// Binary digits of a rate after the point.
    pub const SHIFT: u32 = 31;
    /// Where it starts in the control line, in bytes.
    pub const OFFSET: u64 = 0x10;
    /// Bytes that it takes there.
    pub const BYTES: usize = 48;

    /// The words of the line, in their order in memory; kernel.h has the same.
    #[must_use]
    pub const fn words(&self) -> [u64; 6] {
        let rates = self.rate as u64 | (self.raw_rate as u64) << 32;
        [self.tsc, self.monotonic_ns, self.realtime_ns, self.boottime_ns, self.raw_ns, rates]
    }

    /// The line with these words.
    #[must_use]
    pub const fn from_words(words: [u64; 6]) -> Self {
        let [tsc, monotonic_ns, realtime_ns, boottime_ns, raw_ns, rates] = words;
        Self { tsc, monotonic_ns, realtime_ns, boottime_ns, raw_ns, rate: rates as u32, raw_rate: (rates >> 32) as u32 }
    }
}
