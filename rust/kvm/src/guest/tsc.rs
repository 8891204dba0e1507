// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest's time-stamp counter reads.

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
