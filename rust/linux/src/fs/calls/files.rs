// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads, writes, positions, and status of open files.

use super::durable::WriteFlags;
use super::{durable, overlay_mappings};
use crate::base::arguments::{count, int};
use crate::base::context::Stream;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::ids::InodeId;
use crate::base::pages::PAGE_BYTES;
use crate::fs::object::Object;
use crate::kernel::buffers::{Buffer, TRANSFER_MAX, read_vectors};
use crate::kernel::call::Call;
use crate::net::calls::interfaces;

/// Most bytes copied at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Position of a transfer in its file.
#[derive(Clone, Copy)]
enum Position {
    /// At the open file's offset, which advances.
    Current,
    /// At this offset; the open file's own offset stays.
    At(u64),
}

/// `read(2)`.
pub(crate) fn read(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, ..] = call.args;
    read_into(call, int(fd), Position::Current, &[Buffer { address, len }])
}

/// `readv(2)`.
pub(crate) fn readv(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, ..] = call.args;
    check_readable(call, int(fd))?;
    let buffers = read_vectors(call, vectors, vector_count)?;
    read_into(call, int(fd), Position::Current, &buffers)
}

/// `pread64(2)`.
pub(crate) fn pread(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, offset, ..] = call.args;
    let position = position(call, fd, offset)?;
    read_into(call, int(fd), position, &[Buffer { address, len }])
}

/// `preadv(2)`.
pub(crate) fn preadv(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, offset, ..] = call.args;
    let position = position(call, fd, offset)?;
    check_readable(call, int(fd))?;
    let buffers = read_vectors(call, vectors, vector_count)?;
    read_into(call, int(fd), position, &buffers)
}

/// `write(2)`.
pub(crate) fn write(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, ..] = call.args;
    write_from(call, int(fd), Position::Current, &[Buffer { address, len }])
}

/// `writev(2)`.
pub(crate) fn writev(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, ..] = call.args;
    check_writable(call, int(fd))?;
    let buffers = read_vectors(call, vectors, vector_count)?;
    write_from(call, int(fd), Position::Current, &buffers)
}

/// `pwrite64(2)`.
pub(crate) fn pwrite(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, offset, ..] = call.args;
    let position = position(call, fd, offset)?;
    write_from(call, int(fd), position, &[Buffer { address, len }])
}

/// `pwritev(2)`.
pub(crate) fn pwritev(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, offset, ..] = call.args;
    let position = position(call, fd, offset)?;
    check_writable(call, int(fd))?;
    let buffers = read_vectors(call, vectors, vector_count)?;
    write_from(call, int(fd), position, &buffers)
}

/// Flags of `preadv2` and `pwritev2`: only files of durable mounts are stored beyond the process.
const RWF_HIPRI: i32 = 1;
const RWF_DSYNC: i32 = 2;
const RWF_SYNC: i32 = 4;
const RWF_NOWAIT: i32 = 8;
const RWF_APPEND: i32 = 16;

/// The position that a call with flags gives: -1 is that of the open file.
fn position_or_current(call: &Call<'_, '_>, known: i32) -> Result<Position, Errno> {
    let [fd, _, _, offset, _, flags] = call.args;
    if int(flags) & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if offset == u64::MAX {
        return Ok(Position::Current);
    }
    position(call, fd, offset)
}

/// `preadv2(2)`.
pub(crate) fn preadv2(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, _, _, flags] = call.args;
    let position = position_or_current(call, RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT)?;
    check_readable(call, int(fd))?;
    let buffers = read_vectors(call, vectors, vector_count)?;
    read_with(call, int(fd), position, &buffers, int(flags) & RWF_NOWAIT != 0)
}

