// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals and changes of files as descriptors: `signalfd(2)` and `inotify(7)`.
//!
//! Nobody but the program changes files while it serves a request, and its own changes are not told: an inotify is never ready, but for the
//! watches that are taken away from it. See decision 0183.

use super::files::Buffer;
use super::{count, int, pipes, transfer};
use crate::errno::{CallResult, Errno};
use crate::files::{Object, Open};
use crate::pollables::{Event, Inotify, Kind, PollableId};
use crate::signals::{Info, SI_TIMER, SignalSet};
use crate::table::Call;
use crate::threads::Wait;

/// Size of `struct signalfd_siginfo`.
const SIGNAL_BYTES: u64 = 128;
/// Most signals of one read.
const SIGNALS_MAX: u64 = 64;
/// Size of `struct inotify_event` without a name.
const CHANGE_BYTES: u64 = 16;
const IN_IGNORED: u32 = 0x8000;
/// What can be waited for: IN_ALL_EVENTS and those that come unasked.
const IN_EVENTS: u32 = 0xfff | 0x2000 | 0x4000 | IN_IGNORED;
/// Flags besides.
const IN_FLAGS: u32 = libc::IN_ONLYDIR
    | libc::IN_DONT_FOLLOW
    | libc::IN_EXCL_UNLINK
    | IN_MASK_CREATE
    | libc::IN_MASK_ADD
    | libc::IN_ISDIR
    | libc::IN_ONESHOT;
const IN_MASK_CREATE: u32 = 0x1000_0000;
/// Most watches of an inotify.
const WATCHES_MAX: usize = 4096;

/// `signalfd4(2)`.
pub(crate) fn signalfd4(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, mask, size, flags, ..] = call.args;
    let flags = int(flags);
    if flags & !(libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) != 0 || size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let [mask] = call.user().read_words(mask)?;
    let mask = SignalSet::mask(mask);
    if int(fd) == -1 {
        call.process.files.check_room()?;
        return pipes::make(call, Kind::Signals(mask), flags & libc::SFD_NONBLOCK, flags & libc::SFD_CLOEXEC != 0);
    }
    let Object::Pollable(id) = call.process.files.open_file(int(fd))?.object else { return Err(Errno::EINVAL.into()) };
    let pollables = &mut call.process.pollables;
    if !matches!(pollables.kind(id), Some(Kind::Signals(_))) {
        return Err(Errno::EINVAL.into());
    }
    let pollables = pollables.edit();
    if let Some(Kind::Signals(old)) = pollables.get_mut(id).map(|node| &mut node.kind) {
        *old = mask;
    }
    pollables.happen(id, Event::Input);
    call.note_change();
    Ok(int(fd).unsigned_abs().into())
}

/// Takes the signals that wait for the thread, or for the process.
pub(super) fn read_signals(
    call: &mut Call<'_, '_>,
    mask: SignalSet,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let room = (transfer::total(buffers) / SIGNAL_BYTES).min(SIGNALS_MAX);
    if room == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = Vec::new();
    for _ in 0..room {
        let own = call.process.threads.current().signals.pending.set();
        if own.or(call.process.signals.pending.set()).and(mask).is_empty() {
            break;
        }
        let taken = call.process.threads.edit().current_mut().signals.pending.take(mask);
        let Some(info) = taken.or_else(|| call.process.signals.edit().pending.take(mask)) else { break };
        bytes.extend(describe(&call.process.note_taken(info)));
    }
    if bytes.is_empty() {
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "read", until_ns: None, look_ns: None }.into());
    }
    tell(call, buffers, &bytes)
}

/// `struct signalfd_siginfo`.
fn describe(info: &Info) -> [u8; 128] {
    let [first, second, ..] = info.fields;
    let (low, high, value) = (int(first), int(first >> 32), int(second));
    // signo, errno, code, pid, uid, fd, tid, band, overrun, trapno, status, int; ptr.
    let (pid, uid, timer, overrun) = if info.code == SI_TIMER { (0, 0, low, high) } else { (low, high, 0, 0) };
    let words = [info.signal.number(), 0, info.code, pid, uid, 0, timer, 0, overrun, 0, 0, value];
    let mut bytes = [0; 128];
    let all = words.iter().flat_map(|word| word.to_le_bytes()).chain(second.to_le_bytes());
    for (slot, byte) in bytes.iter_mut().zip(all) {
        *slot = byte;
    }
    bytes
}

/// Writes to a read's buffers what fits.
fn tell(call: &mut Call<'_, '_>, buffers: &[Buffer], bytes: &[u8]) -> CallResult {
    let mut rest = bytes;
    for (address, len) in transfer::behind(buffers, 0) {
        let (part, more) = rest.split_at(len.min(rest.len()));
        call.user().write(address, part)?;
        rest = more;
    }
    Ok(count(bytes.len().saturating_sub(rest.len())))
}

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
    let id = call.process.pollables.edit().add(Kind::Inotify(Box::default()));
    let open = Open::new(Object::Pollable(id), b"", libc::O_RDONLY | flags & libc::IN_NONBLOCK);
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
    if matches!(call.process.pollables.kind(id), Some(Kind::Inotify(_))) { Ok(id) } else { Err(Errno::EINVAL) }
}

fn inotify_mut<'c>(call: &'c mut Call<'_, '_>, id: PollableId) -> Result<&'c mut Inotify, Errno> {
    match call.process.pollables.edit().get_mut(id).map(|node| &mut node.kind) {
        Some(Kind::Inotify(inotify)) => Ok(inotify),
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
    let (path, node) = super::paths::find(call, libc::AT_FDCWD, &path, follow)?.existing()?;
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
    // Linux has such a bound, too: behind it events are lost.
    if inotify.ignored.len() < WATCHES_MAX {
        inotify.ignored.push(int(watch));
    }
    call.process.pollables.edit().happen(id, Event::Input);
    call.note_change();
    Ok(0)
}

/// Tells of the watches that have been taken away.
pub(super) fn read_changes(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let Some(Kind::Inotify(inotify)) = call.process.pollables.kind(id) else { return Err(Errno::EBADF.into()) };
    if inotify.ignored.is_empty() {
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "read", until_ns: None, look_ns: None }.into());
    }
    let room = usize::try_from(transfer::total(buffers) / CHANGE_BYTES).unwrap_or(usize::MAX);
    if room == 0 {
        return Err(Errno::EINVAL.into());
    }
    let inotify = inotify_mut(call, id)?;
    let told = room.min(inotify.ignored.len());
    let mut bytes = Vec::new();
    for watch in inotify.ignored.drain(..told) {
        // wd, mask, cookie, len.
        bytes.extend([watch.cast_unsigned(), IN_IGNORED, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    }
    tell(call, buffers, &bytes)
}

/// Bytes that a read would give: FIONREAD.
pub(super) fn readable_bytes(inotify: &Inotify) -> u64 {
    count(inotify.ignored.len()).saturating_mul(CHANGE_BYTES)
}
