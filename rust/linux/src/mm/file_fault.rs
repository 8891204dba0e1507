// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page faults on file mappings.
//!
//! | access | while booting | during a request |
//! |---|---|---|
//! | read, execute | pages of the page cache, with many neighbours | the same, for those parts of the file that the
//! boot has mapped |
//! | write | a copy, and copies of some neighbours, which become the snapshot's | a copy, which reset replaces by the
//! file's page |
//!
//! What cannot come from the page cache is read into a page of the machine: files on file systems without mappings, and
//! during a request files that the snapshot does not know. Such a page is the request's, and reset removes it. See
//! decisions 0046 and 0110.

use std::os::fd::AsFd;

use mayfly_engine::Machine;
use mayfly_machine::{FilePages, Origin, PAGE_SIZE};

use crate::base::errno::Errno;
use crate::base::pages::{PAGE_BYTES, PageRange};
use crate::mm::access::{Access, Refused};
use crate::mm::ahead;
use crate::mm::mapped_file::MappedFile;
use crate::mm::vma::{Vma, VmaKind};

/// Size of the window of pages that are mapped with a fault: 1 MiB, aligned. An entry costs some ten nanoseconds and a
/// fault tens of microseconds, and a page of the page cache costs nothing.
const AROUND_PAGES: u64 = 256;

/// Most pages mapped with a fault if they have to be in memory. Copying them is how that is found out.
const CACHED_PAGES: u64 = 16;

/// Size of the window of pages that are copied with a fault while a program boots. Copies cost memory, but programs
/// mostly write such pages (relocations, above all) one after the other.
const COPIED_PAGES: u64 = 16;

/// Makes `access` to the page at `page` of a mapping of `file` possible. The mapping permits it.
///
/// If the thread may not block, the page has to be in memory: the machine's own access would make `KVM_RUN` wait for
/// it.
pub(crate) fn fault_in(
    machine: &mut Machine,
    is_booting: bool,
    vma: &Vma,
    file: &MappedFile,
    page: u64,
    access: Access,
    may_block: bool,
) -> Result<(), Refused> {
    // The page cache's own pages would vanish with a file that is cut off meanwhile: these are copies.
    if file.file.durable().is_some() && !machine.is_mapped(page) {
        return if may_block { read_page(machine, vma, file, page) } else { Err(Refused::NotHere) };
    }
    let cached = if may_block { None } else { Some(cached(machine, vma, file, page)?) };
    let whole = PageRange::at(page, PAGE_SIZE).ok_or(Refused::Denied)?;
    if access == Access::Write && is_booting {
        return copy_around(machine, vma, file, page);
    }
    if !machine.is_mapped(page) && !map_around(machine, is_booting, vma, file, whole, cached)? {
        return if is_booting { copy_around(machine, vma, file, page) } else { read_page(machine, vma, file, page) };
    }
    if access == Access::Write {
        machine.make_writable(page, vma.origin).map_err(Refused::Machine)?;
        ahead::make_writable(machine, vma, page, may_block);
    }
    Ok(())
}

/// Number of consecutive pages from `page` on that are in memory: at least one.
fn cached(machine: &Machine, vma: &Vma, file: &MappedFile, page: u64) -> Result<u64, Refused> {
    let alone = vma.origin != Origin::Snapshot || machine.is_mapped(page);
    let wanted = if alone { PAGE_SIZE } else { CACHED_PAGES.saturating_mul(PAGE_SIZE) };
    let range = PageRange::at(page, wanted).and_then(|range| range.intersection(vma.range));
    let Some((VmaKind::File { offset, .. }, range)) = range.map(|range| (vma.covering(range).kind, range)) else {
        return Ok(1);
    };
    match file.file.cached(offset, usize::try_from(range.len()).unwrap_or(PAGE_BYTES)) {
        Err(Errno::NOT_HERE) => Err(Refused::NotHere),
        Ok(bytes) => Ok((bytes as u64).div_ceil(PAGE_SIZE).max(1)),
        // An error shows when the page is read.
        Err(_) => Ok(1),
    }
}

/// The aligned window of `pages` pages around `page`, within the mapping.
fn window_around(vma: &Vma, page: u64, pages: u64) -> Option<PageRange> {
    let size = pages.saturating_mul(PAGE_SIZE);
    let within = page.checked_rem(size)?;
    PageRange::at(page.checked_sub(within)?, size)?.intersection(vma.range)
}