/// `pwritev2(2)`.
pub(crate) fn pwritev2(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, vectors, vector_count, _, _, flags] = call.args;
    let position = position_or_current(call, RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND)?;
    check_writable(call, int(fd))?;
    let buffers = read_vectors(call, vectors, vector_count)?;
    if durable::file(call, int(fd))?.is_some() {
        let has = |flag: i32| int(flags) & flag != 0;
        let flags = WriteFlags { append: has(RWF_APPEND), sync_data: has(RWF_DSYNC), sync: has(RWF_SYNC) };
        return write_durable(call, int(fd), position, &buffers, flags);
    }
    let open = call.process.files.open_file(int(fd))?;
    let id = match open.object {
        Object::Memory { id, .. } => id,
        Object::Pollable(id) => {
            let nonblocking = open.flags & libc::O_NONBLOCK != 0 || int(flags) & RWF_NOWAIT != 0;
            return crate::fs::calls::pollables::write(call, id, &buffers, nonblocking);
        }
        _ => return write_from(call, int(fd), position, &buffers),
    };
    let end = call.process.overlay.inodes().size(id);
    match position {
        Position::At(_) if int(flags) & RWF_APPEND != 0 => write_from(call, int(fd), Position::At(end), &buffers),
        Position::Current if int(flags) & RWF_APPEND != 0 => {
            call.process.files.edit().open_file_mut(int(fd))?.offset = end;
            write_from(call, int(fd), position, &buffers)
        }
        _ => write_from(call, int(fd), position, &buffers),
    }
}

/// The position of `pread` and the like, for files that have positions.
fn position(call: &Call<'_, '_>, fd: u64, offset: u64) -> Result<Position, Errno> {
    if offset.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let open = call.process.files.open_file(int(fd))?;
    if open.object.has_position() { Ok(Position::At(offset)) } else { Err(Errno::ESPIPE) }
}

/// Refuses a transfer that would end behind the largest offset.
fn check_end(start: u64, buffers: &[Buffer]) -> Result<(), Errno> {
    let wanted = buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.len)).min(WRITE_ALL_MAX);
    if i64::try_from(start.saturating_add(wanted)).is_ok() { Ok(()) } else { Err(Errno::EINVAL) }
}

fn check_readable(call: &Call<'_, '_>, fd: i32) -> Result<(), Errno> {
    if call.process.files.open_file(fd)?.is_readable() { Ok(()) } else { Err(Errno::EBADF) }
}

fn check_writable(call: &Call<'_, '_>, fd: i32) -> Result<(), Errno> {
    if call.process.files.open_file(fd)?.is_writable() { Ok(()) } else { Err(Errno::EBADF) }
}

/// Reads from `fd` into `buffers`, until they are full, the file ends, or [`TRANSFER_MAX`] bytes are read.
fn read_into(call: &mut Call<'_, '_>, fd: i32, position: Position, buffers: &[Buffer]) -> CallResult {
    read_with(call, fd, position, buffers, false)
}

/// As [`read_into`]. `nowait`: `EAGAIN` in place of waiting for bytes, or for a page of a file that is not in memory.
fn read_with(call: &mut Call<'_, '_>, fd: i32, position: Position, buffers: &[Buffer], nowait: bool) -> CallResult {
    check_readable(call, fd)?;
    let open = call.process.files.open_file(fd)?;
    if let Object::Pollable(id) = open.object {
        let nonblocking = nowait || open.flags & libc::O_NONBLOCK != 0;
        return crate::fs::calls::pollables::read(call, id, buffers, nonblocking);
    }
    let object = open.object.clone();
    let start = match position {
        Position::Current => open.offset,
        Position::At(offset) => offset,
    };
    check_end(start, buffers)?;
    let mut small = [0; PAGE_BYTES];
    let mut large = Vec::new();
    let wanted = buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.len)).min(TRANSFER_MAX);
    let chunk = if wanted <= count(PAGE_BYTES) {
        small.as_mut_slice()
    } else {
        large.resize(CHUNK_BYTES, 0);
        large.as_mut_slice()
    };
    let mut transfer = Transfer { start, done: 0, left: wanted, nowait };
    let mut result = Ok(true);
    for buffer in buffers {
        result = transfer.fill(call, &object, *buffer, chunk);
        if !matches!(result, Ok(true)) {
            break;
        }
    }
    match result {
        // A read that would block is repeated as a whole on another thread.
        Err(Halt::Errno(errno)) if transfer.done > 0 && errno != Errno::NOT_HERE => {}
        Err(halt) => return Err(halt),
        Ok(_) => {}
    }
    finish(call, fd, position, &object, &transfer)?;
    Ok(transfer.done)
}

