// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared mappings of overlay files, and `memfd_create(2)`.
//!
//! ```text
//!  file   [ page 0 | page 1 | page 2 | page 3 ]        what is mapped shared lies in the mapping's pages,
//!              \________\___ mapping                   the rest in the overlay
//! ```
//!
//! For the mapped part of a file, the mapping's pages have the newest content. Every other access first updates the
//! overlay's copy: [`refresh`]. Every other write goes to both: [`write_through`]. Each part of a file is mapped shared
//! at most once at a time, so every byte has one newest copy. See decision 0181.

use mayfly_machine::PAGE_SIZE;

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
    let id = call.process.overlay.edit().create_unnamed(0o777, seals, attributes::now());
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
    let seals = call.process.overlay.seals(id).ok_or(Errno::EINVAL)?;
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
    let can_be_written = |vma: &Vma| matches!(vma.kind, VmaKind::Overlay { inode, writable: true, .. } if inode == id);
    if more & SEAL_WRITE != 0 && call.process.memory.all().iter().any(can_be_written) {
        return Err(Errno::EBUSY);
    }
    call.process.overlay.edit().set_seals(id, seals | more);
    Ok(0)
}

/// Pages of shared mappings that hold bytes `offset..end` of a file: their addresses, and their offsets in the file.
fn pages_of(call: &Call<'_, '_>, id: InodeId, offset: u64, end: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    if !call.process.memory.has_overlay_mappings() {
        return found;
    }
    let end = end.min(count(call.process.overlay.content(id).len()));
    for vma in call.process.memory.all() {
        let VmaKind::Overlay { inode, offset: first, .. } = vma.kind else { continue };
        if inode != id {
            continue;
        }
        let to = end.min(first.saturating_add(vma.range.len()));
        let mut at = first.max(pages::align_down(offset));
        while at < to {
            found.push((vma.range.start().saturating_add(at.saturating_sub(first)), at));
            at = at.saturating_add(PAGE_SIZE);
        }
    }
    found
}

/// Updates the overlay's copy of bytes `offset..offset + len` from the mappings.
pub(crate) fn refresh(call: &mut Call<'_, '_>, id: InodeId, offset: u64, len: u64) {
    for (page, at) in pages_of(call, id, offset, offset.saturating_add(len)) {
        let mut bytes = [0; PAGE_BYTES];
        // A page that was not touched equals the overlay's copy, and so does one that the program may not access.
        if call.machine.is_mapped(page) && call.machine.read(page, &mut bytes).is_ok() {
            let known = content(call, id, at);
            let now = bytes.get(..known.len()).unwrap_or_default();
            if known != now {
                let now = now.to_vec();
                call.process.overlay.edit().replace(id, at, &now);
            }
        }
    }
}

/// The content of one page of a file, up to the file's end.
fn content<'c>(call: &'c Call<'_, '_>, id: InodeId, at: u64) -> &'c [u8] {
    let content = call.process.overlay.content(id);
    let rest = usize::try_from(at).ok().and_then(|at| content.get(at..)).unwrap_or_default();
    rest.get(..rest.len().min(PAGE_BYTES)).unwrap_or_default()
}

/// Updates the mappings after bytes `offset..offset + len` were written to the overlay. The rest of these pages has
/// been refreshed.
pub(crate) fn write_through(call: &mut Call<'_, '_>, id: InodeId, offset: u64, len: u64) -> Result<(), Halt> {
    for (page, at) in pages_of(call, id, offset, offset.saturating_add(len)) {
        put(call, id, page, at)?;
    }
    Ok(())
}

/// Copies the overlay's content to a page of a mapping.
fn put(call: &mut Call<'_, '_>, id: InodeId, page: u64, at: u64) -> Result<(), Halt> {
    let mut bytes = content(call, id, at).to_vec();
    bytes.resize(PAGE_BYTES, 0);
    if call.machine.write(page, &bytes).is_ok() {
        return Ok(());
    }
    // The page is read-only or absent.
    let prot = call.process.memory.find(page).ok_or(Errno::EFAULT)?.prot;
    call.machine.unmap(page, PAGE_SIZE)?;
    if bytes.iter().any(|&byte| byte != 0) {
        call.machine.map_filled(page, prot, &bytes)?;
    }
    Ok(())
}