/// Maps a page from the page cache, and its neighbours; `false` if it cannot come from there.
fn map_around(
    machine: &mut Machine,
    is_booting: bool,
    vma: &Vma,
    file: &MappedFile,
    page: PageRange,
    cached: Option<u64>,
) -> Result<bool, Refused> {
    // Reset unmaps page by page what a request maps, so a request maps few.
    let many = is_booting || vma.origin == Origin::Snapshot;
    let window = match cached {
        Some(pages) => {
            PageRange::at(page.start(), pages.saturating_mul(PAGE_SIZE)).and_then(|range| range.intersection(vma.range))
        }
        None if many => window_around(vma, page.start(), AROUND_PAGES),
        None => None,
    };
    let window = window.unwrap_or(page);
    if cached.is_none()
        && !is_booting
        && many
        && let VmaKind::File { offset, .. } = vma.covering(window).kind
    {
        // So that later legs, which must not block, find the neighbours in memory.
        file.file.fetch(offset, window.len());
    }
    if map(machine, vma, file, window.after(page.start()))? == 0 {
        return Ok(false);
    }
    // Neighbours are best effort.
    let _ = map(machine, vma, file, window.before(page.start()));
    Ok(true)
}

/// Maps pages of `range` from its start, as many as possible; returns their number.
fn map(machine: &mut Machine, vma: &Vma, file: &MappedFile, range: PageRange) -> Result<u64, Refused> {
    let VmaKind::File { offset, .. } = vma.covering(range).kind else { return Ok(0) };
    let pages = FilePages {
        file: file.file.as_fd(),
        key: file.file.key(),
        first: offset / PAGE_SIZE,
        count: range.len() / PAGE_SIZE,
    };
    machine.map_file(range.start(), vma.prot, vma.origin, &pages).map_err(Refused::Machine)
}

/// Copies a page for a booting program, and some neighbours.
fn copy_around(machine: &mut Machine, vma: &Vma, file: &MappedFile, page: u64) -> Result<(), Refused> {
    copy(machine, vma, file, page)?;
    let window = window_around(vma, page, COPIED_PAGES);
    let mut at = window.map_or(page, PageRange::start);
    while at < window.map_or(page, PageRange::end) {
        // Neighbours past the end of the file or of the machine's memory are left to their own fault.
        if copy(machine, vma, file, at).is_err() {
            break;
        }
        at = at.saturating_add(PAGE_SIZE);
    }
    Ok(())
}

fn copy(machine: &mut Machine, vma: &Vma, file: &MappedFile, page: u64) -> Result<(), Refused> {
    if !machine.is_mapped(page) {
        return read_page(machine, vma, file, page);
    }
    if !vma.prot.contains(mayfly_machine::Prot::WRITE) {
        return Ok(());
    }
    machine.make_writable(page, vma.origin).map_err(Refused::Machine)
}

/// Reads one page of a file into a new page of the machine.
fn read_page(machine: &mut Machine, vma: &Vma, file: &MappedFile, page: u64) -> Result<(), Refused> {
    let mut bytes = [0; PAGE_BYTES];
    let part = PageRange::at(page, PAGE_SIZE).map(|range| vma.covering(range).kind);
    let Some(VmaKind::File { offset, .. }) = part else { return Err(Refused::PastEnd) };
    match file.file.read_at(offset, &mut bytes, true) {
        Ok(0) | Err(_) => Err(Refused::PastEnd),
        Ok(got) => {
            let data = bytes.get(..got).unwrap_or_default();
            machine.map_filled(page, vma.prot, data).map_err(Refused::Machine)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_and_stay_in_the_mapping() {
        let vma = Vma {
            range: PageRange::new(0x5000, 0x30_0000).unwrap(),
            prot: mayfly_machine::Prot::READ,
            kind: VmaKind::Private,
            origin: Origin::Snapshot,
        };
        let window = |page, pages| window_around(&vma, page, pages).map(|range| (range.start(), range.end()));
        assert_eq!(window(0x5000, 16), Some((0x5000, 0x1_0000)));
        assert_eq!(window(0x1_0000, 16), Some((0x1_0000, 0x2_0000)));
        assert_eq!(window(0x1_f000, 16), Some((0x1_0000, 0x2_0000)));
        assert_eq!(window(0x2f_f000, 256), Some((0x20_0000, 0x30_0000)));
        assert_eq!(window(0x2f_f000, 0), None);
    }
}
