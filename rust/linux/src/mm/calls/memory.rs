// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls on memory: `mmap(2)` and related ones. Each changes the address space first, then the machine's pages.

use std::sync::Arc;

use mayfly_engine::Residency;
use mayfly_machine::{MemoryError, PAGE_SIZE, Prot, SharedFile, layout};

use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::ids::InodeId;
use crate::base::pages::{self, PageRange, TASK_SIZE};
use crate::fs::calls::{durable, overlay_mappings};
use crate::fs::object::Object;
use crate::host::files::HostFile;
use crate::kernel::call::Call;
use crate::kernel::{residency, work_limits};
use crate::mm::durable_fault;
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
    check_overlay(call, &backing, prot, shared)?;
    if shared {
        check_durable(call, &backing, prot, offset)?;
    }
    if let Placement::Fixed(replaced) = placement {
        overlay_mappings::keep(call, &[replaced]);
    }
    let space = &mut call.process.memory;
    let range = match &backing {
        Backing::Zeroes => {
            space.edit().map(placement, len, prot, if shared { VmaKind::Shared } else { VmaKind::Private })?
        }
        Backing::File { file, writable } if shared && file.file.durable().is_some() => {
            space.edit().map_durable(placement, len, prot, file.clone(), offset, *writable)?
        }
        // A writable mapping of a file of the host's cannot be shared.
        Backing::File { .. } if shared && prot.contains(Prot::WRITE) => return Err(Errno::EACCES.into()),
        Backing::Overlay { id, writable } => {
            space.edit().map_overlay(placement, len, prot, (*id, offset), shared, *writable || !shared)?
        }
        Backing::File { file, .. } => space.edit().map_file(placement, len, prot, file.clone(), offset, shared)?,
    };
    if let Placement::Fixed(_) = placement {
        unmap_pages(call, Some(range))?;
    }
    forget_unmapped_files(call)?;
    Ok(range.start())
}

/// What backs a new mapping.
enum Backing {
    Zeroes,
    File {
        file: MappedFile,
        /// Whether the descriptor is open for writing.
        writable: bool,
    },
    /// A file of the overlay.
    Overlay {
        id: InodeId,
        /// Whether a shared mapping may be writable.
        writable: bool,
    },
}

/// Refuses mappings of an overlay file that its descriptor or its seals do not allow.
fn check_overlay(call: &Call<'_, '_>, backing: &Backing, prot: Prot, shared: bool) -> Result<(), Errno> {
    match *backing {
        Backing::Overlay { id, writable: false } if shared && prot.contains(Prot::WRITE) => {
            Err(if call.process.overlay.inodes().is_write_sealed(id) { Errno::EPERM } else { Errno::EACCES })
        }
        _ => Ok(()),
    }
}

/// Refuses shared mappings of files of durable mounts that the descriptor, the file system or the machine does not
/// allow. As on Linux where a file system is mounted `noexec`, they cannot be executed.
fn check_durable(call: &mut Call<'_, '_>, backing: &Backing, prot: Prot, offset: u64) -> Result<(), Errno> {
    let Backing::File { file, writable } = backing else { return Ok(()) };
    if file.file.durable().is_none() {
        return Ok(());
    }
    if prot.contains(Prot::WRITE) && !writable {
        return Err(Errno::EACCES);
    }
    if prot.contains(Prot::EXEC) {
        return Err(Errno::EPERM);
    }
    let size = file.file.attributes(call.context.may_block)?.size;
    let file = durable_fault::shared_file(file);
    call.machine.check_shared_file(&file, offset / PAGE_SIZE, size.div_ceil(PAGE_SIZE)).map_err(|error| match error {
        MemoryError::Host { .. } => Errno::ENODEV,
        _ => Errno::ENOMEM,
    })
}

/// Drops files that were kept only by mappings that have been removed.
fn forget_unmapped_files(call: &mut Call<'_, '_>) -> Result<(), Halt> {
    overlay_mappings::forget_unmapped_files(call);
    if call.process.memory.has_durable_files() {
        let mapped = call.process.memory.durable_files();
        let mapped: Vec<SharedFile> = mapped.into_iter().map(durable_fault::shared_file).collect();
        call.machine.retain_shared_files(|file| mapped.iter().any(|mapped| mapped.is_same(file)))?;
        call.process.memory.edit().forget_files();
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
        Object::Host(file) => {
            let file = MappedFile { file: Arc::clone(file), path: Arc::clone(&open.path) };
            Ok(Backing::File { file, writable: open.is_writable() })
        }
        Object::Memory { id, .. } => {
            let writable = open.is_writable() && !call.process.overlay.inodes().is_write_sealed(*id);
            Ok(Backing::Overlay { id: *id, writable })
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
        hint if flags & MAP_32BIT != 0 => Placement::Low(hint),
        0 => Placement::Anywhere,
        hint => Placement::Hint(hint),
    })
}

