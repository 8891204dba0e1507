// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads and writes pollables: `read(2)`, `write(2)` and the like.

use crate::base::arguments::count;
use crate::base::errno::Errno;
use crate::base::halt::CallResult;
use crate::base::ids::PollableId;
use crate::event::calls::{counters, notices};
use crate::fs::calls::inotify;
use crate::kernel::buffers::{Buffer, total};
use crate::kernel::call::Call;
use crate::net::calls::messages;
use crate::net::calls::receive::Receive;
use crate::net::calls::transfer::{PIPE_WRITE, receive_bytes, receive_stream, send_stream};
use crate::pollables::table::PollableKind;

/// `read(2)` and the like.
pub(crate) fn read(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], nonblocking: bool) -> CallResult {
    match call.process.pollables.kind(id).ok_or(Errno::EBADF)? {
        PollableKind::Counter(_) => counters::read_counter(call, id, buffers, nonblocking),
        PollableKind::Timer(_) => counters::read_timer(call, id, buffers, nonblocking),
        PollableKind::PipeReader(queue) | PollableKind::PipeBoth(queue) => {
            let queue = *queue;
            let how = Receive { nonblocking, ..Receive::default() };
            Ok(count(receive_stream(call, id, queue, buffers, how, None)?.len))
        }
        PollableKind::Socket(_) => {
            if total(buffers) == 0 {
                return Ok(0);
            }
            let how = Receive { nonblocking, ..Receive::default() };
            Ok(count(receive_bytes(call, id, buffers, how)?))
        }
        PollableKind::Signals(mask) => {
            let mask = *mask;
            notices::read_signals(call, mask, buffers, nonblocking)
        }
        PollableKind::Inotify(_) => inotify::read_changes(call, id, buffers, nonblocking),
        PollableKind::PipeWriter(_) => Err(Errno::EBADF.into()),
        PollableKind::Epoll(_) | PollableKind::Process => Err(Errno::EINVAL.into()),
    }
}

/// `write(2)` and the like.
pub(crate) fn write(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], nonblocking: bool) -> CallResult {
    match call.process.pollables.kind(id).ok_or(Errno::EBADF)? {
        PollableKind::Counter(_) => counters::write_counter(call, id, buffers, nonblocking),
        PollableKind::PipeWriter(queue) | PollableKind::PipeBoth(queue) => {
            let queue = *queue;
            send_stream(call, queue, buffers, nonblocking, PIPE_WRITE, None)
        }
        PollableKind::Socket(_) => messages::send(call, id, buffers, nonblocking),
        PollableKind::PipeReader(_) => Err(Errno::EBADF.into()),
        PollableKind::Timer(_)
        | PollableKind::Epoll(_)
        | PollableKind::Signals(_)
        | PollableKind::Inotify(_)
        | PollableKind::Process => Err(Errno::EINVAL.into()),
    }
}

/// FIONREAD of a pipe or socket: the number of bytes that a read would return.
pub(crate) fn readable_bytes(call: &Call<'_, '_>, id: PollableId) -> Result<u64, Errno> {
    let pollables = &call.process.pollables;
    match pollables.kind(id) {
        Some(PollableKind::Socket(socket)) if socket.is_listening() => Err(Errno::EINVAL),
        Some(PollableKind::Socket(socket)) if socket.remote.is_some() => {
            socket.stream().map_or(Ok(0), crate::host::sockets::HostStream::readable_bytes)
        }
        Some(PollableKind::PipeReader(queue) | PollableKind::PipeWriter(queue) | PollableKind::PipeBoth(queue)) => {
            Ok(pollables.queue(*queue).map_or(0, |queue| count(queue.len())))
        }
        Some(PollableKind::Socket(socket)) => {
            let queue = socket.input.and_then(|queue| pollables.queue(queue));
            Ok(queue.map_or(0, |queue| count(if socket.is_datagram() { queue.next_len() } else { queue.len() })))
        }
        Some(PollableKind::Inotify(inotify)) => Ok(crate::fs::calls::inotify::readable_bytes(inotify)),
        _ => Err(Errno::ENOTTY),
    }
}