/// Changes a file's size. Mapped pages past its new end are removed.
pub(crate) fn resize(call: &mut Call<'_, '_>, id: InodeId, size: u64) -> Result<(), Halt> {
    let before = count(call.process.overlay.content(id).len());
    work_limits::check_bytes(call, size.abs_diff(before).min(call.process.overlay.room().max(before)))?;
    work_limits::check_file(call, id)?;
    if size < before {
        // The rest of the last page becomes zero, in the mapping too.
        refresh(call, id, size, 1);
    }
    call.process.overlay.edit().resize(id, size, attributes::now())?;
    follow_size(call, id)?;
    if size < before && !size.is_multiple_of(PAGE_SIZE) {
        write_through(call, id, size.saturating_sub(1), 1)?;
    }
    Ok(())
}

/// Adapts the mappings of a file to its size.
pub(crate) fn follow_size(call: &mut Call<'_, '_>, id: InodeId) -> Result<(), Halt> {
    let size = count(call.process.overlay.content(id).len());
    let known = call.process.memory.overlay_size(id);
    if known.is_none_or(|known| known == size) {
        return Ok(());
    }
    call.process.memory.edit().set_overlay_size(id, size);
    let end = pages::align_up(size).unwrap_or(size);
    let behind: Vec<(u64, u64)> = call
        .process
        .memory
        .all()
        .iter()
        .filter_map(|vma| match vma.kind {
            VmaKind::Overlay { inode, offset, .. } if inode == id => {
                Some(vma.range.after(vma.range.start().saturating_add(end.saturating_sub(offset))))
            }
            _ => None,
        })
        .filter(|range| !range.is_empty())
        .map(|range| (range.start(), range.len()))
        .collect();
    call.machine.discard(&behind)?;
    Ok(())
}

/// Whether a mapping outside of `but` shows a part of the `len` bytes from `offset` on.
pub(crate) fn is_mapped_elsewhere(
    call: &Call<'_, '_>,
    id: InodeId,
    offset: u64,
    len: u64,
    but: Option<PageRange>,
) -> bool {
    let end = offset.saturating_add(len);
    let shows = |part: Vma| match part.kind {
        VmaKind::Overlay { inode, offset: first, .. } => {
            let last = first.saturating_add(part.range.len());
            inode == id && !part.range.is_empty() && first < end && offset < last
        }
        _ => false,
    };
    call.process.memory.all().iter().any(|vma| match but {
        Some(but) => {
            shows(vma.covering(vma.range.before(but.start()))) || shows(vma.covering(vma.range.after(but.end())))
        }
        None => shows(*vma),
    })
}

/// Brings in the pages of a shared mapping that have content. Pages of zeroes appear when they are touched.
pub(crate) fn fill(call: &mut Call<'_, '_>, range: PageRange) -> Result<(), Halt> {
    let parts: Vec<Vma> = call.process.memory.within(range).collect();
    for vma in parts {
        let VmaKind::Overlay { inode, offset, .. } = vma.kind else { continue };
        let size = count(call.process.overlay.content(inode).len());
        let mut at = offset;
        while at < size.min(offset.saturating_add(vma.range.len())) {
            let page = vma.range.start().saturating_add(at.saturating_sub(offset));
            let data = content(call, inode, at).to_vec();
            if data.iter().any(|&byte| byte != 0) && !call.machine.is_mapped(page) {
                call.machine.map_filled(page, vma.prot, &data)?;
            }
            at = at.saturating_add(PAGE_SIZE);
        }
    }
    Ok(())
}

/// Saves the content of mappings in `range`, which are about to be removed, to the overlay.
pub(crate) fn keep(call: &mut Call<'_, '_>, range: PageRange) {
    if !call.process.memory.has_overlay_mappings() {
        return;
    }
    let parts: Vec<Vma> = call.process.memory.within(range).collect();
    for vma in parts {
        if let VmaKind::Overlay { inode, offset, .. } = vma.kind {
            refresh(call, inode, offset, vma.range.len());
        }
    }
}

/// Drops files that were kept only by mappings that have been removed.
pub(crate) fn forget_unmapped_files(call: &mut Call<'_, '_>) {
    if call.process.memory.has_overlay_mappings() {
        for id in call.process.memory.edit().forget_overlay_files() {
            closing::forget_file(call, id);
        }
    }
}
