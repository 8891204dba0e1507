// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks on files of durable mounts: they exclude other workers, and other processes of the host.
//!
//! | the program's lock | the host's |
//! |---|---|
//! | `flock`, `F_OFD_SETLK` | the same, of the host's open file that belongs to the program's |
//! | `F_SETLK`: the process's | `F_OFD_SETLK` of one more open file, which the process has for the file: its owner |
//!
//! Shared record locks that a program has when it is frozen stay: the snapshot holds them, and every worker has them. A
//! worker that gives one up, or wants it exclusively, finds that the snapshot has it still.
//!
//! A call that waits for a lock tries again and again, at longer and longer intervals, as long as the request may run:
//! no thread of the host waits. There is no EDEADLK.

use std::sync::Arc;

use mayfly_files::{FileLock, LockRange};

use super::durable;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::fs::locks::{LockKind, LockedRange, Locks};
use crate::fs::open_files::RecordLocks;
use crate::host::files::HostFile;
use crate::kernel::call::Call;

/// The first interval, and how often it doubles.
const FIRST_NS: u64 = 250_000;
const DOUBLINGS: usize = 7;
/// Most files on which a process may have record locks, each of which is an open file of the host's.
const OWNERS_MAX: usize = 64;

fn of_host(kind: LockKind) -> FileLock {
    match kind {
        LockKind::Shared => FileLock::Shared,
        LockKind::Exclusive => FileLock::Exclusive,
    }
}

/// The result of a call whose lock conflicts.
fn blocked(call: &mut Call<'_, '_>, name: &'static str, waits: bool) -> Halt {
    if !waits {
        return Errno::EAGAIN.into();
    }
    let attempts = call.progress();
    let pause = FIRST_NS << attempts.min(DOUBLINGS);
    let wait = Wait { call: name, until_ns: None, look_ns: Some(clock::now_ns().saturating_add(pause)) };
    call.wait_with_progress(wait, attempts.saturating_add(1))
}

/// `flock(2)`.
pub(crate) fn flock(call: &mut Call<'_, '_>, fd: i32, kind: Option<LockKind>, waits: bool) -> CallResult {
    let held = call.process.files.open_file(fd)?.locks.as_ref().and_then(|locks| locks.whole());
    if held == kind {
        return Ok(0);
    }
    let file = durable::own_file(call, fd)?;
    let result = file.lock_whole(kind.map(of_host));
    // A conversion that fails has lost the lock that there was.
    note(call, fd, &file, |locks| {
        locks.set_whole(kind.filter(|_| result.is_ok()));
        Ok(())
    })?;
    if held.is_some() {
        call.note_change();
    }
    match result {
        Ok(()) => Ok(0),
        Err(Errno::EAGAIN) => Err(blocked(call, "flock", waits)),
        Err(error) => Err(error.into()),
    }
}

/// Notes the locks that an open file has now.
fn note(
    call: &mut Call<'_, '_>,
    fd: i32,
    file: &HostFile,
    change: impl FnOnce(&mut Locks) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let locks = &mut call.process.files.edit().open_file_mut(fd)?.locks;
    change(locks.get_or_insert_with(|| Box::new(Locks::new(file.identity()))))
}

/// What `fcntl(2)` is asked for.
#[derive(Clone, Copy)]
pub(crate) struct RangeRequest {
    pub(crate) kind: Option<LockKind>,
    pub(crate) start: u64,
    pub(crate) last: u64,
    /// F_OFD_SETLK and the like.
    pub(crate) of_open_file: bool,
}

impl RangeRequest {
    fn range(&self) -> LockRange {
        LockRange { start: self.start, last: self.last }
    }
}

/// The first lock that conflicts: F_GETLK, F_OFD_GETLK.
pub(crate) fn conflict(
    call: &mut Call<'_, '_>,
    fd: i32,
    request: RangeRequest,
    kind: LockKind,
) -> Result<Option<LockedRange>, Errno> {
    let file = if request.of_open_file { durable::own_file(call, fd)? } else { owner(call, fd)? };
    Ok(file.conflict(request.range(), of_host(kind))?.map(|(range, kind)| LockedRange {
        start: range.start,
        last: range.last,
        kind: if kind == FileLock::Shared { LockKind::Shared } else { LockKind::Exclusive },
    }))
}

/// Locks or unlocks a part: F_SETLK, F_OFD_SETLK and those that wait. `held`: the ranges that all open files have.
pub(crate) fn set(call: &mut Call<'_, '_>, fd: i32, request: RangeRequest, waits: bool) -> CallResult {
    let RangeRequest { kind, start, last, of_open_file } = request;
    let file = if of_open_file { durable::own_file(call, fd)? } else { owner(call, fd)? };
    let key = file.key();
    // The host's memory for locks is bounded by what is noted of them.
    let noted = if of_open_file {
        call.process.files.open_file(fd)?.locks.as_deref().cloned()
    } else {
        let owners = call.process.files.records();
        owners.iter().find(|owner| owner.file.key() == key).map(|owner| owner.locks.clone())
    };
    let mut noted = noted.unwrap_or_else(|| Locks::new(file.identity()));
    let files = &call.process.files;
    let all = files.locks().map(|(_, locks)| locks).chain(files.records().iter().map(|owner| &owner.locks));
    let held = all.fold(0_usize, |sum, locks| sum.saturating_add(locks.ranges()));
    let others = held.saturating_sub(noted.ranges());
    noted.set_range(start, last, kind, others)?;
    match file.lock_range(request.range(), kind.map(of_host)) {
        Ok(()) => {}
        Err(Errno::EAGAIN) => return Err(blocked(call, "fcntl", waits)),
        Err(error) => return Err(error.into()),
    }
    let files = call.process.files.edit();
    if of_open_file {
        files.open_file_mut(fd)?.locks = Some(Box::new(noted));
    } else if let Some(owner) = files.records_mut().iter_mut().find(|owner| owner.file.key() == key) {
        owner.locks = noted;
    }
    // Less may be locked than before.
    call.note_change();
    Ok(0)
}

/// The open file of the host's that owns the process's record locks on the file that `fd` refers to.
fn owner(call: &mut Call<'_, '_>, fd: i32) -> Result<Arc<HostFile>, Errno> {
    let file = durable::file(call, fd)?.ok_or(Errno::EBADF)?;
    let found = call.process.files.records().iter().find(|owner| owner.file.key() == file.key());
    let has_kept = match found {
        Some(owner) if !owner.file.is_shared() => return Ok(Arc::clone(&owner.file)),
        // It holds the snapshot's locks, for all workers.
        Some(_) => true,
        None if call.process.files.records().len() >= OWNERS_MAX => return Err(Errno::ENOLCK),
        None => false,
    };
    // For writing even where `fd` is not: another descriptor may ask for an exclusive lock later.
    let new = match durable::open_again(call, &file, true) {
        Err(Errno::EACCES | Errno::EROFS) => durable::open_again(call, &file, false)?,
        new => new?,
    };
    let owners = call.process.files.edit().records_mut();
    match owners.iter_mut().find(|owner| has_kept && owner.file.key() == file.key()) {
        Some(owner) => owner.file = Arc::clone(&new),
        None => owners.push(RecordLocks { file: Arc::clone(&new), locks: Locks::new(file.identity()) }),
    }
    Ok(new)
}
