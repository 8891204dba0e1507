// SPDX-License-Identifier: MIT OR Apache-2.0
//! What calls do to overlay files that are mapped, and `memfd_create(2)`.
//!
//! ```text
//!  file      [ page 0 | page 1 | page 2 | page 3 ]      a page that a shared mapping has in a frame of the machine is
//!  one view       \________\___ frames                 that frame; every other page is the overlay's
//!  another               \___/
//! ```
//!
//! Reads look into the frames: [`read`]. Before anything else uses what the overlay has of such pages, it is brought up
//! to date: [`refresh`]. Writes go to both: [`write_through`]. All shared mappings of a page have one frame, so every
//! byte has one newest copy. A page of a mapping without access cannot be read, so its content moves back to the
//! overlay. See decision 0292.

use mayfly_machine::{PAGE_SIZE, Prot};

use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::ids::InodeId;
use crate::base::pages::{self, PAGE_BYTES, PageRange};
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::host::attributes;
use crate::kernel::call::Call;
use crate::kernel::{closing, work_limits};
use crate::mm::vma::{Vma, VmaKind};
use crate::store::content::{Content, Source};
use crate::store::inodes::Status;

/// `MFD_*` of `<linux/memfd.h>` that Linux 6.1 knows.
const KNOWN_FLAGS: u32 = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB;
/// Most bytes of a name.
const NAME_MAX: usize = 249;
/// `F_SEAL_*` that can be added.
const KNOWN_SEALS: u32 = 0x1f;
const SEAL_SEAL: u32 = 0x1;
const SEAL_WRITE: u32 = 0x8;
/// `fcntl` returns this flag for files without a size limit. The libc crate has 0 for it.
const O_LARGEFILE: i32 = 0o100_000;

