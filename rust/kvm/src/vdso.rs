// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vDSO, and what it tells the time from.
//!
//! A program's clock is `reading + (rdtsc - tsc) * rate / 2^31`, from numbers that the host writes into the machine's control line:
//! see [`ClockLine`]. That holds where a guest's `rdtsc` reads the host's time-stamp counter, which the probe at start finds out
//! ([`GuestTsc`]); elsewhere the rates are 0, and the vDSO's functions make their system calls.

use std::arch::x86_64::{_mm_lfence, _rdtsc};

use crate::machine::Machine;

/// Reads the time-stamp counter, not ahead of what comes before.
#[inline]
#[must_use]
pub fn read_tsc() -> u64 {
    // SAFETY: every x86-64 processor has both instructions, and Linux lets programs read the counter.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// What a guest's `rdtsc` reads; found by the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestTsc {
    /// The host's counter.
    Same,
    /// The host's counter, if each vCPU is asked for an offset of 0.
    WithoutOffset,
    /// Something else.
    Foreign,
}

/// The clocks in a machine's control line: what they said, in nanoseconds, when the host's counter stood at `tsc`, and how fast they
/// go, in 2^-31 nanoseconds a cycle.
///
/// No two lines that are given to a machine have the same `tsc`: by it the vDSO sees that its line was replaced while it was reading.
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
    /// Rate of all of them but the last; 0 has programs ask by system calls.
    pub rate: u32,
    /// Rate of `CLOCK_MONOTONIC_RAW`; 0 as above.
    pub raw_rate: u32,
}

impl ClockLine {
    /// Binary digits of a rate behind the point.
    pub const SHIFT: u32 = 31;
    /// Where it starts in the control line.
    pub(crate) const OFFSET: u64 = 0x10;
    /// What it takes there.
    pub(crate) const BYTES: usize = 48;

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

impl Machine {
    /// Whether the program tells the time from the line with this `tsc`.
    #[inline]
    #[must_use]
    pub fn has_clock(&self, tsc: u64) -> bool {
        self.memory.read_u64(self.inbox.control() + ClockLine::OFFSET) == tsc
    }

    /// What the program tells the time from.
    #[must_use]
    pub fn clock(&self) -> ClockLine {
        let at = self.inbox.control() + ClockLine::OFFSET;
        ClockLine::from_words(std::array::from_fn(|word| self.memory.read_u64(at + 8 * word as u64)))
    }

    /// Sets what the program tells the time from; without rates on a host where its counter is not the host's.
    pub fn set_clock(&mut self, line: &ClockLine) {
        let mut line = *line;
        if self.host.guest_tsc() == GuestTsc::Foreign {
            (line.rate, line.raw_rate) = (0, 0);
        }
        let at = (self.inbox.control() + ClockLine::OFFSET..).step_by(8);
        for (word, at) in line.words().into_iter().zip(at) {
            self.memory.write_u64(at, word);
        }
    }
}

/// The vDSO's bytes.
pub(crate) fn image() -> &'static [u8] {
    unsafe extern "C" {
        static mayfly_vdso_start: u8;
        static mayfly_vdso_end: u8;
    }
    // SAFETY: vdso.S defines both symbols in one read-only section, the end after the start.
    unsafe {
        let (start, end) = (&raw const mayfly_vdso_start, &raw const mayfly_vdso_end);
        std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

#[cfg(test)]
mod tests;
