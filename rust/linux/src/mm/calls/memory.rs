// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls on memory: `mmap(2)` and related ones. Each changes the address space first, then the machine's pages.

use std::sync::Arc;

use mayfly_machine::{PAGE_SIZE, Prot, layout};

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::ids::InodeId;
use crate::base::pages::{self, PAGE_BYTES, PageRange, TASK_SIZE};
use crate::fs::calls::overlay_mappings;
use crate::fs::object::Object;
use crate::kernel::call::Call;
use crate::kernel::work_limits;
use crate::mm::mapped_file::MappedFile;
use crate::mm::placement::Placement;
use crate::mm::vma::{Vma, VmaKind};

/// Flags of `mmap` in `<sys/mman.h>` that the libc crate lacks.
const MAP_TYPE: i32 = 0x0f;
const MAP_32BIT: i32 = 0x40;

/// Valid protection bits without an effect on x86-64.
const PROT_SEM: u64 = 8;
const PROT_GROWSDOWN: u64 = 0x0100_0000;
const PROT_GROWSUP: u64 = 0x0200_0000;

/// `brk(2)`.
pub(crate) fn brk(call: &mut Call<'_, '_>) -> CallResult {
    let [wanted, ..] = call.args;
    if wanted == 0 {
        return Ok(call.process.memory.heap_break());
    }
    if let Some(range) =
        PageRange::new(pages::align_down(wanted), pages::align_up(call.process.memory.heap_break()).unwrap_or(0))
    {
        work_limits::check_range(call, range)?;
    }
    let (now, unmapped) = call.process.memory.edit().set_break(wanted);
    unmap_pages(call, unmapped)?;
    Ok(now)
}

/// `mmap(2)`: anonymous memory, files of mounts, and files of the overlay.
pub(crate) fn mmap(call: &mut Call<'_, '_>) -> CallResult {
    let [address, len, prot, flags, fd, offset] = call.args;
    let flags = int(flags);
    if !pages::is_aligned(offset) {
        return Err(Errno::EINVAL.into());
    }
    // Linux ignores unknown protection bits.
    let prot = Prot::from_bits(prot & 7).ok_or(Errno::EINVAL)?;
    let backing = if flags & libc::MAP_ANONYMOUS != 0 { Backing::Zeroes } else { backing(call, int(fd))? };
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    let shared = match flags & MAP_TYPE {
        libc::MAP_PRIVATE => false,
        libc::MAP_SHARED => true,
        libc::MAP_SHARED_VALIDATE if flags & libc::MAP_ANONYMOUS == 0 => true,
        _ => return Err(Errno::EINVAL.into()),
    };
    if flags & libc::MAP_HUGETLB != 0 {
        // As on a system without reserved huge pages.
        return Err(Errno::ENOMEM.into());
    }
    let placement = placement(address, len, flags)?;
    let end = pages::align_up(len).and_then(|len| offset.checked_add(len));
    if end.is_none_or(|end| i64::try_from(end).is_err()) && !matches!(backing, Backing::Zeroes) {
        return Err(Errno::EOVERFLOW.into());
    }
    if let Placement::Fixed(replaced) = placement {
        work_limits::check_range(call, replaced)?;
    }
    if let Backing::Overlay { id, .. } = backing {
        work_limits::check_bytes(call, crate::base::arguments::count(call.process.overlay.content(id).len()).min(len))?;
        work_limits::check_file(call, id)?;
    }
    if let Placement::Fixed(replaced) = placement {
        overlay_mappings::keep(call, replaced);
    }
    if let Backing::Overlay { id, .. } = backing {
        check_overlay(call, &backing, placement, prot, shared, offset, len)?;
        overlay_mappings::refresh(call, id, offset, len);
    }
    let space = &mut call.process.memory;
    let range = match &backing {
        Backing::Zeroes => {
            space.edit().map(placement, len, prot, if shared { VmaKind::Shared } else { VmaKind::Private })?
        }
        // A writable mapping of a file of the host's cannot be shared.
        Backing::File(_) if shared && prot.contains(Prot::WRITE) => return Err(Errno::EACCES.into()),
        Backing::Overlay { id, writable } if shared => {
            let size = crate::base::arguments::count(call.process.overlay.content(*id).len());
            let kind = VmaKind::Overlay { inode: *id, offset, writable: *writable };
            let range = space.edit().map(placement, len, prot, kind)?;
            space.edit().set_overlay_size(*id, size);
            range
        }
        Backing::Overlay { .. } => space.edit().map(placement, len, prot, VmaKind::Private)?,
        Backing::File(file) => space.edit().map_file(placement, len, prot, file.clone(), offset, shared)?,
    };
    if let Placement::Fixed(_) = placement {
        unmap_pages(call, Some(range))?;
    }
    match backing {
        Backing::Overlay { .. } if shared => overlay_mappings::fill(call, range)?,
        Backing::Overlay { id, .. } => copy_content(call, range, prot, id, offset)?,
        Backing::Zeroes | Backing::File(_) => {}
    }
    overlay_mappings::forget_unmapped_files(call);
    Ok(range.start())
}

