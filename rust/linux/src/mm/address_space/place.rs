// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the range for a new mapping.

use mayfly_machine::layout;

use super::{AddressSpace, STACK_GUARD};
use crate::base::errno::Errno;
use crate::base::pages::{self, PageRange};
use crate::mm::placement::Placement;
use crate::mm::vma::VmaKind;

/// The area for MAP_32BIT mappings, as on Linux.
const LOW_START: u64 = 0x4000_0000;
const LOW_END: u64 = 0x8000_0000;

impl AddressSpace {
    /// The range for a mapping of `len` bytes.
    pub(crate) fn place(&self, placement: Placement, len: u64) -> Result<PageRange, Errno> {
        let len = pages::align_up(len).filter(|&len| len != 0).ok_or(Errno::ENOMEM)?;
        match placement {
            Placement::Fixed(range) => inside_user(range),
            Placement::FixedNoReplace(range) => {
                let range = inside_user(range)?;
                if self.overlapping(range).is_empty() { Ok(range) } else { Err(Errno::EEXIST) }
            }
            Placement::Hint(hint) => match self.at_hint(hint, len) {
                Some(range) => Ok(range),
                None => self.place(Placement::Anywhere, len),
            },
            // As on Linux, a hint may lie below the area.
            Placement::Low(hint) => match self.at_hint(hint, len).filter(|range| range.end() <= LOW_END) {
                Some(range) => Ok(range),
                None => self.highest_gap(len, LOW_START, LOW_END),
            },
            Placement::Anywhere => self.highest_gap(len, layout::USER_MIN, self.mmap_top),
        }
    }

    /// The range that a mapping of `len` bytes would get.
    pub(crate) fn find_room(&self, len: u64) -> Result<PageRange, Errno> {
        self.place(Placement::Anywhere, len)
    }

    /// The range at `hint`, rounded up to a page, if it is free.
    fn at_hint(&self, hint: u64, len: u64) -> Option<PageRange> {
        let range = PageRange::at(pages::align_up(hint)?, len)?;
        inside_user(range).ok().filter(|&range| self.is_free(range))
    }

    /// Whether `range` is unmapped and does not reach into the guard gap of a stack above it.
    pub(crate) fn is_free(&self, range: PageRange) -> bool {
        let index = self.mappings.partition_point(|vma| vma.range.end() <= range.start());
        self.mappings.get(index).is_none_or(|above| floor(above.range, above.kind) >= range.end())
    }

    /// The highest `len` free bytes in `low..high`.
    fn highest_gap(&self, len: u64, low: u64, high: u64) -> Result<PageRange, Errno> {
        let mut ceiling = high;
        let fits = |floor: u64, ceiling: u64| {
            let start = ceiling.checked_sub(len)?;
            if start >= floor { PageRange::at(start, len) } else { None }
        };
        for vma in self.mappings.iter().rev().skip_while(|vma| vma.range.start() >= high) {
            if let Some(range) = fits(vma.range.end().max(low), ceiling) {
                return Ok(range);
            }
            ceiling = ceiling.min(floor(vma.range, vma.kind));
            if ceiling <= low {
                break;
            }
        }
        fits(low, ceiling).ok_or(Errno::ENOMEM)
    }
}

/// The lowest address that other mappings keep clear of: the mapping's start, less a stack's guard gap.
fn floor(range: PageRange, kind: VmaKind) -> u64 {
    match kind {
        VmaKind::Stack => range.start().saturating_sub(STACK_GUARD),
        VmaKind::Private
        | VmaKind::Shared
        | VmaKind::File { .. }
        | VmaKind::Durable { .. }
        | VmaKind::Overlay { .. } => range.start(),
    }
}

/// Refuses ranges outside the program's part: `EPERM` below the lowest address, as Linux does for `vm.mmap_min_addr`;
/// `ENOMEM` above the highest.
fn inside_user(range: PageRange) -> Result<PageRange, Errno> {
    if range.start() < layout::USER_MIN {
        Err(Errno::EPERM)
    } else if range.end() > layout::USER_END {
        Err(Errno::ENOMEM)
    } else {
        Ok(range)
    }
}
