// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many of a program's pages are resident, as Linux counts them.

use mayfly_engine::{RESIDENCY_AT_ONCE, Residency};
use mayfly_machine::layout;

use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::pages::PageRange;
use crate::kernel::call::Call;
use crate::kernel::figures::{RecentCount, Resident};
use crate::mm::vma::VmaKind;

/// See [`Call::resident_recently`].
const GOOD_FOR: u64 = 16;

/// What counting may cost on this thread.
pub(crate) fn budget(call: &Call<'_, '_>) -> u64 {
    if call.context.may_block { u64::MAX } else { RESIDENCY_AT_ONCE }
}

impl Call<'_, '_> {
    /// All resident pages. A count that takes long is left to a thread that may block.
    pub(crate) fn resident(&mut self) -> Result<Resident, Errno> {
        let mut left = budget(self);
        let all = PageRange::new(layout::USER_MIN, layout::USER_END).ok_or(Errno::EINVAL)?;
        let all = self.residency(all, &mut left)?;
        let is_shared = |kind: VmaKind| matches!(kind, VmaKind::Shared | VmaKind::Overlay { shared: true, .. });
        let mut shared = 0_u64;
        for vma in self.process.memory.all().iter().filter(|vma| is_shared(vma.kind)) {
            shared = shared.saturating_add(self.residency(vma.range, &mut left)?.own);
        }
        let resident = Resident { anonymous: all.own.saturating_sub(shared), file: all.file, shared };
        let peak = &mut self.process.figures.peak_pages;
        *peak = resident.pages().max(*peak);
        Ok(resident)
    }

    /// As [`Call::resident`], for calls that programs make often: a count is good for [`GOOD_FOR`] times as long as it
    /// took, so that counting is a small part of the time.
    pub(crate) fn resident_recently(&mut self) -> Result<Resident, Errno> {
        let from_ns = clock::now_ns();
        let recent = self.process.figures.recent;
        if from_ns < recent.until_ns {
            return Ok(recent.resident);
        }
        let resident = self.resident()?;
        let now_ns = clock::now_ns();
        let until_ns = now_ns.saturating_add(now_ns.saturating_sub(from_ns).saturating_mul(GOOD_FOR));
        self.process.figures.recent = RecentCount { resident, until_ns };
        Ok(resident)
    }

    /// The resident pages of a range, for no more than `left`.
    pub(crate) fn residency(&self, range: PageRange, left: &mut u64) -> Result<Residency, Errno> {
        self.machine.residency(range.start(), range.len(), left).ok_or(Errno::NOT_HERE)
    }
}
