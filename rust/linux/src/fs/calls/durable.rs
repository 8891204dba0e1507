// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls on files and names in durable mounts: they change the host's files, for good. See `crate::host::durable`.
//!
//! Each is made where it may wait for a disk. After a change a call is committed: it cannot be repeated elsewhere.

use std::sync::Arc;

use rustix::io::ReadWriteFlags;

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::fs::mounts::is_at_or_below;
use crate::fs::object::Object;
use crate::fs::view::find::plain;
pub(crate) use crate::fs::view::permissions::place;
use crate::host::durable::Place;
use crate::host::files::HostFile;
use crate::kernel::buffers::{Buffer, TRANSFER_MAX};
use crate::kernel::call::Call;
use crate::kernel::process::Process;

/// Refuses calls that may wait, where none may.
fn check_may_wait(call: &Call<'_, '_>) -> Result<(), Errno> {
    if call.context.may_block { Ok(()) } else { Err(Errno::NOT_HERE) }
}

/// Changes the names in a durable mount.
pub(crate) fn change<T>(
    call: &mut Call<'_, '_>,
    path: &[u8],
    change: impl FnOnce(&Call<'_, '_>, Place<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    check_may_wait(call)?;
    let place = place(call.process, path).ok_or(Errno::EROFS)?;
    let result = change(call, place);
    call.commit();
    result
}

/// Refuses to remove or rename what a mount lies at or below.
pub(crate) fn check_no_mount(process: &Process, path: &[u8]) -> Result<(), Errno> {
    let is_busy = process.shared.mounts.iter().any(|mount| is_at_or_below(&mount.guest, path));
    if is_busy { Err(Errno::EBUSY) } else { Ok(()) }
}

/// Opens the regular file at a plain path with the `flags` of `open`, or makes it with the mode `create`.
pub(crate) fn open(call: &mut Call<'_, '_>, path: &[u8], flags: i32, create: Option<u32>) -> Result<Object, Halt> {
    let truncates = flags & (libc::O_TRUNC | libc::O_PATH) == libc::O_TRUNC;
    let writes = flags & libc::O_PATH == 0 && (flags & libc::O_ACCMODE != libc::O_RDONLY || truncates);
    let exclusive = flags & libc::O_EXCL != 0;
    let file = change(call, path, |call, place| {
        let file = place.open(writes, create, exclusive, call.process.shared.mounts.permit()?)?;
        if truncates {
            file.resize(0)?;
        }
        Ok(file)
    })?;
    Ok(Object::Host(Arc::new(file)))
}

/// The file of a durable mount that `fd` refers to, if it does to one.
pub(crate) fn file(call: &Call<'_, '_>, fd: i32) -> Result<Option<Arc<HostFile>>, Errno> {
    Ok(match &call.process.files.open_file(fd)?.object {
        Object::Host(file) if file.durable().is_some() => Some(Arc::clone(file)),
        _ => None,
    })
}

/// As [`file()`], with a descriptor of the host's that no other worker shares: the snapshot's is opened again.
pub(crate) fn own_file(call: &mut Call<'_, '_>, fd: i32) -> Result<Arc<HostFile>, Errno> {
    let shared = file(call, fd)?.ok_or(Errno::EBADF)?;
    if !shared.is_shared() {
        return Ok(shared);
    }
    let writable = shared.durable().is_some_and(|durable| durable.writable);
    let own = open_again(call, &shared, writable)?;
    call.process.files.edit().open_file_mut(fd)?.object = Object::Host(Arc::clone(&own));
    Ok(own)
}

/// Opens a file again: a new open file of the host's.
pub(crate) fn open_again(call: &Call<'_, '_>, file: &HostFile, writable: bool) -> Result<Arc<HostFile>, Errno> {
    check_may_wait(call)?;
    Ok(Arc::new(file.open_again(writable, call.process.shared.mounts.permit()?)?))
}

/// Flags of one write.
#[derive(Clone, Copy, Default)]
pub(crate) struct WriteFlags {
    pub(crate) append: bool,
    pub(crate) sync_data: bool,
    pub(crate) sync: bool,
}

/// Writes `buffers` at an offset, or at the open file's (`None`), in one piece of at most [`TRANSFER_MAX`] bytes.
pub(crate) fn write(
    call: &mut Call<'_, '_>,
    fd: i32,
    at: Option<u64>,
    buffers: &[Buffer],
    flags: WriteFlags,
) -> CallResult {
    check_may_wait(call)?;
    let bytes = gather(call, buffers)?;
    let open = call.process.files.open_file(fd)?;
    let start = at.unwrap_or(open.offset);
    let status = open.flags;
    let has = |flag: i32| status & flag == flag;
    let sync = if flags.sync || has(libc::O_SYNC) {
        ReadWriteFlags::SYNC
    } else if flags.sync_data || has(libc::O_DSYNC) {
        ReadWriteFlags::DSYNC
    } else {
        ReadWriteFlags::empty()
    };
    let appends = flags.append || has(libc::O_APPEND);
    let file = if appends { own_file(call, fd)? } else { file(call, fd)?.ok_or(Errno::EBADF)? };
    let result = file.write_at((!appends).then_some(start), &bytes, sync);
    call.commit();
    let (done, end) = result?;
    if at.is_none() && done > 0 {
        call.process.files.edit().open_file_mut(fd)?.offset = end;
    }
    Ok(count(done))
}

/// The bytes that buffers hold, up to the first that cannot be read.
fn gather(call: &mut Call<'_, '_>, buffers: &[Buffer]) -> Result<Vec<u8>, Halt> {
    let mut bytes = Vec::new();
    for buffer in buffers {
        let have = bytes.len();
        let room = TRANSFER_MAX.saturating_sub(count(have));
        let part = usize::try_from(buffer.len.min(room)).unwrap_or(0);
        if part == 0 {
            continue;
        }
        bytes.resize(have.saturating_add(part), 0);
        let read = call.user().read(buffer.address, bytes.get_mut(have..).unwrap_or_default());
        match read {
            Ok(()) => {}
            Err(Halt::Errno(errno)) if have > 0 && errno != Errno::NOT_HERE => {
                bytes.truncate(have);
                break;
            }
            Err(halt) => return Err(halt),
        }
    }
    Ok(bytes)
}

/// Writes bytes that the host has at an offset; returns how many.
pub(crate) fn write_bytes(call: &mut Call<'_, '_>, file: &HostFile, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
    change_file(call, file, |file| Ok(file.write_at(Some(at), bytes, ReadWriteFlags::empty())?.0))
}

/// Changes an open file of a durable mount, or has it stored.
pub(crate) fn change_file<T>(
    call: &mut Call<'_, '_>,
    file: &HostFile,
    change: impl FnOnce(&HostFile) -> Result<T, Errno>,
) -> Result<T, Errno> {
    check_may_wait(call)?;
    let result = change(file);
    call.commit();
    result
}

/// Stores what `fd` refers to, if it lies in a durable mount.
pub(crate) fn sync(call: &mut Call<'_, '_>, fd: i32, only_data: bool) -> Result<(), Errno> {
    if let Some(file) = file(call, fd)? {
        return change_file(call, &file, |file| file.sync(only_data));
    }
    let open = call.process.files.open_file(fd)?;
    let path = Arc::clone(&open.path);
    if matches!(open.object, Object::Directory { .. }) && place(call.process, plain(&path)).is_some() {
        return change(call, plain(&path), |_, place| place.sync()).map_err(|error| match error {
            // It was renamed or removed since it was opened: it cannot be said that its names are stored.
            Errno::ENOENT | Errno::ENOTDIR => Errno::EIO,
            other => other,
        });
    }
    Ok(())
}

/// Stores all files of durable mounts that the program has open; the other files of their file systems are others'.
pub(crate) fn sync_all(call: &mut Call<'_, '_>) -> Result<(), Errno> {
    let objects = call.process.files.objects().filter_map(|object| match object {
        Object::Host(file) if file.durable().is_some() => Some(Arc::clone(file)),
        _ => None,
    });
    let all: Vec<_> = objects.collect();
    all.iter().try_for_each(|file| change_file(call, file, |file| file.sync(false)))
}