/// What backs a new mapping.
enum Backing {
    Zeroes,
    File(MappedFile),
    /// A file of the overlay: a private mapping gets a copy of its present content.
    Overlay {
        id: InodeId,
        /// Whether a shared mapping may be writable.
        writable: bool,
    },
}

/// Refuses mappings of an overlay file that are impossible.
fn check_overlay(
    call: &Call<'_, '_>,
    backing: &Backing,
    placement: Placement,
    prot: Prot,
    shared: bool,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    let Backing::Overlay { id, writable } = *backing else { return Ok(()) };
    if !shared {
        return Ok(());
    }
    if prot.contains(Prot::WRITE) && !writable {
        return Err(if call.process.overlay.is_write_sealed(id) { Errno::EPERM } else { Errno::EACCES });
    }
    let replaced = if let Placement::Fixed(range) = placement { Some(range) } else { None };
    let len = pages::align_up(len).ok_or(Errno::ENOMEM)?;
    // Each part of the file is in one page at most.
    if overlay_mappings::is_mapped_elsewhere(call, id, offset, len, replaced) { Err(Errno::ENODEV) } else { Ok(()) }
}

/// Brings in all pages of a mapping for which an overlay file has content. The file's size is bounded, so the pages are
/// too.
fn copy_content(call: &mut Call<'_, '_>, range: PageRange, prot: Prot, id: InodeId, offset: u64) -> Result<(), Halt> {
    let content = call.process.overlay.content(id);
    let content = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
    let mut page = range.start();
    for data in content.chunks(PAGE_BYTES) {
        if !range.contains(page) {
            break;
        }
        call.machine.map_filled(page, prot, data)?;
        page = page.saturating_add(PAGE_SIZE);
    }
    Ok(())
}

/// What backs a mapping of `fd`.
fn backing(call: &Call<'_, '_>, fd: i32) -> Result<Backing, Errno> {
    let open = call.process.files.open_file(fd)?;
    if open.flags & libc::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    if !open.is_readable() {
        return Err(Errno::EACCES);
    }
    match &open.object {
        Object::Host(file) => Ok(Backing::File(MappedFile { file: Arc::clone(file), path: Arc::clone(&open.path) })),
        Object::Memory { id, .. } => {
            Ok(Backing::Overlay { id: *id, writable: open.is_writable() && !call.process.overlay.is_write_sealed(*id) })
        }
        // A mapping of `/dev/zero` is anonymous memory.
        Object::Zero => Ok(Backing::Zeroes),
        _ => Err(Errno::ENODEV),
    }
}

