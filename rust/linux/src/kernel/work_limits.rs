// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits on the work of calls whose size the program chooses. On a thread that may not block, a call that would take
//! more than some hundreds of microseconds is left to a thread that may ([`Errno::NOT_HERE`]), before any of it is
//! done. See decision 0212.

use mayfly_machine::PAGE_SIZE;

use crate::base::errno::Errno;
use crate::base::pages::PageRange;
use crate::kernel::call::Call;
use crate::mm::vma::{Vma, VmaKind};

/// Most bytes copied or zeroed on any thread: at some gigabytes a second, a few hundred microseconds.
const BYTES_MAX: u64 = 1 << 20;
/// Most pages checked one by one.
const PAGES_MAX: u64 = 4096;
/// Most mappings listed.
const MAPPINGS_MAX: usize = 2048;

fn if_expensive(call: &Call<'_, '_>, is_expensive: impl FnOnce(&Call<'_, '_>) -> bool) -> Result<(), Errno> {
    if !call.context.may_block && is_expensive(call) { Err(Errno::NOT_HERE) } else { Ok(()) }
}

/// To be called before the pages of `range` are protected, unmapped or moved, and the content of overlay files there is
/// saved. To unmap a file of a durable mount may be its last close.
pub(crate) fn check_range(call: &Call<'_, '_>, range: PageRange) -> Result<(), Errno> {
    if_expensive(call, |call| {
        let is_large = |vma: Vma| matches!(vma.kind, VmaKind::Overlay { .. }) && vma.range.len() > BYTES_MAX;
        call.machine.is_expensive(range.start(), range.len())
            || (call.process.memory.has_overlay_mappings() && call.process.memory.within(range).any(is_large))
            || (call.machine.has_shared_files()
                && call.process.memory.within(range).any(|vma| matches!(vma.kind, VmaKind::Durable { .. })))
    })
}

/// To be called before each page of `range` is checked.
pub(crate) fn check_pages(call: &Call<'_, '_>, range: PageRange) -> Result<(), Errno> {
    if_expensive(call, |_| range.len() / PAGE_SIZE > PAGES_MAX)
}

/// To be called before so many bytes are copied or zeroed.
pub(crate) fn check_bytes(call: &Call<'_, '_>, bytes: u64) -> Result<(), Errno> {
    if_expensive(call, |_| bytes > BYTES_MAX)
}

/// To be called before a text is generated that may list all mappings.
pub(crate) fn check_listing(call: &Call<'_, '_>) -> Result<(), Errno> {
    if_expensive(call, |call| call.process.memory.all().len() > MAPPINGS_MAX)
}