/// `memfd_create(2)`.
pub(crate) fn memfd_create(call: &mut Call<'_, '_>) -> CallResult {
    let [name, flags, ..] = call.args;
    let flags = int(flags).cast_unsigned();
    // MFD_HUGETLB fails as on a kernel built without huge pages.
    if flags & !KNOWN_FLAGS != 0 || flags & libc::MFD_HUGETLB != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = call.user().read_path(name).map_err(|halt| match halt {
        Halt::Errno(Errno::ENAMETOOLONG) => Errno::EINVAL.into(),
        other => other,
    })?;
    if name.len() > NAME_MAX {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.check_room()?;
    let seals = if flags & libc::MFD_ALLOW_SEALING != 0 { 0 } else { SEAL_SEAL };
    let inodes = call.process.overlay.edit().inodes_mut();
    let now = attributes::now();
    let status = Status { number: inodes.number(), mode: 0o777, accessed: now, modified: now };
    let id = inodes.create(Content::default(), status, Some(seals))?;
    let path = [b"/memfd:", name.as_slice(), b" (deleted)"].concat();
    let open = OpenFile::new(Object::Memory { id, device: 0 }, &path, libc::O_RDWR | O_LARGEFILE);
    let fd = call.process.files.edit().install(open, flags & libc::MFD_CLOEXEC != 0)?;
    Ok(fd.unsigned_abs().into())
}

/// F_GET_SEALS and F_ADD_SEALS of `fcntl(2)`.
pub(crate) fn seals(call: &mut Call<'_, '_>, fd: i32, more: Option<u64>) -> Result<i32, Errno> {
    let open = call.process.files.open_file(fd)?;
    let Object::Memory { id, .. } = open.object else { return Err(Errno::EINVAL) };
    let writable = open.is_writable();
    let seals = call.process.overlay.inodes().seals(id).ok_or(Errno::EINVAL)?;
    let Some(more) = more else { return Ok(seals.cast_signed()) };
    let more = int(more).cast_unsigned();
    if !writable {
        return Err(Errno::EPERM);
    }
    if more & !KNOWN_SEALS != 0 {
        return Err(Errno::EINVAL);
    }
    if seals & SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    let can_be_written =
        |vma: &Vma| matches!(vma.kind, VmaKind::Overlay { inode, shared: true, writable: true, .. } if inode == id);
    if more & SEAL_WRITE != 0 && call.process.memory.all().iter().any(can_be_written) {
        return Err(Errno::EBUSY);
    }
    call.process.overlay.edit().inodes_mut().set_seals(id, seals | more);
    Ok(0)
}

/// A page of a mapping that holds a part of a file.
#[derive(Clone, Copy, Debug)]
struct View {
    address: u64,
    /// Where in the file the page starts.
    at: u64,
    shared: bool,
    /// Whether the program may write it.
    writable: bool,
}

/// Pages of mappings that hold bytes `offset..end` of a file.
fn views(call: &Call<'_, '_>, id: InodeId, offset: u64, end: u64) -> Vec<View> {
    let mut found = Vec::new();
    if !call.process.memory.maps_overlay(id) {
        return found;
    }
    let end = end.min(call.process.overlay.inodes().size(id));
    for (vma, from) in call.process.memory.overlay_parts(id, offset, end) {
        let VmaKind::Overlay { shared, .. } = vma.kind else { continue };
        let writable = vma.prot.contains(Prot::WRITE);
        let mut at = from;
        while at < end && at.saturating_sub(from) < vma.range.len() {
            let address = vma.range.start().saturating_add(at.saturating_sub(from));
            found.push(View { address, at, shared, writable });
            at = at.saturating_add(PAGE_SIZE);
        }
    }
    found
}

/// The content of the frame behind a page of a mapping, if it has one.
fn frame(call: &Call<'_, '_>, address: u64) -> Option<[u8; PAGE_BYTES]> {
    let mut bytes = [0; PAGE_BYTES];
    let is_own = call.machine.is_mapped(address) && !call.machine.is_file_page(address);
    (is_own && call.machine.read(address, &mut bytes).is_ok()).then_some(bytes)
}

/// Reads at `offset`, as [`crate::store::inodes::Inodes::read`], what the program has written by mappings included.
pub(crate) fn read(call: &Call<'_, '_>, id: InodeId, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
    let got = call.process.overlay.inodes().read(id, offset, out, call.context.may_block)?;
    for view in views(call, id, offset, offset.saturating_add(count(got))) {
        let Some(bytes) = Some(view).filter(|view| view.shared).and_then(|view| frame(call, view.address)) else {
            continue;
        };
        // The part of the page that is wanted, and its place in `out`.
        let skipped = usize::try_from(offset.saturating_sub(view.at)).unwrap_or(PAGE_BYTES);
        let place = usize::try_from(view.at.saturating_sub(offset)).unwrap_or(got);
        let wanted = out.get_mut(place..got).unwrap_or_default();
        for (to, from) in wanted.iter_mut().zip(bytes.get(skipped..).unwrap_or_default()) {
            *to = *from;
        }
    }
    Ok(got)
}

/// Updates the overlay's copy of the pages that hold bytes `offset..offset + len` from the mappings.
pub(crate) fn refresh(call: &mut Call<'_, '_>, id: InodeId, offset: u64, len: u64) {
    for view in views(call, id, offset, offset.saturating_add(len)) {
        if view.shared {
            store(call, id, view.address, view.at);
        }
    }
}

/// Stores the frame behind a page of a shared mapping, if it has one and the overlay does not have its content.
fn store(call: &mut Call<'_, '_>, id: InodeId, address: u64, at: u64) {
    let Some(bytes) = frame(call, address) else { return };
    let index = at / PAGE_SIZE;
    let is_known = match call.process.overlay.inodes().content(id).map(|content| content.source(index)) {
        Some(Source::Own(page)) => *page.bytes() == bytes,
        Some(Source::Hole) => bytes.iter().all(|&byte| byte == 0),
        // It may have been copied to be read only.
        Some(Source::Base(file)) => {
            let mut known = [0; PAGE_BYTES];
            let got = file.read_at(at, &mut known, call.context.may_block);
            got.is_ok() && known == bytes
        }
        None => true,
    };
    if !is_known {
        call.process.overlay.edit().inodes_mut().set_page(id, index, &bytes);
    }
}

/// Updates the mappings after bytes `offset..offset + len` of a file were changed in the overlay. The rest of these
/// pages has been refreshed.
pub(crate) fn write_through(call: &mut Call<'_, '_>, id: InodeId, offset: u64, len: u64) -> Result<(), Halt> {
    let views = views(call, id, offset, offset.saturating_add(len));
    let mut done = Vec::new();
    for view in views.iter().filter(|view| view.shared && view.writable) {
        if done.contains(&view.at) || frame(call, view.address).is_none() {
            continue;
        }
        let content = call.process.overlay.inodes().content(id).ok_or(Errno::EIO)?;
        // What is the host's is read now: the change has been made.
        let page = content.page(view.at / PAGE_SIZE, call.may_wait_for_memory())?;
        // All shared mappings of the page have this frame.
        if call.machine.write(view.address, page.bytes()).is_ok() {
            done.push(view.at);
        }
    }
    let mut stale = Vec::new();
    for view in views {
        // A page that cannot be written through a mapping is removed: the next access finds the new content. A private
        // mapping keeps the pages that it has copied.
        let is_stale = if view.shared { !done.contains(&view.at) } else { call.machine.is_file_page(view.address) };
        if is_stale && call.machine.is_mapped(view.address) {
            stale.push((view.address, PAGE_SIZE));
        }
    }
    call.machine.discard(&stale)?;
    Ok(())
}

/// Changes a file's size. Mapped pages past its new end are removed.
pub(crate) fn resize(call: &mut Call<'_, '_>, id: InodeId, size: u64) -> Result<(), Halt> {
    let before = call.process.overlay.inodes().size(id);
    if size < before {
        check_work(call, id, size, u64::MAX)?;
        // The rest of the last page becomes zero, in the mapping too.
        refresh(call, id, size, 1);
    }
    call.process.overlay.edit().inodes_mut().resize(id, size, attributes::now())?;
    if size < before {
        remove_behind(call, id, pages::align_up(size).unwrap_or(size))?;
        if !size.is_multiple_of(PAGE_SIZE) {
            write_through(call, id, size.saturating_sub(1), 1)?;
        }
    }
    Ok(())
}

/// To be called before bytes `offset..end` of a file are dropped, in the overlay and in its mappings.
fn check_work(call: &Call<'_, '_>, id: InodeId, offset: u64, end: u64) -> Result<(), Errno> {
    let (first, last) = (offset / PAGE_SIZE, end.div_ceil(PAGE_SIZE));
    let dropped = call.process.overlay.inodes().content(id).map_or(0, |content| content.own_in(first, last));
    // To drop a page takes much less time than to copy one.
    work_limits::check_bytes(call, dropped.saturating_mul(PAGE_SIZE / 16))?;
    if call.process.memory.maps_overlay(id) {
        for (vma, _) in call.process.memory.overlay_parts(id, offset, end) {
            work_limits::check_range(call, vma.range)?;
        }
    }
    Ok(())
}

/// Removes the pages of mappings that lie behind `end` in the file.
fn remove_behind(call: &mut Call<'_, '_>, id: InodeId, end: u64) -> Result<(), Halt> {
    if !call.process.memory.maps_overlay(id) {
        return Ok(());
    }
    let parts = call.process.memory.overlay_parts(id, end, u64::MAX);
    let behind: Vec<(u64, u64)> = parts.iter().map(|(vma, _)| (vma.range.start(), vma.range.len())).collect();
    call.machine.discard(&behind)?;
    Ok(())
}

/// Makes bytes `offset..offset + len` of a file zero: `FALLOC_FL_PUNCH_HOLE`.
pub(crate) fn punch(call: &mut Call<'_, '_>, id: InodeId, offset: u64, len: u64) -> Result<(), Halt> {
    let end = offset.saturating_add(len);
    let (first, last) = (pages::align_up(offset).unwrap_or(offset), pages::align_down(end));
    check_work(call, id, offset, end)?;
    // Pages of the host's file get a page of zeroes each.
    let added = call.process.overlay.inodes().content(id).map_or(0, |content| content.punched(offset, len));
    work_limits::check_bytes(call, added.saturating_mul(PAGE_SIZE))?;
    // The edges keep a part of what they have.
    for edge in [offset, end.saturating_sub(1)] {
        refresh(call, id, edge, 1);
    }
    let may_block = call.context.may_block;
    call.process.overlay.edit().inodes_mut().punch(id, offset, len, attributes::now(), may_block)?;
    for edge in [offset, end.saturating_sub(1)] {
        write_through(call, id, edge, 1)?;
    }
    if first < last && call.process.memory.maps_overlay(id) {
        let parts = call.process.memory.overlay_parts(id, first, last);
        let shared = parts.iter().filter(|(vma, _)| matches!(vma.kind, VmaKind::Overlay { shared: true, .. }));
        let gone: Vec<(u64, u64)> = shared.map(|(vma, _)| (vma.range.start(), vma.range.len())).collect();
        call.machine.discard(&gone)?;
    }
    Ok(())
}

/// The first byte from `offset` on that is data, or that is not: as [`Content::seek`], what the program has written by
/// mappings included.
pub(crate) fn seek(call: &mut Call<'_, '_>, id: InodeId, offset: u64, data: bool) -> Result<Option<u64>, Errno> {
    if call.process.memory.maps_overlay(id) {
        for (vma, from) in call.process.memory.overlay_parts(id, offset, u64::MAX) {
            if matches!(vma.kind, VmaKind::Overlay { shared: true, .. }) {
                work_limits::check_range(call, vma.range)?;
                for address in call.machine.own_pages(vma.range.start(), vma.range.len()) {
                    store(call, id, address, from.saturating_add(address.saturating_sub(vma.range.start())));
                }
            }
        }
    }
    let Some(content) = call.process.overlay.inodes().content(id) else { return Ok(None) };
    // It walks over own pages, one by one.
    work_limits::check_bytes(call, content.pages().saturating_mul(PAGE_SIZE / 16))?;
    Ok(content.seek(offset, data))
}

/// Saves what the mappings in `ranges`, which are about to be removed together, hold of files: of pages that no other
/// mapping shows.
pub(crate) fn keep(call: &mut Call<'_, '_>, ranges: &[PageRange]) {
    if !call.process.memory.has_overlay_mappings() {
        return;
    }
    let goes = |address: u64| ranges.iter().any(|range| range.contains(address));
    let parts: Vec<Vma> = ranges.iter().flat_map(|range| call.process.memory.within(*range)).collect();
    for vma in parts {
        let VmaKind::Overlay { inode, offset, shared: true, .. } = vma.kind else { continue };
        for address in call.machine.own_pages(vma.range.start(), vma.range.len()) {
            // All shared mappings of the page have this frame.
            let mut others = call.machine.addresses_of_frame(address).iter().copied();
            if !others.any(|other| !goes(other) && call.machine.is_mapped(other)) {
                store(call, inode, address, offset.saturating_add(address.saturating_sub(vma.range.start())));
            }
        }
    }
}

/// The mappings and the open files of a host file of `size` bytes become those of the overlay's file, which has just been
/// put over it: they see what is written to it.
pub(crate) fn adopt(call: &mut Call<'_, '_>, identity: (u32, u64), id: InodeId, size: u64) -> Result<(), Halt> {
    let (device, _) = identity;
    let is_same = |object: &Object| matches!(object, Object::Host(file) if file.identity() == identity);
    if call.process.files.objects().any(is_same) {
        call.process.files.edit().replace(is_same, &Object::Memory { id, device });
    }
    if !call.process.memory.maps_host_file(identity) {
        return Ok(());
    }
    for (range, shared) in call.process.memory.edit().adopt_overlay(identity, id) {
        // Copies of the host's pages: there must be one frame for all shared mappings.
        let copies = if shared { call.machine.own_pages(range.start(), range.len()) } else { Vec::new() };
        let copies: Vec<(u64, u64)> = copies.into_iter().map(|page| (page, PAGE_SIZE)).collect();
        call.machine.discard(&copies)?;
    }
    let now = call.process.overlay.inodes().size(id);
    if now < size {
        remove_behind(call, id, now)?;
    }
    Ok(())
}

/// Drops files that were kept only by mappings that have been removed.
pub(crate) fn forget_unmapped_files(call: &mut Call<'_, '_>) {
    if call.process.memory.has_overlay_mappings() {
        for id in call.process.memory.edit().forget_overlay_files() {
            closing::forget_file(call, id);
        }
    }
}