/// Advances the offset of an open file that has one.
fn finish(
    call: &mut Call<'_, '_>,
    fd: i32,
    position: Position,
    object: &Object,
    transfer: &Transfer,
) -> Result<(), Errno> {
    if matches!(position, Position::Current) && object.has_position() && transfer.done > 0 {
        call.process.files.edit().open_file_mut(fd)?.offset = transfer.start.saturating_add(transfer.done);
    }
    Ok(())
}

/// Progress of a call's transfer.
struct Transfer {
    start: u64,
    done: u64,
    left: u64,
    nowait: bool,
}

impl Transfer {
    fn read(&self, call: &mut Call<'_, '_>, object: &Object, out: &mut [u8]) -> Result<usize, Halt> {
        let offset = self.start.saturating_add(self.done);
        if !self.nowait {
            return object.read_at(call, offset, out);
        }
        let may_block = std::mem::replace(&mut call.context.may_block, false);
        let result = object.read_at(call, offset, out);
        call.context.may_block = may_block;
        result.map_err(|halt| match halt {
            Halt::Errno(Errno::NOT_HERE) => Errno::EAGAIN.into(),
            other => other,
        })
    }

    /// Fills `buffer`; `false` if the file ended or the call has read enough.
    fn fill(
        &mut self,
        call: &mut Call<'_, '_>,
        object: &Object,
        buffer: Buffer,
        chunk: &mut [u8],
    ) -> Result<bool, Halt> {
        let mut filled = 0;
        while filled < buffer.len && self.left > 0 {
            let part = buffer.len.saturating_sub(filled).min(self.left).min(count(chunk.len()));
            let part = chunk.get_mut(..usize::try_from(part).unwrap_or(0)).unwrap_or_default();
            let got = self.read(call, object, part)?;
            let bytes = part.get(..got).unwrap_or_default();
            let at = buffer.address.checked_add(filled).ok_or(Errno::EFAULT)?;
            call.user().write(at, bytes)?;
            filled = filled.saturating_add(count(got));
            self.done = self.done.saturating_add(count(got));
            self.left = self.left.saturating_sub(count(got));
            if got < part.len() {
                return Ok(false);
            }
        }
        Ok(self.left > 0)
    }
}

/// Writes `buffers` to `fd`, at most [`TRANSFER_MAX`] bytes.
fn write_from(call: &mut Call<'_, '_>, fd: i32, position: Position, buffers: &[Buffer]) -> CallResult {
    check_writable(call, fd)?;
    let open = call.process.files.open_file(fd)?;
    match open.object.clone() {
        Object::Pollable(id) => {
            let nonblocking = open.flags & libc::O_NONBLOCK != 0;
            crate::fs::calls::pollables::write(call, id, buffers, nonblocking)
        }
        Object::Log(stream) => write_log(call, stream, buffers),
        Object::Memory { id, .. } => write_memory(call, fd, id, position, buffers),
        Object::Null | Object::Zero => {
            Ok(buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.len)).min(WRITE_ALL_MAX))
        }
        Object::Full => Err(Errno::ENOSPC.into()),
        // Bytes written to the generator are ignored: every request has fresh random bytes anyway.
        Object::Random { .. } => {
            Ok(buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.len)).min(WRITE_ALL_MAX))
        }
        Object::Host(file) if file.durable().is_some() => {
            write_durable(call, fd, position, buffers, WriteFlags::default())
        }
        Object::Text { .. } | Object::Host(_) | Object::Directory { .. } => Err(Errno::EBADF.into()),
    }
}

/// Writes to a file of a durable mount.
fn write_durable(
    call: &mut Call<'_, '_>,
    fd: i32,
    position: Position,
    buffers: &[Buffer],
    flags: WriteFlags,
) -> CallResult {
    let open = call.process.files.open_file(fd)?;
    let (start, at) = match position {
        Position::Current => (open.offset, None),
        Position::At(offset) => (offset, Some(offset)),
    };
    check_end(start, buffers)?;
    durable::write(call, fd, at, buffers, flags)
}

