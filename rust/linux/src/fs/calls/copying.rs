// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies between descriptors: `copy_file_range(2)`, `splice(2)`, `tee(2)`, `vmsplice(2)`.
//!
//! A call copies at most 1 MiB. `splice` fails with `EINVAL` for datagram sockets and for sockets connected with a host
//! outside; programs then fall back to reading and writing.

use super::durable;
use super::files::write_chunk;
use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::QueueId;
use crate::fs::calls::pollables;
use crate::fs::object::Object;
use crate::fs::open_files::OpenFile;
use crate::kernel::buffers::{self, TRANSFER_MAX, read_vectors};
use crate::kernel::call::Call;
use crate::net::calls::transfer;
use crate::pollables::table::PollableKind;

/// Most bytes copied at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// `SPLICE_F_*` of `fcntl.h`.
const KNOWN_FLAGS: u32 = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MORE | libc::SPLICE_F_GIFT;

/// Start of a copy in a file, and where that offset is stored: in the program's memory, or in the open file.
#[derive(Clone, Copy)]
struct CopyPosition {
    fd: i32,
    offset_at: u64,
    start: u64,
}

impl CopyPosition {
    /// The position that a call specifies by a descriptor and the address of an offset. Address 0 means the open file's
    /// offset.
    fn read(call: &mut Call<'_, '_>, fd: u64, offset_at: u64) -> Result<Self, Halt> {
        let fd = int(fd);
        let start = match offset_at {
            0 => call.process.files.open_file(fd)?.offset,
            at => call.user().read_words::<1>(at)?[0],
        };
        Ok(Self { fd, offset_at, start })
    }

    /// Stores the offset after `done` bytes.
    fn advance(self, call: &mut Call<'_, '_>, done: u64) -> Result<(), Halt> {
        let end = self.start.saturating_add(done);
        if self.offset_at != 0 {
            call.user().write_words(self.offset_at, &[end])?;
        } else if done > 0 {
            call.process.files.edit().open_file_mut(self.fd)?.offset = end;
        }
        Ok(())
    }
}

fn is_regular(object: &Object) -> bool {
    matches!(object, Object::Text { .. } | Object::Host(_) | Object::Memory { .. })
}

/// `copy_file_range(2)`.
pub(crate) fn copy_file_range(call: &mut Call<'_, '_>) -> CallResult {
    let [from, from_at, to, to_at, len, flags] = call.args;
    let source = call.process.files.open_file(int(from))?;
    let (object, readable) = (source.object.clone(), source.is_readable());
    let target = call.process.files.open_file(int(to))?;
    let (into, writable, appends) = (target.object.clone(), target.is_writable(), target.flags & libc::O_APPEND != 0);
    let (source, target) = (CopyPosition::read(call, from, from_at)?, CopyPosition::read(call, to, to_at)?);
    if int(flags) != 0 {
        return Err(Errno::EINVAL.into());
    }
    for object in [&object, &into] {
        match object {
            Object::Directory { .. } => return Err(Errno::EISDIR.into()),
            object if !is_regular(object) => return Err(Errno::EINVAL.into()),
            _ => {}
        }
    }
    if !takes_writes(&into) {
        return Err(Errno::EBADF.into());
    }
    if !readable || !writable || appends {
        return Err(Errno::EBADF.into());
    }
    let ends = [source, target].map(|position| position.start.checked_add(len));
    let [Some(source_end), Some(target_end)] = ends else { return Err(Errno::EOVERFLOW.into()) };
    if i64::try_from(source.start).is_err() || i64::try_from(target.start).is_err() {
        return Err(Errno::EINVAL.into());
    }
    let same = match (&object, &into) {
        (Object::Memory { id: from, .. }, Object::Memory { id, .. }) => from == id,
        (Object::Host(from), Object::Host(into)) => from.key() == into.key(),
        _ => false,
    };
    if same && source.start < target_end && target.start < source_end {
        return Err(Errno::EINVAL.into());
    }
    let done = copy(call, &object, source.start, &into, target.start, len.min(TRANSFER_MAX))?;
    source.advance(call, done)?;
    target.advance(call, done)?;
    Ok(done)
}

/// Copies from one file to another; returns the number of bytes. Fails if nothing could be copied.
fn copy(call: &mut Call<'_, '_>, from: &Object, start: u64, to: &Object, at: u64, len: u64) -> CallResult {
    let mut done: u64 = 0;
    let mut chunk = Vec::new();
    while done < len {
        let part = usize::try_from(len.saturating_sub(done)).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        chunk.resize(part, 0);
        let got = from.read_at(call, start.saturating_add(done), &mut chunk)?;
        let wrote = match write_to(call, to, at.saturating_add(done), chunk.get(..got).unwrap_or_default()) {
            Ok(wrote) => wrote,
            Err(Halt::Errno(_)) if done > 0 => break,
            Err(halt) => return Err(halt),
        };
        done = done.saturating_add(count(wrote));
        if wrote < part {
            break;
        }
    }
    Ok(done)
}

