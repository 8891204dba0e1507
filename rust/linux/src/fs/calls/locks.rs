// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks on files: `flock(2)`, and those of `fcntl(2)`.

use super::durable_locks;
use crate::base::arguments::int;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::OpenId;
use crate::fs::locks::{FileIdentity, LockKind, LockedRange, Locks};
use crate::fs::object::Object;
use crate::kernel::call::Call;

/// F_RDLCK, F_WRLCK, F_UNLCK, as `struct flock` has them.
const READ_LOCK: i16 = 0;
const WRITE_LOCK: i16 = 1;
const UNLOCKED: i16 = 2;

/// The file that a descriptor refers to.
fn identity(call: &Call<'_, '_>, fd: i32) -> Result<FileIdentity, Errno> {
    let object = &call.process.files.open_file(fd)?.object;
    if let Object::Host(file) = object {
        return Ok(file.identity());
    }
    let attributes = object.attributes(call.view())?;
    Ok((attributes.device, attributes.inode))
}

/// `flock(2)`.
pub(crate) fn flock(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, operation, ..] = call.args;
    let (fd, operation) = (int(fd), int(operation));
    let kind = match operation & !libc::LOCK_NB {
        libc::LOCK_SH => Some(LockKind::Shared),
        libc::LOCK_EX => Some(LockKind::Exclusive),
        libc::LOCK_UN => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let open = call.process.files.get(fd)?.open;
    if call.process.files.open_file(fd)?.flags & libc::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    if super::durable::file(call, fd)?.is_some() {
        return durable_locks::flock(call, fd, kind, operation & libc::LOCK_NB == 0);
    }
    let file = identity(call, fd)?;
    let held = call.process.files.open_file(fd)?.locks.as_ref().and_then(|locks| locks.whole());
    if held == kind {
        return Ok(0);
    }
    // A conversion first removes the lock that there is, even if it then fails.
    if held.is_some() {
        set(call, open, file, |locks| {
            locks.set_whole(None);
            Ok(())
        })?;
        call.note_change();
    }
    let Some(kind) = kind else { return Ok(0) };
    if others(call, open, file).any(|locks| locks.excludes_whole(kind)) {
        return blocked("flock", operation & libc::LOCK_NB == 0);
    }
    set(call, open, file, |locks| {
        locks.set_whole(Some(kind));
        Ok(())
    })?;
    Ok(0)
}

/// The locks of other open files on a file.
fn others<'a>(call: &'a Call<'_, '_>, open: OpenId, file: FileIdentity) -> impl Iterator<Item = &'a Locks> {
    call.process.files.locks().filter(move |(id, locks)| *id != open && locks.is_of(file)).map(|(_, locks)| locks)
}

/// Changes the locks of an open file.
fn set(
    call: &mut Call<'_, '_>,
    open: OpenId,
    file: FileIdentity,
    change: impl FnOnce(&mut Locks) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let locks = call.process.files.edit().locks_mut(open).ok_or(Errno::EBADF)?;
    change(locks.get_or_insert_with(|| Box::new(Locks::new(file))))
}

/// The result of a call whose lock conflicts: it waits until a lock is released.
fn blocked(call: &'static str, waits: bool) -> CallResult {
    Err(if waits { Wait { call, until_ns: None, look_ns: None }.into() } else { Errno::EAGAIN.into() })
}

/// A `struct flock` of the program.
struct Request {
    kind: i16,
    start: u64,
    last: u64,
    pid: i32,
}

