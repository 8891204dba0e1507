// SPDX-License-Identifier: MIT OR Apache-2.0
//! Placement of a new mapping.

use crate::base::pages::PageRange;

/// Where a program asks for a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Anywhere: the highest gap that is large enough.
    Anywhere,
    /// In the low 2 GiB (MAP_32BIT): at this address if it is free and not 0, otherwise anywhere there.
    Low(u64),
    /// At this address if it is free, otherwise anywhere.
    Hint(u64),
    /// At this range; replaces what is mapped there (MAP_FIXED).
    Fixed(PageRange),
    /// At this range, or not at all (MAP_FIXED_NOREPLACE).
    FixedNoReplace(PageRange),
}