/// Most bytes that Linux writes in one call: MAX_RW_COUNT. For devices that accept all bytes and store none.
const WRITE_ALL_MAX: u64 = 0x7fff_f000;

/// Writes to a file of the overlay.
fn write_memory(call: &mut Call<'_, '_>, fd: i32, id: InodeId, position: Position, buffers: &[Buffer]) -> CallResult {
    let open = call.process.files.open_file(fd)?;
    let appends = open.flags & libc::O_APPEND != 0;
    let start = match position {
        // Linux appends even if the call specifies a position.
        _ if appends => call.process.overlay.inodes().size(id),
        Position::Current => open.offset,
        Position::At(offset) => offset,
    };
    check_end(start, buffers)?;
    let mut done: u64 = 0;
    let mut chunk = Vec::new();
    let result = buffers.iter().try_for_each(|buffer| {
        let mut taken: u64 = 0;
        while taken < buffer.len && done < TRANSFER_MAX {
            let part = buffer.len.saturating_sub(taken).min(TRANSFER_MAX.saturating_sub(done)).min(count(CHUNK_BYTES));
            let at = start.saturating_add(done);
            let part = usize::try_from(part).unwrap_or(0);
            let fitting = call.process.overlay.inodes().fitting(id, at, part);
            chunk.resize(if fitting == 0 { part } else { fitting }, 0);
            let part = count(chunk.len());
            let from = buffer.address.checked_add(taken).ok_or(Errno::EFAULT)?;
            call.user().read(from, &mut chunk)?;
            write_chunk(call, id, at, &chunk)?;
            taken = taken.saturating_add(part);
            done = done.saturating_add(part);
        }
        Ok(())
    });
    match result {
        // The same bytes are written to the same place again, on another thread.
        Err(Halt::Errno(Errno::NOT_HERE)) if !appends => return Err(Errno::NOT_HERE.into()),
        Err(Halt::Errno(_)) if done > 0 => {}
        Err(halt) => return Err(halt),
        Ok(()) => {}
    }
    if matches!(position, Position::Current) && done > 0 {
        call.process.files.edit().open_file_mut(fd)?.offset = start.saturating_add(done);
    }
    Ok(done)
}

/// Writes bytes that the host has to a file of the overlay.
pub(crate) fn write_chunk(call: &mut Call<'_, '_>, id: InodeId, at: u64, bytes: &[u8]) -> Result<(), Halt> {
    let len = count(bytes.len());
    overlay_mappings::refresh(call, id, at, len);
    let may_block = call.context.may_block;
    let now = crate::host::attributes::now();
    call.process.overlay.edit().inodes_mut().write(id, at, bytes, now, may_block)?;
    overlay_mappings::write_through(call, id, at, len)
}

fn write_log(call: &mut Call<'_, '_>, stream: Stream, buffers: &[Buffer]) -> CallResult {
    let mut pipe = Pipe::new(stream);
    let mut result = Ok(());
    for buffer in buffers {
        result = pipe.copy(call, buffer.address, buffer.len);
        if result.is_err() || pipe.budget == 0 {
            break;
        }
    }
    pipe.finish(call, result)
}

/// A write to the log. As in a pipe, the unit is a page: a page that could not be filled because of a bad pointer is
/// not written at all, and the buffers that a C library gathers for a line arrive as one piece.
struct Pipe {
    stream: Stream,
    page: [u8; PAGE_BYTES],
    used: usize,
    /// Bytes already written to the log.
    written: usize,
    /// Bytes that this call may still write.
    budget: u64,
}

impl Pipe {
    fn new(stream: Stream) -> Self {
        Self { stream, page: [0; PAGE_BYTES], used: 0, written: 0, budget: TRANSFER_MAX }
    }