fn placement(address: u64, len: u64, flags: i32) -> Result<Placement, Errno> {
    if flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0 {
        if !pages::is_aligned(address) {
            return Err(Errno::EINVAL);
        }
        let range = PageRange::at(address, len).ok_or(Errno::ENOMEM)?;
        let no_replace = flags & libc::MAP_FIXED_NOREPLACE != 0;
        return Ok(if no_replace { Placement::FixedNoReplace(range) } else { Placement::Fixed(range) });
    }
    Ok(match address {
        _ if flags & MAP_32BIT != 0 => Placement::Low,
        0 => Placement::Anywhere,
        hint => Placement::Hint(hint),
    })
}

/// `munmap(2)`.
pub(crate) fn munmap(call: &mut Call<'_, '_>) -> CallResult {
    let [address, len, ..] = call.args;
    let range = PageRange::at(address, len).filter(|range| !range.is_empty()).ok_or(Errno::EINVAL)?;
    work_limits::check_range(call, range)?;
    overlay_mappings::keep(call, range);
    call.process.memory.edit().unmap(range)?;
    unmap_pages(call, Some(range))?;
    overlay_mappings::forget_unmapped_files(call);
    Ok(0)
}

/// `pkey_alloc(2)`: the guest's processor has no protection keys.
pub(crate) fn pkey_alloc(call: &mut Call<'_, '_>) -> CallResult {
    const PKEY_ACCESS_MASK: u64 = 3;
    let [flags, rights, ..] = call.args;
    Err(if flags != 0 || rights & !PKEY_ACCESS_MASK != 0 { Errno::EINVAL } else { Errno::ENOSPC }.into())
}