/// The commands of `fcntl(2)` for locks.
pub(crate) fn fcntl(call: &mut Call<'_, '_>, fd: i32, command: i32, address: u64) -> CallResult {
    let request = read(call, fd, address)?;
    let of_open_file = matches!(command, libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW);
    if of_open_file && request.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let kind = match request.kind {
        READ_LOCK => Some(LockKind::Shared),
        WRITE_LOCK => Some(LockKind::Exclusive),
        _ => None,
    };
    let open = call.process.files.get(fd)?.open;
    let file = identity(call, fd)?;
    let Request { start, last, .. } = request;
    let wanted = durable_locks::RangeRequest { kind, start, last, of_open_file };
    let is_durable = super::durable::file(call, fd)?.is_some();
    if is_durable
        && matches!(command, libc::F_GETLK | libc::F_OFD_GETLK)
        && let Some(kind) = kind
    {
        let conflict = durable_locks::conflict(call, fd, wanted, kind)?;
        write(call, address, conflict)?;
        return Ok(0);
    }
    let conflict = kind.and_then(|kind| {
        let wanted = LockedRange { start, last, kind };
        let mut others = others(call, open, file);
        if of_open_file { others.find_map(|locks| locks.conflict(&wanted)) } else { None }
    });
    if matches!(command, libc::F_GETLK | libc::F_OFD_GETLK) {
        if kind.is_none() {
            return Err(Errno::EINVAL.into());
        }
        write(call, address, conflict)?;
        return Ok(0);
    }
    let opened = call.process.files.open_file(fd)?;
    let is_allowed = match kind {
        Some(LockKind::Shared) => opened.is_readable(),
        Some(LockKind::Exclusive) => opened.is_writable(),
        None => true,
    };
    if !is_allowed {
        return Err(Errno::EBADF.into());
    }
    if is_durable {
        return durable_locks::set(call, fd, wanted, matches!(command, libc::F_SETLKW | libc::F_OFD_SETLKW));
    }
    // The process's own record locks never conflict: there is no other process.
    if !of_open_file {
        return Ok(0);
    }
    if conflict.is_some() {
        return blocked("fcntl", command == libc::F_OFD_SETLKW);
    }
    let others = call.process.files.locks().filter(|(id, _)| *id != open);
    let held = others.fold(0_usize, |sum, (_, locks)| sum.saturating_add(locks.ranges()));
    set(call, open, file, |locks| locks.set_range(start, last, kind, held))?;
    // Less may be locked than before.
    call.note_change();
    Ok(0)
}

/// Reads a `struct flock`.
fn read(call: &mut Call<'_, '_>, fd: i32, address: u64) -> Result<Request, Halt> {
    let [first, start, len, pid] = call.user().read_words(address)?;
    let [a, b, c, d, ..] = first.to_le_bytes();
    let (kind, whence) = (i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d]));
    if !(READ_LOCK..=UNLOCKED).contains(&kind) {
        return Err(Errno::EINVAL.into());
    }
    let open = call.process.files.open_file(fd)?;
    let base = match i32::from(whence) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => open.offset,
        libc::SEEK_END => match open.object {
            Object::Memory { id, .. } => call.process.overlay.inodes().size(id),
            _ => open.object.attributes(call.view())?.size,
        },
        _ => return Err(Errno::EINVAL.into()),
    };
    let start =
        i64::try_from(base).ok().and_then(|base| base.checked_add(start.cast_signed())).ok_or(Errno::EOVERFLOW)?;
    let len = len.cast_signed();
    // A length of 0 reaches to the largest offset; a negative one to before the start.
    let (start, last) = match len {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(len.saturating_sub(1)).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, start.saturating_sub(1)),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let last = u64::try_from(last).map_err(|_| Errno::EINVAL)?;
    Ok(Request { kind, start, last, pid: int(pid) })
}

/// Writes the lock that conflicts to a `struct flock`, or that none does.
fn write(call: &mut Call<'_, '_>, address: u64, conflict: Option<LockedRange>) -> Result<(), Halt> {
    let Some(LockedRange { start, last, kind }) = conflict else {
        return call.user().write(address, &UNLOCKED.to_le_bytes());
    };
    let kind = if kind == LockKind::Shared { READ_LOCK } else { WRITE_LOCK };
    let len = if last == i64::MAX.cast_unsigned() { 0 } else { last.saturating_sub(start).saturating_add(1) };
    // An open file has no process.
    call.user().write_words(address, &[u64::from(kind.cast_unsigned()), start, len, u64::from(u32::MAX)])
}