    /// Takes `len` bytes at `buffer`, as far as they are readable and within the budget.
    fn copy(&mut self, call: &mut Call<'_, '_>, buffer: u64, len: u64) -> Result<(), Halt> {
        let wanted = len.min(self.budget);
        let mut done = 0;
        while done < wanted {
            let at = buffer.checked_add(done).ok_or(Errno::EFAULT)?;
            let room = self.page.get_mut(self.used..).unwrap_or_default();
            let left = usize::try_from(wanted.saturating_sub(done)).unwrap_or(room.len());
            let part = room.get_mut(..left.min(PAGE_BYTES.saturating_sub(self.used))).unwrap_or_default();
            call.user().read(at, part)?;
            done = done.saturating_add(count(part.len()));
            self.budget = self.budget.saturating_sub(count(part.len()));
            self.used = self.used.saturating_add(part.len());
            if self.used == PAGE_BYTES {
                self.flush(call);
            }
        }
        Ok(())
    }

    fn flush(&mut self, call: &mut Call<'_, '_>) {
        let bytes = self.page.get(..self.used).unwrap_or_default();
        if !bytes.is_empty() {
            call.context.output.write(self.stream, bytes);
        }
        self.written = self.written.saturating_add(self.used);
        self.used = 0;
    }

    /// The call's result: the number of bytes written, or the error if there are none.
    fn finish(mut self, call: &mut Call<'_, '_>, result: Result<(), Halt>) -> CallResult {
        match result {
            Ok(()) => self.flush(call),
            Err(Halt::Errno(_)) if self.written > 0 => {}
            Err(halt) => return Err(halt),
        }
        Ok(count(self.written))
    }
}

/// `ioctl(2)`: there are no terminals, and the flags of descriptors are those of `fcntl`.
pub(crate) fn ioctl(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, request, ..] = call.args;
    let fd = int(fd);
    call.process.files.get(fd)?;
    match request & u64::from(u32::MAX) {
        libc::FIOCLEX => call.process.files.edit().set_close_on_exec(fd, true)?,
        libc::FIONCLEX => call.process.files.edit().set_close_on_exec(fd, false)?,
        libc::FIONBIO => {
            let [_, _, argument, ..] = call.args;
            let on = call.user().read_u32(argument)? != 0;
            let flags = call.process.files.open_file(fd)?.flags & !libc::O_NONBLOCK;
            let flags = if on { flags | libc::O_NONBLOCK } else { flags };
            call.process.files.edit().set_status_flags(fd, flags)?;
        }
        libc::FIONREAD => {
            let [_, _, argument, ..] = call.args;
            let open = call.process.files.open_file(fd)?;
            let size = match &open.object {
                Object::Text { content, .. } => count(content.len()),
                Object::Host(file) => file.attributes(call.context.may_block)?.size,
                Object::Memory { id, .. } => call.process.overlay.inodes().size(*id),
                Object::Pollable(id) => crate::fs::calls::pollables::readable_bytes(call, *id)?,
                _ => return Err(Errno::ENOTTY.into()),
            };
            let left = u32::try_from(size.saturating_sub(open.offset)).unwrap_or(u32::MAX);
            call.user().write(argument, &left.to_le_bytes())?;
        }
        request => {
            let [_, _, argument, ..] = call.args;
            let is_socket = crate::net::calls::sockets::socket_of(call, fd.cast_unsigned().into()).is_ok();
            let answer = if is_socket { interfaces::ioctl(call, request, argument) } else { None };
            return answer.unwrap_or(Err(Errno::ENOTTY.into()));
        }
    }
    Ok(0)
}

