// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults: brings in the page, or says which signal the fault is. `kernel/delivery.rs` delivers the signal.

use mayfly_engine::Machine;
use mayfly_machine::{Origin, PAGE_SIZE, Prot};

use crate::base::pages::{self, PageRange};
use crate::mm::access::{Access, Refused};
use crate::mm::address_space::AddressSpace;
use crate::mm::file_fault;
use crate::mm::vma::{Vma, VmaKind};

/// Makes `access` to `address` possible if the address space permits it: maps a page, or makes one writable.
pub(crate) fn fault_in(
    machine: &mut Machine,
    memory: &AddressSpace,
    address: u64,
    access: Access,
    may_block: bool,
) -> Result<(), Refused> {
    let vma = memory.find(address).ok_or(Refused::Denied)?;
    let allowed = match access {
        Access::Read => vma.is_accessible(),
        Access::Write => vma.prot.contains(Prot::WRITE),
        Access::Execute => vma.prot.contains(Prot::EXEC),
    };
    if !allowed {
        return Err(Refused::Denied);
    }
    let page = pages::align_down(address);
    let is_mapped = machine.is_mapped(page);
    if let VmaKind::File { file, .. } = vma.kind
        && (!is_mapped || access == Access::Write)
    {
        let file = memory.mapped_file(file).ok_or(Refused::PastEnd)?;
        return file_fault::fault_in(machine, memory.is_booting(), vma, file, page, access, may_block);
    }
    if let VmaKind::Overlay { inode, .. } = vma.kind
        && !is_mapped
    {
        let whole = PageRange::at(page, PAGE_SIZE).ok_or(Refused::Denied)?;
        let VmaKind::Overlay { offset, .. } = vma.covering(whole).kind else { return Err(Refused::PastEnd) };
        if memory.overlay_size(inode).is_none_or(|size| offset >= size) {
            return Err(Refused::PastEnd);
        }
        // Always the request's: a reset may leave the file shorter, and a page past its end must not remain.
        return machine.map_zero(page, vma.prot, Origin::Request).map_err(Refused::Machine);
    }
    if is_mapped {
        // The page is there and the mapping permits the access: make it writable, or retry, since the entry was made
        // meanwhile.
        return match access {
            Access::Write => machine.make_writable(page, vma.origin).map_err(Refused::Machine),
            Access::Read | Access::Execute => Ok(()),
        };
    }
    machine.map_zero(page, vma.prot, vma.origin).map_err(Refused::Machine)?;
    if memory.is_booting() {
        run_ahead(machine, vma, page);
    }
    Ok(())
}

/// Most zero pages mapped ahead of a booting program's access.
const AHEAD_PAGES: u64 = 15;

/// Maps zero pages ahead of a program that touches consecutive pages while it boots, in either direction. A fault takes
/// tens of microseconds, and a page that is never written takes no memory, since the image is sparse. A program with a
/// random access pattern gets single pages.
fn run_ahead(machine: &mut Machine, vma: &Vma, page: u64) {
    let (below, above) = (page.checked_sub(PAGE_SIZE), page.checked_add(PAGE_SIZE));
    let is_there = |address: Option<u64>| address.is_some_and(|at| vma.range.contains(at) && machine.is_mapped(at));
    let upwards = match (is_there(below), is_there(above)) {
        (true, false) => true,
        (false, true) => false,
        _ => return,
    };
    let mut next = if upwards { above } else { below };
    for _ in 0..AHEAD_PAGES {
        // Best effort: stops at the end of the mapping, at a page that is there, or at the machine's memory limit.
        let Some(at) = next.filter(|&at| vma.range.contains(at)) else { break };
        if machine.map_zero(at, vma.prot, vma.origin).is_err() {
            break;
        }
        next = if upwards { at.checked_add(PAGE_SIZE) } else { at.checked_sub(PAGE_SIZE) };
    }
}
