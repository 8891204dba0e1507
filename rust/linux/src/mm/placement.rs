// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a mapping is to go.

use crate::base::pages::PageRange;

/// What a program says about where a mapping is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Anywhere: the highest gap that is large enough.
    Anywhere,
    /// In the low 2 GiB (MAP_32BIT).
    Low,
    /// At this address if it is free, otherwise anywhere.
    Hint(u64),
    /// Exactly here; what is in the way goes (MAP_FIXED).
    Fixed(PageRange),
    /// Exactly here, or not at all (MAP_FIXED_NOREPLACE).
    FixedNoReplace(PageRange),
}