/// `lseek(2)`. Devices are always at 0; a pipe has no position; only a file that the program has written has holes.
pub(crate) fn lseek(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, offset, whence, ..] = call.args;
    let (fd, offset) = (int(fd), offset.cast_signed());
    let open = call.process.files.open_file(fd)?;
    if open.flags & libc::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    let size = match &open.object {
        Object::Log(_) => return Err(Errno::ESPIPE.into()),
        Object::Pollable(id) if call.process.pollables.is_stream(*id) => return Err(Errno::ESPIPE.into()),
        // Linux returns the same for counters, timers and epolls.
        Object::Pollable(_) => return Ok(0),
        Object::Null | Object::Zero | Object::Full | Object::Random { .. } => return Ok(0),
        Object::Directory { .. } => None,
        Object::Text { content, .. } => Some(count(content.len())),
        Object::Host(file) => Some(file.attributes(call.context.may_block)?.size),
        Object::Memory { id, .. } => Some(call.process.overlay.inodes().size(*id)),
    };
    let size = size.and_then(|size| i64::try_from(size).ok());
    let inside = size.filter(|&size| offset >= 0 && offset < size);
    let new = match (int(whence), size) {
        (libc::SEEK_SET, _) => Some(offset),
        (libc::SEEK_CUR, _) => open.offset.cast_signed().checked_add(offset),
        (libc::SEEK_END, Some(size)) => size.checked_add(offset),
        (whence @ (libc::SEEK_DATA | libc::SEEK_HOLE), Some(_)) if let Object::Memory { id, .. } = open.object => {
            inside.ok_or(Errno::ENXIO)?;
            let data = whence == libc::SEEK_DATA;
            let found = overlay_mappings::seek(call, id, offset.cast_unsigned(), data)?.ok_or(Errno::ENXIO)?;
            i64::try_from(found).ok()
        }
        (libc::SEEK_DATA, Some(_)) => Some(inside.map(|_| offset).ok_or(Errno::ENXIO)?),
        (libc::SEEK_HOLE, Some(_)) => Some(inside.ok_or(Errno::ENXIO)?),
        _ => None,
    };
    let new = new.filter(|&new| new >= 0).ok_or(Errno::EINVAL)?.cast_unsigned();
    let open = call.process.files.open_file(fd)?;
    if new != open.offset {
        call.process.files.edit().open_file_mut(fd)?.offset = new;
    }
    Ok(new)
}

/// `fadvise64(2)`, `readahead(2)`: advice about files that have a position.
pub(crate) fn fadvise(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, _, _, advice, ..] = call.args;
    let open = call.process.files.open_file(int(fd))?;
    match int(advice) {
        _ if !open.object.has_position() => Err(Errno::ESPIPE.into()),
        0..=5 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `sync(2)`: the program's own open files.
pub(crate) fn sync(call: &mut Call<'_, '_>) -> CallResult {
    durable::sync_all(call)?;
    Ok(0)
}

/// `syncfs(2)`.
pub(crate) fn syncfs(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, ..] = call.args;
    call.process.files.get(int(fd))?;
    durable::sync_all(call)?;
    Ok(0)
}

/// `fsync(2)`. But for durable mounts nothing is stored beyond the process, so there is nothing to do.
pub(crate) fn fsync(call: &mut Call<'_, '_>) -> CallResult {
    store(call, false)
}

/// `fdatasync(2)`.
pub(crate) fn fdatasync(call: &mut Call<'_, '_>) -> CallResult {
    store(call, true)
}

/// `sync_file_range(2)`: stores the file's data as a whole, whatever part and step is asked for.
pub(crate) fn sync_file_range(call: &mut Call<'_, '_>) -> CallResult {
    const FLAGS: u32 =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let [fd, offset, len, flags, ..] = call.args;
    call.process.files.open_file(int(fd))?;
    let end = offset.cast_signed().checked_add(len.cast_signed());
    let is_range = offset.cast_signed() >= 0 && len.cast_signed() >= 0 && end.is_some();
    if !is_range || int(flags).cast_unsigned() & !FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    store(call, true)
}

fn store(call: &mut Call<'_, '_>, only_data: bool) -> CallResult {
    let [fd, ..] = call.args;
    durable::sync(call, int(fd), only_data)?;
    match call.process.files.open_file(int(fd))?.object {
        Object::Text { .. } | Object::Host(_) | Object::Memory { .. } | Object::Directory { .. } => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `fstat(2)`.
pub(crate) fn fstat(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, buffer, ..] = call.args;
    let attributes = call.process.files.open_file(int(fd))?.attributes(call.view())?;
    call.user().write(buffer, &attributes.stat())?;
    Ok(0)
}
