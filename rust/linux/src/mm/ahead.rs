// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that are mapped ahead of a program's access, with a page that it has touched.
//!
//! A fault takes tens of microseconds, a page that is mapped ahead well below one. A program that touches one page after
//! the other gets more of them with each fault; one whose accesses follow no order gets single pages. What is known of
//! the order is what lies beside the page: nothing that a reset would have to restore.
//!
//! All of it is best effort: it stops at the end of the mapping, at a page that is there, and early enough to leave most
//! of the memory limit to pages that the program does touch.

use mayfly_engine::Machine;
use mayfly_machine::{Origin, PAGE_SIZE};

use crate::base::pages::PageRange;
use crate::mm::access::Refused;
use crate::mm::vma::{Vma, VmaKind};

/// Most zero pages mapped ahead of a booting program's access. One that is never written takes no memory, since the
/// image is sparse.
const AT_BOOT: u64 = 15;
/// Most pages made writable ahead of a request. They are counted and not touched yet, which the process's bound on memory
/// cannot see: a megabyte for eight requests at a time.
const WRITABLE: u64 = 32;
/// From so many pages in a row on, those of the snapshot's layout are made writable ahead: they join the work set for
/// good, so a program that writes a few neighbours must not get more of them.
const SNAPSHOT_RUN: u64 = 4;
/// Pages are made writable ahead while they take no more than this part of what the memory limit leaves.
const LIMIT_SHARE: u64 = 8;
/// The window of pages that read as zero, aligned: what one page table names.
const ZEROES: u64 = 512;

/// The next pages in the direction of a run that has reached `page`.
fn next(page: u64, upwards: bool) -> Option<u64> {
    if upwards { page.checked_add(PAGE_SIZE) } else { page.checked_sub(PAGE_SIZE) }
}

/// Maps zero pages ahead of a program that touches consecutive pages while it boots, in either direction.
pub(super) fn map_at_boot(machine: &mut Machine, vma: &Vma, page: u64) {
    let is_there = |address: Option<u64>| address.is_some_and(|at| vma.range.contains(at) && machine.is_mapped(at));
    let upwards = match (is_there(next(page, false)), is_there(next(page, true))) {
        (true, false) => true,
        (false, true) => false,
        _ => return,
    };
    let mut at = page;
    for _ in 0..AT_BOOT {
        let Some(address) = next(at, upwards).filter(|&address| vma.range.contains(address)) else { break };
        if machine.map_zero(address, vma.prot, vma.origin).is_err() {
            break;
        }
        at = address;
    }
}

/// How many pages to make writable ahead of a run of `length` pages, which may take `left` pages of memory.
fn writable_ahead(length: u64, origin: Origin, left: u64) -> u64 {
    let wanted = match origin {
        // Half as many again, so that at most a third of the work set was never written.
        Origin::Snapshot if length < SNAPSHOT_RUN => 0,
        Origin::Snapshot => length / 2,
        Origin::Request => length,
    };
    wanted.min(WRITABLE).min(left / LIMIT_SHARE)
}

/// Makes pages writable ahead of a request that has written consecutive ones, the last of them `page`. A thread that may
/// not block copies no page of a file, which may have to be read.
pub(super) fn make_writable(machine: &mut Machine, vma: &Vma, page: u64, may_block: bool) {
    let Some(above) = next(page, true) else { return };
    let before = machine.run_length(page, false, true, 2 * WRITABLE);
    let after = machine.run_length(above, true, true, 2 * WRITABLE);
    let (length, upwards) = if before >= after { (before, true) } else { (after, false) };
    let mut at = page;
    for _ in 0..writable_ahead(length, vma.origin, machine.pages_left()) {
        let Some(address) = next(at, upwards).filter(|&address| vma.range.contains(address)) else { break };
        let done = match (machine.is_mapped(address), vma.kind) {
            (true, _) if machine.is_writable(address) || (!may_block && machine.is_file_page(address)) => break,
            (true, _) => machine.make_writable(address, vma.origin),
            (false, VmaKind::Private | VmaKind::Shared | VmaKind::Stack) => {
                machine.map_zero(address, vma.prot, vma.origin)
            }
            (false, _) => break,
        };
        if done.is_err() {
            break;
        }
        at = address;
    }
}

/// Maps the page at `page`, which a request reads first, and those around it, as pages that read as zero.
pub(super) fn map_zeroes(machine: &mut Machine, vma: &Vma, page: u64) -> Result<(), Refused> {
    let window = match vma.origin {
        Origin::Snapshot => {
            let bytes = ZEROES.saturating_mul(PAGE_SIZE);
            let start = page.checked_rem(bytes).and_then(|within| page.checked_sub(within));
            start.and_then(|start| PageRange::at(start, bytes))
        }
        // A reset takes what a request mapped away page by page, so a request maps as many as it has shown to need.
        Origin::Request => {
            let before = machine.run_length(page, false, false, ZEROES);
            PageRange::at(page, before.max(1).saturating_mul(PAGE_SIZE))
        }
    };
    let window = window.and_then(|window| window.intersection(vma.range));
    let pages = |range: PageRange| range.len() / PAGE_SIZE;
    let upwards = window.map_or(1, |window| pages(window.after(page))).max(1);
    machine.map_zeroes(page, upwards, vma.prot, vma.origin).map_err(Refused::Machine)?;
    // The pages below, from the window's start or from the last page that is there.
    let Some(below) = window.map(|window| window.before(page)).filter(|below| pages(*below) > 0) else { return Ok(()) };
    let mut start = page;
    while let Some(address) = next(start, false).filter(|&at| below.contains(at) && !machine.is_mapped(at)) {
        start = address;
    }
    if let Some(range) = PageRange::new(start, page).filter(|range| pages(*range) > 0) {
        let _ = machine.map_zeroes(range.start(), pages(range), vma.prot, vma.origin);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_request_double_and_those_of_the_snapshot_grow_by_half() {
        let ahead = |length, origin| writable_ahead(length, origin, u64::MAX);
        assert_eq!([0, 1, 7, 128, 256].map(|length| ahead(length, Origin::Request)), [0, 1, 7, 32, 32]);
        assert_eq!([0, 3, 4, 9, 256].map(|length| ahead(length, Origin::Snapshot)), [0, 0, 2, 4, 32]);
    }

    #[test]
    fn most_of_the_limit_is_left_to_what_the_program_touches() {
        assert_eq!(writable_ahead(256, Origin::Request, 80), 10);
        assert_eq!(writable_ahead(256, Origin::Request, 7), 0);
    }
}
