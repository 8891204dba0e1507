// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vDSO, by which programs read the time.
//!
//! A program's clock is `reading + (rdtsc - tsc) * rate / 2^31`, from numbers that the host writes into the machine's
//! control line: see [`ClockLine`](crate::ClockLine). This works where a program's `rdtsc` reads the host's
//! time-stamp counter, which an engine's probe finds out. Elsewhere the rates are 0, and the vDSO's functions make
//! system calls.

/// The vDSO's bytes, less than a page, for [`layout::VDSO`](crate::layout::VDSO).
#[must_use]
pub fn image() -> &'static [u8] {
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
