// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens FIFOs: fifo(7), and see `pollables/fifos.rs`.

use crate::base::errno::Errno;
use crate::base::halt::{Halt, Wait};
use crate::base::ids::PollableId;
use crate::event::fifo::{Access, Opener};
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::host::attributes::Attributes;
use crate::kernel::call::Call;
use crate::kernel::process::Process;
use crate::pollables::queues::Side;
use crate::sched::threads::{ThreadState, Waiting};

/// Opens the FIFO whose file has this number. Without O_NONBLOCK, an end waits for the other.
pub(crate) fn open(call: &mut Call<'_, '_>, path: &[u8], number: u64, flags: i32) -> Result<OpenFile, Halt> {
    let tid = call.process.threads.current().tid;
    let nonblocking = flags & libc::O_NONBLOCK != 0;
    let access = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => Access { reads: true, writes: false },
        libc::O_WRONLY => Access { reads: false, writes: true },
        libc::O_RDWR => Access { reads: true, writes: true },
        _ => return Err(Errno::EINVAL.into()),
    };
    let other = if access.reads { Side::Writer } else { Side::Reader };
    let pollables = &call.process.pollables;
    // The call is repeated. A signal handler that opens a FIFO in the meantime is another call.
    // So is one whose flags the program has changed meanwhile: openat2(2) has them in its memory.
    let joined = pollables.opener(tid).filter(|opener| call.waited.is_some() && opener.is_for(access));
    if let Some(Opener { queue, met, .. }) = joined {
        if !met && !pollables.has_fifo_end(queue, other) {
            return Err(wait());
        }
        let pollables = call.process.pollables.edit();
        pollables.take_opener(tid);
        let id = pollables.open_fifo(queue, access);
        return Ok(OpenFile::new(Object::Pollable(id), path, flags));
    }
    // What this thread has begun to open and waits for no longer is no other end.
    if pollables.opener(tid).is_some() {
        call.process.pollables.edit().drop_openers(|waiting| waiting != tid);
        call.note_change();
    }
    let pollables = &call.process.pollables;
    let has_other = pollables.fifo(number).is_some_and(|queue| pollables.has_fifo_end(queue, other));
    if nonblocking && !access.reads && !has_other {
        return Err(Errno::ENXIO.into());
    }
    let pollables = call.process.pollables.edit();
    let queue = pollables.join_fifo(number, access);
    let goes_on = nonblocking || has_other || (access.reads && access.writes);
    let opened = if goes_on {
        Ok(pollables.open_fifo(queue, access))
    } else {
        pollables.add_opener(tid, queue, access.reads);
        Err(wait())
    };
    call.note_change();
    Ok(OpenFile::new(Object::Pollable(opened?), path, flags))
}

fn wait() -> Halt {
    Wait { call: "open", until_ns: None, look_ns: None }.into()
}

/// Drops what threads have begun to open, and wait for no longer. Thread `caller` has just made call `number`, and
/// `waits` in it.
pub(crate) fn drop_openers(call: &mut Call<'_, '_>, caller: u32, number: u64, waits: bool) {
    let Process { threads, pollables, .. } = &mut *call.process;
    let is_open = |number: u64| {
        [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_creat].contains(&number.cast_signed())
    };
    if pollables.openers.is_empty() {
        return;
    }
    let waiting: Vec<u32> = threads
        .iter()
        .filter(|thread| matches!(thread.state, ThreadState::Waiting(Waiting::Call { number, .. }) if is_open(number)))
        .map(|thread| thread.tid)
        .collect();
    let still_waits = |tid: u32| if tid == caller { waits && is_open(number) } else { waiting.contains(&tid) };
    let is_over = pollables.openers.iter().any(|opener| !still_waits(opener.tid));
    if is_over && pollables.edit().drop_openers(still_waits) {
        call.note_change();
    }
}

/// Attributes of an open file of a FIFO, for `fstat`; `None`: it is not one.
pub(crate) fn attributes(process: &Process, id: PollableId) -> Option<Attributes> {
    let number = process.pollables.fifo_number(id)?;
    let named = process.overlay.special(number).map(|(path, entry)| {
        let device = process.shared.mounts.find(path).map_or(0, |(mount, _)| mount.device);
        process.overlay.attributes(entry, device)
    });
    // It has no name any more.
    let nameless = || Attributes { links: 0, ..Attributes::synthetic(number, libc::S_IFIFO | 0o600) };
    Some(named.unwrap_or_else(nameless))
}
