// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults: brings in the page, or says which signal the fault is. `kernel/delivery.rs` delivers the signal.

use mayfly_engine::Machine;
use mayfly_machine::Prot;

use crate::base::pages;
use crate::mm::access::{Access, Refused};
use crate::mm::address_space::AddressSpace;
use crate::mm::vma::VmaKind;
use crate::mm::{ahead, durable_fault, file_fault, overlay_fault};
use crate::store::inodes::Inodes;

/// Makes `access` to `address` possible if the address space permits it: maps a page, or makes one writable.
pub(crate) fn fault_in(
    machine: &mut Machine,
    memory: &AddressSpace,
    inodes: &Inodes,
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
    if let VmaKind::Durable { file, .. } = vma.kind {
        let file = memory.mapped_file(file).ok_or(Refused::PastEnd)?;
        return durable_fault::fault_in(machine, vma, file, page, access, may_block);
    }
    if let VmaKind::Overlay { .. } = vma.kind {
        return overlay_fault::fault_in(machine, memory, inodes, vma, page, access, may_block);
    }
    let is_booting = memory.is_booting();
    match (is_mapped, access) {
        // The entry was made meanwhile: the program tries again.
        (true, Access::Read | Access::Execute) => return Ok(()),
        (true, Access::Write) => machine.make_writable(page, vma.origin).map_err(Refused::Machine)?,
        (false, Access::Read | Access::Execute) if !is_booting => return ahead::map_zeroes(machine, vma, page),
        (false, _) => machine.map_zero(page, vma.prot, vma.origin).map_err(Refused::Machine)?,
    }
    if is_booting {
        ahead::map_at_boot(machine, vma, page);
    } else {
        ahead::make_writable(machine, vma, page, may_block);
    }
    Ok(())
}