/// `munmap(2)`.
pub(crate) fn munmap(call: &mut Call<'_, '_>) -> CallResult {
    let [address, len, ..] = call.args;
    let range = PageRange::at(address, len).filter(|range| !range.is_empty()).ok_or(Errno::EINVAL)?;
    work_limits::check_range(call, range)?;
    overlay_mappings::keep(call, &[range]);
    call.process.memory.edit().unmap(range)?;
    unmap_pages(call, Some(range))?;
    forget_unmapped_files(call)?;
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
    let refuses = |vma: Vma| match vma.kind {
        VmaKind::File { shared: true, .. } | VmaKind::Overlay { writable: false, .. } => prot.contains(Prot::WRITE),
        VmaKind::Durable { writable, .. } => prot.contains(Prot::EXEC) || (prot.contains(Prot::WRITE) && !writable),
        _ => false,
    };
    let is_shared = |vma: &Vma| matches!(vma.kind, VmaKind::Overlay { shared: true, .. });
    if call.process.memory.within(range).any(refuses) {
        return Err(Errno::EACCES.into());
    }
    work_limits::check_range(call, range)?;
    // A page of a shared mapping without access is kept in the overlay.
    let hidden = if prot == Prot::NONE && call.process.memory.has_overlay_mappings() {
        overlay_mappings::keep(call, &[range]);
        call.process.memory.within(range).filter(is_shared).map(|vma| vma.range).collect()
    } else {
        Vec::new()
    };
    let changed = call.process.memory.edit().protect(range, prot)?;
    for part in hidden.into_iter().filter_map(|part: PageRange| part.intersection(changed)) {
        call.machine.unmap(part.start(), part.len())?;
    }
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
    // The end that is cut off, and what is replaced: they may be mappings of the same page.
    let cut = PageRange::at(address, new_len).map(|stays| old.after(stays.end()));
    let replaced = PageRange::at(new_address, new_len).filter(|_| fixed);
    let gone: Vec<PageRange> = [cut, replaced].into_iter().flatten().filter(|range| !range.is_empty()).collect();
    overlay_mappings::keep(call, &gone);
    let done = call.process.memory.edit().remap(old, new_len, may_move, fixed.then_some(new_address))?;
    unmap_pages(call, done.replaced)?;
    unmap_pages(call, done.cut)?;
    if let Some((pages, to)) = done.moved {
        call.machine.move_pages(pages.start(), to, pages.len())?;
    }
    forget_unmapped_files(call)?;
    Ok(done.address)
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
        let own = |kind: &VmaKind| !matches!(kind, VmaKind::Shared | VmaKind::Overlay { shared: true, .. });
        let private = call.process.memory.within(range).filter(|vma| own(&vma.kind));
        let private: Vec<(u64, u64)> = private.map(|vma| (vma.range.start(), vma.range.len())).collect();
        call.machine.discard(&private)?;
    }
    require_mapped(call, range)?;
    Ok(0)
}

/// `msync(2)`: stores what was written to files of durable mounts. Other memory has no file behind it.
pub(crate) fn msync(call: &mut Call<'_, '_>) -> CallResult {
    const ALL: i32 = libc::MS_ASYNC | libc::MS_INVALIDATE | libc::MS_SYNC;
    let [address, len, flags, ..] = call.args;
    let flags = int(flags);
    let is_contrary = flags & libc::MS_ASYNC != 0 && flags & libc::MS_SYNC != 0;
    if flags & !ALL != 0 || is_contrary || !pages::is_aligned(address) {
        return Err(Errno::EINVAL.into());
    }
    let range = PageRange::at(address, len).ok_or(Errno::ENOMEM)?;
    if flags & libc::MS_SYNC != 0 {
        let mut files: Vec<Arc<HostFile>> = Vec::new();
        for vma in call.process.memory.within(range) {
            if let VmaKind::Durable { file, .. } = vma.kind
                && let Some(mapped) = call.process.memory.mapped_file(file)
                && !files.iter().any(|known| known.key() == mapped.file.key())
            {
                files.push(Arc::clone(&mapped.file));
            }
        }
        for file in files {
            durable::change_file(call, &file, |file| file.sync(true))?;
        }
    }
    require_mapped(call, range)?;
    Ok(0)
}

/// `mlock(2)`, `munlock(2)`: memory is never swapped.
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
    let mut left = residency::budget(call);
    let mut bytes = Vec::new();
    let mut at = range.start();
    while at < range.end() {
        let page = PageRange::at(at, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        bytes.push(u8::from(call.residency(page, &mut left)? != Residency::default()));
        at = page.end();
    }
    call.user().write(buffer, &bytes)?;
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
