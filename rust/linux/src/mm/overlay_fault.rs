// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults on mappings of files that the program has written.
//!
//! | the page | a shared mapping gets | a private one |
//! |---|---|---|
//! | another shared mapping has it, in a frame of the machine | the same frame | a copy of the file's content |
//! | the program has not written it | the page of the host's file, from the page cache; a write: a frame with a copy | the same |
//! | the program has written it, or it is a hole | a frame with a copy | the same |
//!
//! A frame that a shared mapping has is the page from then on, until the last shared mapping of it goes. It belongs to
//! the request: a reset may leave the file shorter, and a page past its end must not remain. See decision 0292.

use std::os::fd::AsFd;
use std::sync::Arc;

use mayfly_engine::Machine;
use mayfly_machine::{FilePages, Origin, PAGE_SIZE};

use crate::base::errno::Errno;
use crate::base::ids::InodeId;
use crate::base::pages::{PAGE_BYTES, PageRange};
use crate::host::files::HostFile;
use crate::mm::access::{Access, Refused};
use crate::mm::address_space::AddressSpace;
use crate::mm::vma::{Vma, VmaKind};
use crate::store::content::{Content, Source};
use crate::store::inodes::Inodes;

/// Most pages of a host's file that are mapped with a fault: what the snapshot's mappings have costs a reset nothing.
const AHEAD_PAGES: u64 = 64;

/// Makes `access` to the page at `page` of an overlay file's mapping possible. The mapping permits it.
pub(crate) fn fault_in(
    machine: &mut Machine,
    memory: &AddressSpace,
    inodes: &Inodes,
    vma: &Vma,
    page: u64,
    access: Access,
    may_block: bool,
) -> Result<(), Refused> {
    let part = PageRange::at(page, PAGE_SIZE).map(|range| vma.covering(range).kind);
    let Some(VmaKind::Overlay { inode, offset, shared, writable }) = part else { return Err(Refused::PastEnd) };
    let content = inodes.content(inode).filter(|content| offset < content.size()).ok_or(Refused::PastEnd)?;
    let writes = access == Access::Write;
    let is_file_page = machine.is_file_page(page);
    if machine.is_mapped(page) {
        if !writes {
            // The entry was made meanwhile.
            return Ok(());
        }
        if is_file_page && shared {
            check_room(inodes, content, offset)?;
            unmap_file_pages(machine, memory, inode, offset, page)?;
        }
        // A frame that takes the place of a page of the host's file belongs to the request.
        let origin = if is_file_page { Origin::Request } else { vma.origin };
        return machine.make_writable(page, origin).map_err(Refused::Machine);
    }
    let has_frame = |at: &u64| machine.is_mapped(*at) && !machine.is_file_page(*at);
    if let Some(other) = memory.views(inode, offset).find(has_frame) {
        if !shared {
            let mut bytes = [0; PAGE_BYTES];
            machine.read(other, &mut bytes).map_err(|_| Refused::PastEnd)?;
            return machine.map_filled(page, vma.prot, &bytes).map_err(Refused::Machine);
        }
        if writable {
            check_room(inodes, content, offset)?;
        }
        machine.map_alias(page, vma.prot, other).map_err(Refused::Machine)?;
        return if writes { machine.make_writable(page, vma.origin).map_err(Refused::Machine) } else { Ok(()) };
    }
    let index = offset / PAGE_SIZE;
    if !writes
        && content.is_whole_base(index)
        && let Source::Base(file) = content.source(index)
        && map_base(machine, vma, content, file, page, index, may_block)?
    {
        return Ok(());
    }
    if shared && writable {
        check_room(inodes, content, offset)?;
        unmap_file_pages(machine, memory, inode, offset, page)?;
    }
    let bytes = match content.source(index) {
        Source::Hole => return machine.map_zero(page, vma.prot, Origin::Request).map_err(Refused::Machine),
        Source::Own(_) | Source::Base(_) => content.page(index, may_block),
    };
    match bytes {
        Ok(bytes) => machine.map_filled(page, vma.prot, bytes.bytes()).map_err(Refused::Machine),
        Err(Errno::NOT_HERE) => Err(Refused::NotHere),
        Err(_) => Err(Refused::PastEnd),
    }
}

/// A page that may be written will have to be stored: as on a full tmpfs, there is no such page without room.
fn check_room(inodes: &Inodes, content: &Content, offset: u64) -> Result<(), Refused> {
    let is_stored = matches!(content.source(offset / PAGE_SIZE), Source::Own(_));
    if is_stored || inodes.room() >= PAGE_SIZE { Ok(()) } else { Err(Refused::PastEnd) }
}

/// Removes a page of the host's file from the shared mappings but the one at `page`: it gets a frame.
fn unmap_file_pages(
    machine: &mut Machine,
    memory: &AddressSpace,
    inode: InodeId,
    offset: u64,
    page: u64,
) -> Result<(), Refused> {
    for other in memory.views(inode, offset).filter(|other| *other != page) {
        if machine.is_file_page(other) {
            machine.unmap(other, PAGE_SIZE).map_err(Refused::Machine)?;
        }
    }
    Ok(())
}

/// Maps a page of the host's file from the page cache, and some behind it; `false` if it cannot come from there.
fn map_base(
    machine: &mut Machine,
    vma: &Vma,
    content: &Content,
    file: &Arc<HostFile>,
    page: u64,
    index: u64,
    may_block: bool,
) -> Result<bool, Refused> {
    let many = vma.origin == Origin::Snapshot && may_block;
    let most = if many { AHEAD_PAGES } else { 1 };
    let within = vma.range.after(page).len() / PAGE_SIZE;
    let run = (index..index.saturating_add(most.min(within))).take_while(|index| content.is_whole_base(*index));
    let pages = u64::try_from(run.count()).unwrap_or(1);
    if !may_block && file.cached(index.saturating_mul(PAGE_SIZE), PAGE_BYTES) == Err(Errno::NOT_HERE) {
        return Err(Refused::NotHere);
    }
    let pages = FilePages { file: file.as_fd(), key: file.key(), first: index, count: pages };
    let done = machine.map_file(page, vma.prot, vma.origin, &pages).map_err(Refused::Machine)?;
    Ok(done > 0)
}