/// `mprotect(2)`.
pub(crate) fn mprotect(call: &mut Call<'_, '_>) -> CallResult {
    let [address, len, bits, ..] = call.args;
    if !pages::is_aligned(address) {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let range = PageRange::at(address, len).ok_or(Errno::ENOMEM)?;
    let grows_down = bits & PROT_GROWSDOWN != 0;
    let prot = bits & !(PROT_SEM | PROT_GROWSDOWN);
    if bits & PROT_GROWSUP != 0 {
        return Err(Errno::EINVAL.into());
    }
    let prot = Prot::from_bits(prot).ok_or(Errno::EINVAL)?;
    let range = if grows_down { from_stack_start(call, range)? } else { range };
    let is_shared_file =
        |vma: Vma| matches!(vma.kind, VmaKind::File { shared: true, .. } | VmaKind::Overlay { writable: false, .. });
    if prot.contains(Prot::WRITE) && call.process.memory.within(range).any(is_shared_file) {
        return Err(Errno::EACCES.into());
    }
    work_limits::check_range(call, range)?;
    // Pages may become unreadable: their content goes to the overlay first.
    overlay_mappings::keep(call, range);
    let changed = call.process.memory.edit().protect(range, prot)?;
    if !changed.is_empty() {
        call.machine.protect(changed.start(), changed.len(), prot)?;
    }
    if changed == range { Ok(0) } else { Err(Errno::ENOMEM.into()) }
}

/// PROT_GROWSDOWN: the range reaches down to the start of the stack that it lies in.
fn from_stack_start(call: &Call<'_, '_>, range: PageRange) -> Result<PageRange, Errno> {
    let vma = call.process.memory.find(range.start()).ok_or(Errno::ENOMEM)?;
    if vma.kind != VmaKind::Stack {
        return Err(Errno::EINVAL);
    }
    PageRange::new(vma.range.start(), range.end()).ok_or(Errno::ENOMEM)
}

/// `mremap(2)`.
pub(crate) fn mremap(call: &mut Call<'_, '_>) -> CallResult {
    let [address, old_len, new_len, flags, new_address, _] = call.args;
    let flags = int(flags);
    let (may_move, fixed) = (flags & libc::MREMAP_MAYMOVE != 0, flags & libc::MREMAP_FIXED != 0);
    // MREMAP_DONTUNMAP is refused as kernels before 5.7 do, and so is duplicating a shared mapping by an old length of
    // 0.
    if flags & !(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) != 0 || (fixed && !may_move) {
        return Err(Errno::EINVAL.into());
    }
    let new_len = pages::align_up(new_len).filter(|&len| len != 0).ok_or(Errno::EINVAL)?;
    if !pages::is_aligned(address) || old_len == 0 {
        return Err(Errno::EINVAL.into());
    }
    let old = PageRange::at(address, old_len).ok_or(Errno::EFAULT)?;
    work_limits::check_range(call, old)?;
    if let Some(replaced) = PageRange::at(new_address, new_len).filter(|_| fixed) {
        work_limits::check_range(call, replaced)?;
    }
    keep_of_remapped(call, old, new_len, fixed.then_some(new_address))?;
    let done = call.process.memory.edit().remap(old, new_len, may_move, fixed.then_some(new_address))?;
    unmap_pages(call, done.replaced)?;
    unmap_pages(call, done.cut)?;
    if let Some((pages, to)) = done.moved {
        call.machine.move_pages(pages.start(), to, pages.len())?;
    }
    if let Some(range) = PageRange::at(done.address, new_len) {
        overlay_mappings::fill(call, range)?;
    }
    overlay_mappings::forget_unmapped_files(call);
    Ok(done.address)
}

/// Keeps the content of overlay files that a `mremap` unmaps, and refuses to map a part of one twice.
fn keep_of_remapped(call: &mut Call<'_, '_>, old: PageRange, new_len: u64, to: Option<u64>) -> Result<(), Errno> {
    if !call.process.memory.has_overlay_mappings() {
        return Ok(());
    }
    if let Some(vma) = call.process.memory.find(old.start())
        && let VmaKind::Overlay { inode, offset, .. } = vma.covering(old).kind
        && new_len > old.len()
        && overlay_mappings::is_mapped_elsewhere(
            call,
            inode,
            offset.saturating_add(old.len()),
            new_len.saturating_sub(old.len()),
            None,
        )
    {
        return Err(Errno::ENOMEM);
    }
    overlay_mappings::keep(call, old);
    if let Some(target) = to.and_then(|to| PageRange::at(to, new_len)) {
        overlay_mappings::keep(call, target);
    }
    Ok(())
}

/// `madvise(2)`. Advice to discard pages is followed at once; advice about performance is accepted and ignored.
pub(crate) fn madvise(call: &mut Call<'_, '_>) -> CallResult {
    let [address, len, advice, ..] = call.args;
    let gives_up = match int(advice) {
        // Linux may keep MADV_FREE's pages until memory is short. Here it always is: a request has a limit.
        libc::MADV_DONTNEED | libc::MADV_FREE => true,
        libc::MADV_NORMAL
        | libc::MADV_RANDOM
        | libc::MADV_SEQUENTIAL
        | libc::MADV_WILLNEED
        | libc::MADV_DONTFORK
        | libc::MADV_DOFORK
        | libc::MADV_MERGEABLE
        | libc::MADV_UNMERGEABLE
        | libc::MADV_HUGEPAGE
        | libc::MADV_NOHUGEPAGE
        | libc::MADV_DONTDUMP
        | libc::MADV_DODUMP
        | libc::MADV_COLD
        | libc::MADV_PAGEOUT
        | libc::MADV_WIPEONFORK
        | libc::MADV_KEEPONFORK
        | libc::MADV_POPULATE_READ
        | libc::MADV_POPULATE_WRITE => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    let range = PageRange::at(address, len).ok_or(Errno::EINVAL)?;
    if gives_up {
        work_limits::check_range(call, range)?;
        let own = |kind: &VmaKind| !matches!(kind, VmaKind::Shared | VmaKind::Overlay { .. });
        let private = call.process.memory.within(range).filter(|vma| own(&vma.kind));
        let private: Vec<(u64, u64)> = private.map(|vma| (vma.range.start(), vma.range.len())).collect();
        call.machine.discard(&private)?;
    }
    require_mapped(call, range)?;
    Ok(0)
}

/// `mlock(2)`, `munlock(2)`, `msync(2)`: memory is never swapped and has no file behind it.
pub(crate) fn nothing_to_do_for_range(call: &mut Call<'_, '_>) -> CallResult {
    let [address, len, ..] = call.args;
    let start = pages::align_down(address);
    let len = address.checked_sub(start).and_then(|offset| len.checked_add(offset)).ok_or(Errno::EINVAL)?;
    let range = PageRange::at(start, len).ok_or(Errno::ENOMEM)?;
    require_mapped(call, range)?;
    Ok(0)
}

/// `mlock2(2)`.
pub(crate) fn mlock2(call: &mut Call<'_, '_>) -> CallResult {
    const MLOCK_ONFAULT: i32 = 1;
    let [_, _, flags, ..] = call.args;
    if int(flags) & !MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL.into());
    }
    nothing_to_do_for_range(call)
}

