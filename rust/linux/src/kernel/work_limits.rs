// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls whose work is as large as the program likes: where the thread may not be held up, what takes more than some
//! hundreds of microseconds is left for one that may ([`Errno::NOT_HERE`]), before anything of it is done. See decision
//! 0212.

use mayfly_machine::PAGE_SIZE;

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::ids::InodeId;
use crate::base::pages::PageRange;
use crate::kernel::call::Call;
use crate::mm::vma::VmaKind;

/// Bytes that are copied or cleared without a thought: at some gigabytes a second, a few hundred microseconds.
const BYTES_MAX: u64 = 1 << 20;
/// Pages that are looked at one by one.
const PAGES_MAX: u64 = 4096;
/// Mappings that are listed.
const MAPPINGS_MAX: usize = 2048;

fn if_expensive(call: &Call<'_, '_>, is_expensive: impl FnOnce(&Call<'_, '_>) -> bool) -> Result<(), Errno> {
    if !call.process.may_block && is_expensive(call) { Err(Errno::NOT_HERE) } else { Ok(()) }
}

/// Before all pages of `range` are protected, unmapped or moved, and what written files have there is kept.
pub(crate) fn check_range(call: &Call<'_, '_>, range: PageRange) -> Result<(), Errno> {
    if_expensive(call, |call| {
        let is_large = |inode| count(call.process.overlay.content(inode).len()) > BYTES_MAX;
        call.machine.is_much(range.start(), range.len())
            || (call.process.memory.has_overlay_mappings()
                && call
                    .process
                    .memory
                    .within(range)
                    .any(|vma| matches!(vma.kind, VmaKind::Overlay { inode, .. } if is_large(inode))))
    })
}

/// Before each page of `range` is looked at.
pub(crate) fn check_pages(call: &Call<'_, '_>, range: PageRange) -> Result<(), Errno> {
    if_expensive(call, |_| range.len() / PAGE_SIZE > PAGES_MAX)
}

/// Before so much is copied, or cleared.
pub(crate) fn check_bytes(call: &Call<'_, '_>, bytes: u64) -> Result<(), Errno> {
    if_expensive(call, |_| bytes > BYTES_MAX)
}

/// Before a written file is changed, which copies it if the snapshot has the same, or is brought up to date from its
/// mappings.
pub(crate) fn check_file(call: &Call<'_, '_>, id: InodeId) -> Result<(), Errno> {
    if_expensive(call, |call| {
        let copied = call.process.overlay.shared_len(id);
        let mapped = call.process.memory.overlay_size(id).unwrap_or(0);
        copied.max(mapped) > BYTES_MAX
    })
}

/// Before a text is made up that may list all mappings.
pub(crate) fn check_listing(call: &Call<'_, '_>) -> Result<(), Errno> {
    if_expensive(call, |call| call.process.memory.all().len() > MAPPINGS_MAX)
}
