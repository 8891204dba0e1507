// SPDX-License-Identifier: MIT OR Apache-2.0
//! `inotify(7)`. There are no events but IN_IGNORED: a program sees no changes to the files of mounts.

use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Wait};
use crate::base::ids::PollableId;
use crate::event::calls::notices::write_fitting;
use crate::event::events::{Event, Inotify};
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::kernel::buffers::{self, Buffer};
use crate::kernel::call::Call;
use crate::pollables::table::PollableKind;

/// Size of `struct inotify_event` without a name.
const CHANGE_BYTES: u64 = 16;
const IN_IGNORED: u32 = 0x8000;

/// Events that can be watched: IN_ALL_EVENTS, and those that are always reported.
const IN_EVENTS: u32 = 0xfff | 0x2000 | 0x4000 | IN_IGNORED;

/// Flags of a watch.
const IN_FLAGS: u32 = libc::IN_ONLYDIR
    | libc::IN_DONT_FOLLOW
    | libc::IN_EXCL_UNLINK
    | IN_MASK_CREATE
    | libc::IN_MASK_ADD
    | libc::IN_ISDIR
    | libc::IN_ONESHOT;

const IN_MASK_CREATE: u32 = 0x1000_0000;

/// Most watches of one inotify.
const WATCHES_MAX: usize = 4096;

/// `inotify_init(2)`.
pub(crate) fn inotify_init(call: &mut Call<'_, '_>) -> CallResult {
    make(call, 0)
}

/// `inotify_init1(2)`.
pub(crate) fn inotify_init1(call: &mut Call<'_, '_>) -> CallResult {
    let [flags, ..] = call.args;
    make(call, int(flags))
}

fn make(call: &mut Call<'_, '_>, flags: i32) -> CallResult {
    if flags & !(libc::IN_CLOEXEC | libc::IN_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.check_room()?;
    let id = call.process.pollables.edit().add(PollableKind::Inotify(Box::default()));
    let open = OpenFile::new(Object::Pollable(id), b"", libc::O_RDONLY | flags & libc::IN_NONBLOCK);
    let installed = call.process.files.edit().install(open, flags & libc::IN_CLOEXEC != 0);
    match installed {
        Ok(fd) => Ok(fd.unsigned_abs().into()),
        Err(error) => {
            call.process.pollables.edit().close(id);
            Err(error.into())
        }
    }
}

fn inotify(call: &Call<'_, '_>, fd: u64) -> Result<PollableId, Errno> {
    let Object::Pollable(id) = call.process.files.open_file(int(fd))?.object else { return Err(Errno::EINVAL) };
    if matches!(call.process.pollables.kind(id), Some(PollableKind::Inotify(_))) { Ok(id) } else { Err(Errno::EINVAL) }
}

fn inotify_mut<'c>(call: &'c mut Call<'_, '_>, id: PollableId) -> Result<&'c mut Inotify, Errno> {
    match call.process.pollables.edit().get_mut(id).map(|pollable| &mut pollable.kind) {
        Some(PollableKind::Inotify(inotify)) => Ok(inotify),
        _ => Err(Errno::EINVAL),
    }
}

/// `inotify_add_watch(2)`.
pub(crate) fn inotify_add_watch(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, path, mask, ..] = call.args;
    let mask = int(mask).cast_unsigned();
    if mask & (IN_EVENTS | IN_FLAGS) == 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process.files.get(int(fd))?;
    if mask & libc::IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let id = inotify(call, fd)?;
    let path = call.user().read_path(path)?;
    let follow = mask & libc::IN_DONT_FOLLOW == 0;
    let (path, node) = crate::fs::view::find::find(call, libc::AT_FDCWD, &path, follow)?.existing()?;
    if mask & libc::IN_ONLYDIR != 0 && !node.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    let inotify = inotify_mut(call, id)?;
    if let Some((watch, _)) = inotify.watches.iter().find(|(_, known)| *known == path) {
        return if mask & IN_MASK_CREATE != 0 { Err(Errno::EEXIST.into()) } else { Ok(watch.unsigned_abs().into()) };
    }
    if inotify.watches.len() >= WATCHES_MAX {
        return Err(Errno::ENOSPC.into());
    }
    inotify.last = inotify.last.checked_add(1).ok_or(Errno::ENOSPC)?;
    inotify.watches.push((inotify.last, path));
    Ok(inotify.last.unsigned_abs().into())
}

/// `inotify_rm_watch(2)`.
pub(crate) fn inotify_rm_watch(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, watch, ..] = call.args;
    let id = inotify(call, fd)?;
    let inotify = inotify_mut(call, id)?;
    let position = inotify.watches.iter().position(|(known, _)| *known == int(watch)).ok_or(Errno::EINVAL)?;
    inotify.watches.remove(position);
    // Linux has such a bound too; events beyond it are lost.
    if inotify.ignored.len() < WATCHES_MAX {
        inotify.ignored.push(int(watch));
    }
    call.process.pollables.edit().record_event(id, Event::Input);
    call.note_change();
    Ok(0)
}

/// Reports the watches that have been removed.
pub(crate) fn read_changes(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let Some(PollableKind::Inotify(inotify)) = call.process.pollables.kind(id) else { return Err(Errno::EBADF.into()) };
    if inotify.ignored.is_empty() {
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "read", until_ns: None, look_ns: None }.into());
    }
    let room = usize::try_from(buffers::total(buffers) / CHANGE_BYTES).unwrap_or(usize::MAX);
    if room == 0 {
        return Err(Errno::EINVAL.into());
    }
    let inotify = inotify_mut(call, id)?;
    let reported = room.min(inotify.ignored.len());
    let mut bytes = Vec::new();
    for watch in inotify.ignored.drain(..reported) {
        // wd, mask, cookie, len.
        bytes.extend([watch.cast_unsigned(), IN_IGNORED, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    }
    write_fitting(call, buffers, &bytes)
}

/// Bytes that a read would return: FIONREAD.
pub(crate) fn readable_bytes(inotify: &Inotify) -> u64 {
    count(inotify.ignored.len()).saturating_mul(CHANGE_BYTES)
}