/// Whether [`write_to`] can write to it.
fn takes_writes(object: &Object) -> bool {
    matches!(object, Object::Memory { .. }) || matches!(object, Object::Host(file) if file.durable().is_some())
}

/// Writes bytes at an offset; returns how many.
fn write_to(call: &mut Call<'_, '_>, to: &Object, at: u64, bytes: &[u8]) -> Result<usize, Halt> {
    match to {
        Object::Memory { id, .. } => write_chunk(call, *id, at, bytes).map(|()| bytes.len()),
        Object::Host(file) => Ok(durable::write_bytes(call, file, at, bytes)?),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// One end of a `splice`.
enum Side {
    Pipe(QueueId),
    Socket(Option<QueueId>),
    File(Object),
}

/// The end that an open file is in a `splice`; `input`: bytes come from it.
fn side(call: &Call<'_, '_>, open: &OpenFile, input: bool) -> Result<Side, Errno> {
    let Object::Pollable(id) = open.object else { return Ok(Side::File(open.object.clone())) };
    match call.process.pollables.kind(id) {
        Some(PollableKind::PipeReader(queue) | PollableKind::PipeWriter(queue) | PollableKind::PipeBoth(queue)) => {
            Ok(Side::Pipe(*queue))
        }
        Some(PollableKind::Socket(socket)) if socket.remote.is_none() && socket.kind == libc::SOCK_STREAM => {
            let closed = if input { None } else { socket.output.filter(|_| socket.shut_write || socket.reset) };
            if closed.is_some() {
                return Err(Errno::EPIPE);
            }
            Ok(Side::Socket(if input { socket.input } else { socket.output }))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `splice(2)`.
pub(crate) fn splice(call: &mut Call<'_, '_>) -> CallResult {
    let [from, from_at, to, to_at, len, flags] = call.args;
    if len == 0 {
        return Ok(0);
    }
    let flags = int(flags).cast_unsigned();
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let source = call.process.files.open_file(int(from))?;
    let target = call.process.files.open_file(int(to))?;
    if !source.is_readable() || !target.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let asked = flags & libc::SPLICE_F_NONBLOCK != 0;
    let nonblocking = |open: &OpenFile| asked || open.flags & libc::O_NONBLOCK != 0;
    let (wait_in, wait_out) = (!nonblocking(source), !nonblocking(target));
    let appends = target.flags & libc::O_APPEND != 0;
    let (input, output) = (side(call, source, true)?, side(call, target, false)?);
    match (&input, &output) {
        (Side::Pipe(one), Side::Pipe(other)) if one == other => return Err(Errno::EINVAL.into()),
        (Side::Pipe(_), _) | (_, Side::Pipe(_)) => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    for (side, offset_at) in [(&input, from_at), (&output, to_at)] {
        if offset_at != 0 && !matches!(side, Side::File(_)) {
            return Err(Errno::ESPIPE.into());
        }
    }
    let len = usize::try_from(len.min(TRANSFER_MAX)).unwrap_or(0);
    match (input, output) {
        (Side::File(object), Side::Pipe(queue)) => {
            if !is_regular(&object) && !matches!(object, Object::Zero) {
                return Err(Errno::EINVAL.into());
            }
            let position = CopyPosition::read(call, from, from_at)?;
            if i64::try_from(position.start).is_err() {
                return Err(Errno::EINVAL.into());
            }
            let room = room(call, queue, wait_out)?;
            let mut bytes = vec![0; room.min(len)];
            let got = object.read_at(call, position.start, &mut bytes)?;
            let sent = transfer::send_bytes(call, queue, bytes.get(..got).unwrap_or_default());
            position.advance(call, count(sent))?;
            Ok(count(sent))
        }
        (Side::Pipe(queue), Side::File(object)) => {
            if appends || !takes_writes(&object) {
                return Err(Errno::EINVAL.into());
            }
            let position = CopyPosition::read(call, to, to_at)?;
            if i64::try_from(position.start).is_err() {
                return Err(Errno::EINVAL.into());
            }
            let bytes = front(call, queue, len, wait_in)?;
            let wrote = write_to(call, &object, position.start, &bytes)?;
            taken(call, queue, wrote);
            position.advance(call, count(wrote))?;
            Ok(count(wrote))
        }
        (Side::Pipe(from) | Side::Socket(Some(from)), Side::Pipe(to) | Side::Socket(Some(to))) => {
            let bytes = front(call, from, len, wait_in)?;
            if bytes.is_empty() {
                return Ok(0);
            }
            let room = room(call, to, wait_out)?;
            let sent = transfer::send_bytes(call, to, bytes.get(..room.min(bytes.len())).unwrap_or_default());
            taken(call, from, sent);
            Ok(count(sent))
        }
        (Side::Socket(_), _) | (_, Side::Socket(_)) => Err(Errno::ENOTCONN.into()),
        (Side::File(_), Side::File(_)) => Err(Errno::EINVAL.into()),
    }
}

/// The first bytes of a queue; empty at its end.
fn front(call: &Call<'_, '_>, queue: QueueId, len: usize, waits: bool) -> Result<Vec<u8>, Halt> {
    let Some(found) = call.process.pollables.queue(queue) else { return Ok(Vec::new()) };
    let bytes = found.front();
    if bytes.is_empty() && !found.has_ended() {
        return Err(wait_if(waits));
    }
    Ok(bytes.get(..len.min(bytes.len()).min(found.readable())).unwrap_or_default().to_vec())
}

/// Free space in a queue that has a reader; never 0.
fn room(call: &mut Call<'_, '_>, queue: QueueId, waits: bool) -> Result<usize, Halt> {
    if call.process.pollables.queue(queue).is_none_or(|queue| queue.refused) {
        return Err(Errno::EPIPE.into());
    }
    match call.process.pollables.room(queue) {
        0 => {
            call.process.pollables.edit().note_starved(queue);
            Err(wait_if(waits))
        }
        room => Ok(room),
    }
}

fn wait_if(waits: bool) -> Halt {
    if waits { Wait { call: "splice", until_ns: None, look_ns: None }.into() } else { Errno::EAGAIN.into() }
}

fn taken(call: &mut Call<'_, '_>, queue: QueueId, len: usize) {
    if len > 0 {
        let open = transfer::attached(call, queue, len, false);
        transfer::close_unclaimed(call, open);
        call.process.pollables.edit().take(queue, len);
        call.note_change();
    }
}

/// `tee(2)`: copies from one pipe to another; the bytes stay in the first.
pub(crate) fn tee(call: &mut Call<'_, '_>) -> CallResult {
    let [from, to, len, flags, ..] = call.args;
    let flags = int(flags).cast_unsigned();
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let source = call.process.files.open_file(int(from))?;
    let target = call.process.files.open_file(int(to))?;
    if !source.is_readable() || !target.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let asked = flags & libc::SPLICE_F_NONBLOCK != 0;
    let waits = [source, target].map(|open| !asked && open.flags & libc::O_NONBLOCK == 0);
    let (Side::Pipe(from), Side::Pipe(to)) = (side(call, source, true)?, side(call, target, false)?) else {
        return Err(Errno::EINVAL.into());
    };
    if from == to {
        return Err(Errno::EINVAL.into());
    }
    let [wait_in, wait_out] = waits;
    let len = usize::try_from(len.min(TRANSFER_MAX)).unwrap_or(0);
    let bytes = front(call, from, len, wait_in)?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let room = room(call, to, wait_out)?;
    let sent = transfer::send_bytes(call, to, bytes.get(..room.min(bytes.len())).unwrap_or_default());
    Ok(count(sent))
}

/// `vmsplice(2)`: always copies, also with SPLICE_F_GIFT.
pub(crate) fn vmsplice(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, flags, ..] = call.args;
    let flags = int(flags).cast_unsigned();
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let open = call.process.files.open_file(int(fd))?;
    let Object::Pollable(id) = open.object else { return Err(Errno::EBADF.into()) };
    let reads = match call.process.pollables.kind(id) {
        Some(PollableKind::PipeReader(_)) => true,
        // As on Linux, what may be written is.
        Some(PollableKind::PipeBoth(_)) => false,
        Some(PollableKind::PipeWriter(_)) => false,
        _ => return Err(Errno::EBADF.into()),
    };
    let buffers = read_vectors(call, vectors, vector_count)?;
    if buffers::total(&buffers) == 0 {
        return Ok(0);
    }
    let nonblocking = flags & libc::SPLICE_F_NONBLOCK != 0;
    if reads {
        pollables::read(call, id, &buffers, nonblocking)
    } else {
        pollables::write(call, id, &buffers, nonblocking)
    }
}
