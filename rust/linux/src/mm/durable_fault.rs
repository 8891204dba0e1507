// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults on shared mappings of files of durable mounts.
//!
//! The page is the host's page cache's, and a write to it is a write to the file. It belongs to the request that has
//! touched it: a reset removes it, and the next request looks at the file again, which may have become shorter. Threads
//! that may not block have none: an access would wait for the disk inside the machine.

use std::sync::Arc;

use mayfly_engine::Machine;
use mayfly_machine::{Origin, PAGE_SIZE, SharedFile};

use crate::base::pages::PageRange;
use crate::mm::access::{Access, Refused};
use crate::mm::mapped_file::MappedFile;
use crate::mm::vma::{Vma, VmaKind};

/// Size of the aligned window of pages that are mapped with a fault: as on Linux, 64 KiB.
const AROUND_PAGES: u64 = 16;

/// The file as the machine maps it.
pub(crate) fn shared_file(file: &MappedFile) -> SharedFile {
    let writable = file.file.durable().is_some_and(|durable| durable.writable);
    SharedFile { file: Arc::clone(&file.file) as _, key: file.file.key(), writable }
}

/// Makes `access` to the page at `page` of a mapping of `file` possible. The mapping permits it.
pub(crate) fn fault_in(
    machine: &mut Machine,
    vma: &Vma,
    file: &MappedFile,
    page: u64,
    access: Access,
    may_block: bool,
) -> Result<(), Refused> {
    if !may_block {
        return Err(Refused::NotHere);
    }
    let size = file.file.attributes(true).map_err(|_| Refused::PastEnd)?.size;
    let whole = PageRange::at(page, PAGE_SIZE).ok_or(Refused::Denied)?;
    let VmaKind::Durable { offset, .. } = vma.covering(whole).kind else { return Err(Refused::Denied) };
    // A process that truncates the file does not remove these mappings.
    if offset >= size {
        return Err(Refused::PastEnd);
    }
    if machine.is_mapped(page) {
        return match access {
            Access::Write => machine.make_writable(page, Origin::Request).map_err(Refused::Machine),
            Access::Read | Access::Execute => Ok(()),
        };
    }
    let file = shared_file(file);
    let file_pages = size.div_ceil(PAGE_SIZE);
    let part = |range: PageRange| {
        let VmaKind::Durable { offset, .. } = vma.covering(range).kind else { return (0, 0) };
        let first = offset / PAGE_SIZE;
        (first, (range.len() / PAGE_SIZE).min(file_pages.saturating_sub(first)))
    };
    machine.map_shared_file(page, vma.prot, &file, part(whole), file_pages).map_err(Refused::Machine)?;
    // Neighbours are best effort: nothing is removed for them.
    let bytes = AROUND_PAGES.saturating_mul(PAGE_SIZE);
    let start = page.saturating_sub(page.checked_rem(bytes).unwrap_or(0));
    if let Some(window) = PageRange::at(start, bytes).and_then(|window| window.intersection(vma.range)) {
        for range in [window.before(page), window.after(whole.end())] {
            machine.map_shared_file_ahead(range.start(), vma.prot, &file, part(range), file_pages);
        }
    }
    Ok(())
}