/// `mlockall(2)`.
pub(crate) fn mlockall(call: &mut Call<'_, '_>) -> CallResult {
    let [flags, ..] = call.args;
    let flags = int(flags);
    let known = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    if flags & !known != 0 || flags & (libc::MCL_CURRENT | libc::MCL_FUTURE) == 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// `munlockall(2)`.
pub(crate) fn nothing_to_do(_call: &mut Call<'_, '_>) -> CallResult {
    Ok(0)
}

/// `mincore(2)`: which pages the program has.
pub(crate) fn mincore(call: &mut Call<'_, '_>) -> CallResult {
    /// Most pages that one call reports.
    const PAGES_MAX: u64 = 1 << 18;
    let [address, len, buffer, ..] = call.args;
    if !pages::is_aligned(address) {
        return Err(Errno::EINVAL.into());
    }
    let range = PageRange::at(address, len).ok_or(Errno::ENOMEM)?;
    require_mapped(call, range)?;
    if range.len() / PAGE_SIZE > PAGES_MAX {
        return Err(Errno::EAGAIN.into());
    }
    work_limits::check_pages(call, range)?;
    let mut residency = Vec::new();
    let mut page = range.start();
    while page < range.end() {
        residency.push(u8::from(call.machine.is_resident(page)));
        page = page.saturating_add(PAGE_SIZE);
    }
    call.user().write(buffer, &residency)?;
    Ok(0)
}

/// `membarrier(2)`: with one processor every barrier has already happened.
pub(crate) fn membarrier(call: &mut Call<'_, '_>) -> CallResult {
    const SUPPORTED: i32 = libc::MEMBARRIER_CMD_GLOBAL
        | libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED
        | libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
        | libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED
        | libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED
        | libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE
        | libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
    let [command, flags, ..] = call.args;
    match int(command) {
        _ if int(flags) != 0 => Err(Errno::EINVAL.into()),
        libc::MEMBARRIER_CMD_QUERY => Ok(SUPPORTED.unsigned_abs().into()),
        one if one.count_ones() == 1 && SUPPORTED & one != 0 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn require_mapped(call: &Call<'_, '_>, range: PageRange) -> Result<(), Errno> {
    if call.process.memory.mapped_prefix(range) == range { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Unmaps the pages of `range`, as far as it lies in the program's part.
fn unmap_pages(call: &mut Call<'_, '_>, range: Option<PageRange>) -> Result<(), Halt> {
    let user = PageRange::new(layout::USER_MIN, layout::USER_END);
    if let Some(part) = range.zip(user).and_then(|(range, user)| range.intersection(user)) {
        call.machine.unmap(part.start(), part.len())?;
    }
    Ok(())
}

const _: () = assert!(layout::USER_END <= TASK_SIZE);
