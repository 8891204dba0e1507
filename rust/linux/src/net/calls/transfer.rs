// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves bytes between a program's memory and pollables: `read`, `write` and the calls of sockets end here.
//!
//! Bytes are copied once, between the program's memory and a queue. A blocking write that finds space for a part of its
//! bytes writes them, and waits to write the rest: the thread stores its progress.

use super::remote;
use crate::base::arguments::count;
use crate::base::clock::is_over;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::{OpenId, PollableId, QueueId};
use crate::base::pages::PAGE_BYTES;
use crate::event::events::Event;
use crate::event::queue::Sender;
use crate::kernel::buffers::{Buffer, TRANSFER_MAX, behind, total};
use crate::kernel::call::Call;
use crate::kernel::closing;
use crate::mm::user::UserMemory;
use crate::net::calls::receive::{Receive, Received, deadline, take_error};
use crate::signal::signals::Signal;

/// The name of the call in which a thread waits to write to a pipe.
pub(crate) const PIPE_WRITE: &str = "write";

/// Receives from a socket for a call that returns no descriptors: received ones are closed.
pub(crate) fn receive_bytes(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    how: Receive,
) -> Result<usize, Halt> {
    let received = receive(call, id, buffers, how)?;
    close_unclaimed(call, received.open);
    Ok(received.len)
}

/// Closes received descriptors that the caller did not ask for.
pub(crate) fn close_unclaimed(call: &mut Call<'_, '_>, open: Vec<OpenId>) {
    for open in open {
        let gone = call.process.files.edit().release(open);
        closing::forget(call, gone);
    }
}

/// References to the open files attached to the first `count` bytes of a queue, or to its first message. A peek leaves
/// them attached too.
pub(crate) fn attached(call: &mut Call<'_, '_>, queue: QueueId, count: usize, peek: bool) -> Vec<OpenId> {
    let open = call.process.pollables.queue(queue).map_or(Vec::new(), |queue| queue.attached(count));
    if open.is_empty() {
        return open;
    }
    if peek {
        for &open in &open {
            call.process.files.edit().hold(open);
        }
    } else if let Some(queue) = call.process.pollables.edit().queue_mut(queue) {
        queue.detach();
    }
    open
}

/// Receives from a socket.
pub(crate) fn receive(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    how: Receive,
) -> Result<Received, Halt> {
    remote::refresh(call, id);
    let socket = call.process.pollables.socket(id)?;
    if socket.remote.is_some() {
        return remote::receive(call, id, buffers, how);
    }
    let timeout = socket.receive_timeout_ns;
    let queue = match socket.input {
        Some(queue) => queue,
        None if socket.is_datagram() => return receive_nothing(call, id, how, timeout),
        None => {
            let (unix, reset) = (socket.is_unix(), socket.reset);
            if let Some(error) = take_error(call, id) {
                return Err(error.into());
            }
            if reset {
                return Ok(Received::default());
            }
            return Err(if unix { Errno::EINVAL } else { Errno::ENOTCONN }.into());
        }
    };
    let until = deadline(call, timeout)?;
    if call.process.pollables.queue(queue).is_some_and(crate::event::queue::Queue::has_messages) {
        receive_message(call, id, queue, buffers, how, until)
    } else {
        receive_stream(call, id, queue, buffers, how, until)
    }
}

/// Receives from an unconnected datagram socket: nothing ever arrives.
fn receive_nothing(call: &mut Call<'_, '_>, id: PollableId, how: Receive, timeout: u64) -> Result<Received, Halt> {
    if let Some(error) = take_error(call, id) {
        return Err(error.into());
    }
    let until_ns = deadline(call, timeout)?;
    if how.nonblocking || is_over(until_ns) {
        return Err(Errno::EAGAIN.into());
    }
    if call.process.pollables.socket(id)?.shut_read {
        return Ok(Received::default());
    }
    Err(Wait { call: "recv", until_ns, look_ns: None }.into())
}

pub(crate) fn receive_stream(
    call: &mut Call<'_, '_>,
    id: PollableId,
    queue: QueueId,
    buffers: &[Buffer],
    how: Receive,
    until_ns: Option<u64>,
) -> Result<Received, Halt> {
    let before = call.progress();
    let wanted = usize::try_from(total(buffers).min(TRANSFER_MAX)).unwrap_or(0).saturating_sub(before);
    let most = call.process.pollables.queue(queue).map_or(0, crate::event::queue::Queue::readable);
    let got = copy_out(call, queue, buffers, before, wanted.min(most), how.truncate)?;
    let done = before.saturating_add(got);
    let open = if got > 0 { attached(call, queue, got, how.peek) } else { Vec::new() };
    if got > 0 && !how.peek {
        call.process.pollables.edit().take(queue, got);
        call.note_change();
    }
    let enough = if how.all && !how.peek { got == wanted } else { done > 0 };
    if enough || wanted == 0 || !open.is_empty() {
        return Ok(Received { len: done, open, ..Received::default() });
    }
    if done == 0
        && let Some(error) = take_error(call, id)
    {
        return Err(error.into());
    }
    let state = call.process.pollables.queue(queue);
    let shut = call.process.pollables.socket(id).is_ok_and(|socket| socket.shut_read);
    if shut || state.is_none_or(crate::event::queue::Queue::has_ended) {
        return Ok(Received::bytes(done));
    }
    if how.nonblocking || is_over(until_ns) {
        return if done > 0 { Ok(Received::bytes(done)) } else { Err(Errno::EAGAIN.into()) };
    }
    Err(call.wait_with_progress(Wait { call: "read", until_ns, look_ns: None }, done))
}

fn receive_message(
    call: &mut Call<'_, '_>,
    id: PollableId,
    queue: QueueId,
    buffers: &[Buffer],
    how: Receive,
    until_ns: Option<u64>,
) -> Result<Received, Halt> {
    let datagram = call.process.pollables.socket(id)?.is_datagram();
    if datagram && let Some(error) = take_error(call, id) {
        return Err(error.into());
    }
    let found = call.process.pollables.queue(queue).ok_or(Errno::EBADF)?;
    if !found.is_empty() {
        let (size, sender) = (found.next_len(), found.next_sender());
        let wanted = usize::try_from(total(buffers)).unwrap_or(usize::MAX).min(size);
        let copied = copy_out(call, queue, buffers, 0, wanted, false);
        if let Err(halt) = copied {
            // As on Linux, a message that cannot be written to the program's buffers is lost.
            if matches!(halt, Halt::Errno(Errno::EFAULT)) && datagram && !how.peek {
                let open = attached(call, queue, 0, false);
                call.process.pollables.edit().take(queue, 0);
                call.note_change();
                close_unclaimed(call, open);
            }
            return Err(halt);
        }
        let open = attached(call, queue, 0, how.peek);
        if !how.peek {
            call.process.pollables.edit().take(queue, 0);
            call.note_change();
        }
        let len = if how.truncate { size } else { wanted };
        return Ok(Received { len, truncated: wanted < size, sender, open });
    }
    let finished = found.finished;
    if let Some(error) = take_error(call, id) {
        return Err(error.into());
    }
    let shut_read = call.process.pollables.socket(id)?.shut_read;
    if !datagram && (shut_read || finished) {
        return Ok(Received::default());
    }
    if how.nonblocking || is_over(until_ns) {
        return Err(Errno::EAGAIN.into());
    }
    // Of datagram sockets, only a call that would wait notices it.
    if shut_read {
        return Ok(Received::default());
    }
    Err(Wait { call: "recv", until_ns, look_ns: None }.into())
}

/// Copies up to `wanted` bytes from the front of a queue to the buffers, skipping their first `skip` bytes; returns the
/// number of bytes.
fn copy_out(
    call: &mut Call<'_, '_>,
    queue: QueueId,
    buffers: &[Buffer],
    skip: usize,
    wanted: usize,
    discard: bool,
) -> Result<usize, Halt> {
    let may_block = call.may_wait_for_memory();
    let process = &mut *call.process;
    let mut user =
        UserMemory { machine: call.machine, space: &process.memory, inodes: process.overlay.inodes(), may_block };
    let Some(queue) = process.pollables.queue(queue) else { return Ok(0) };
    let available = queue.front();
    let available = available.get(..wanted.min(available.len())).unwrap_or_default();
    if discard {
        return Ok(available.len());
    }
    let mut done: usize = 0;
    for (address, len) in behind(buffers, skip) {
        let rest = available.get(done..).unwrap_or_default();
        let part = rest.get(..len.min(rest.len())).unwrap_or_default();
        if part.is_empty() {
            continue;
        }
        match user.write(address, part) {
            Ok(()) => done = done.saturating_add(part.len()),
            Err(Halt::Errno(_)) if done > 0 => break,
            Err(halt) => return Err(halt),
        }
    }
    Ok(done)
}

/// Sends to the peer of a connection.
pub(crate) fn send(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], nonblocking: bool) -> CallResult {
    remote::refresh(call, id);
    let socket = call.process.pollables.socket(id)?;
    if socket.remote.is_some() {
        return remote::send(call, id, buffers, nonblocking);
    }
    let (unix, reset, shut) = (socket.is_unix(), socket.reset, socket.shut_write);
    let sender = socket.local.as_sender(socket.domain);
    let (timeout, connected) = (socket.send_timeout_ns, socket.is_connected());
    let Some(queue) = socket.output else {
        return send_unconnected(call, id);
    };
    let ended = socket.error.is_some() || shut || call.process.pollables.queue(queue).is_none_or(|queue| queue.refused);
    if ended && call.progress() > 0 {
        // The call returns what was sent before the end; the next call returns the error.
        return Ok(count(call.progress()));
    }
    if let Some(error) = call.process.pollables.socket(id)?.error
        && !(unix && error == Errno::ECONNRESET)
    {
        take_error(call, id);
        return Err(error.into());
    }
    if shut || !connected {
        return Err(Errno::EPIPE.into());
    }
    let found = call.process.pollables.queue(queue);
    let messages = found.is_some_and(crate::event::queue::Queue::has_messages);
    if found.is_none_or(|queue| queue.refused) {
        if unix || reset {
            return Err(Errno::EPIPE.into());
        }
        // The network accepts the bytes, and answers with a reset.
        let pollables = call.process.pollables.edit();
        pollables.socket_mut(id)?.reset = true;
        pollables.record_event(id, Event::State);
        call.note_change();
        return Ok(total(buffers).min(TRANSFER_MAX));
    }
    let until = deadline(call, timeout)?;
    if messages {
        send_message(call, queue, buffers, sender, nonblocking, until)
    } else {
        send_stream(call, queue, buffers, nonblocking, "send", until)
    }
}

/// Sends on a socket without a connection.
fn send_unconnected(call: &mut Call<'_, '_>, id: PollableId) -> CallResult {
    let unix = call.process.pollables.socket(id)?.is_unix();
    match take_error(call, id) {
        Some(error) => Err(error.into()),
        None => Err(if unix { Errno::ENOTCONN } else { Errno::EPIPE }.into()),
    }
}

fn send_message(
    call: &mut Call<'_, '_>,
    queue: QueueId,
    buffers: &[Buffer],
    sender: Sender,
    nonblocking: bool,
    until_ns: Option<u64>,
) -> CallResult {
    let size = total(buffers);
    let capacity = call.process.pollables.queue(queue).map_or(0, |queue| queue.capacity);
    // A message must fit into an empty queue.
    if size > count(capacity / 2) {
        return Err(Errno::EMSGSIZE.into());
    }
    let size = usize::try_from(size).unwrap_or(0);
    if !call.process.pollables.has_room_for(queue, size) {
        call.process.pollables.edit().note_starved(queue);
        if nonblocking || is_over(until_ns) {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "send", until_ns, look_ns: None }.into());
    }
    let done = copy_in(call, queue, buffers, 0, size)?;
    if done < size {
        call.process.pollables.edit().undo_write(queue, done);
        return Err(Errno::EFAULT.into());
    }
    call.process.pollables.edit().note_message(queue, size, sender);
    call.note_change();
    Ok(count(size))
}

pub(crate) fn send_stream(
    call: &mut Call<'_, '_>,
    queue: QueueId,
    buffers: &[Buffer],
    nonblocking: bool,
    name: &'static str,
    until_ns: Option<u64>,
) -> CallResult {
    let before = call.progress();
    let wanted = usize::try_from(total(buffers).min(TRANSFER_MAX)).unwrap_or(0);
    let found = call.process.pollables.queue(queue);
    if found.is_none_or(|queue| queue.refused) {
        if before == 0 {
            return Err(Errno::EPIPE.into());
        }
        if name == PIPE_WRITE {
            // Linux sends SIGPIPE for a pipe at once, although the call succeeds.
            call.raise_on_current(Signal::PIPE)?;
        }
        return Ok(count(before));
    }
    let left = wanted.saturating_sub(before);
    if left == 0 {
        return Ok(count(before));
    }
    let room = call.process.pollables.room(queue);
    // A write of at most a page to a pipe is atomic.
    let whole = found.is_some_and(crate::event::queue::Queue::is_pipe) && wanted <= PAGE_BYTES;
    let part = if whole && room < left { 0 } else { room.min(left) };
    let mut done = before;
    if part > 0 {
        match copy_in(call, queue, buffers, before, part) {
            Ok(0) => {}
            Ok(copied) => {
                done = done.saturating_add(copied);
                call.process.pollables.edit().note_written(queue);
                call.note_change();
                if copied < part {
                    return Ok(count(done));
                }
            }
            Err(Halt::Errno(_)) if before > 0 => return Ok(count(before)),
            Err(halt) => return Err(halt),
        }
    }
    if done == wanted {
        if count(wanted) < total(buffers) {
            // To the program the queue is full: an edge-triggered watcher waits for the next event.
            call.process.pollables.edit().note_starved(queue);
        }
        return Ok(count(done));
    }
    if !call.process.pollables.queue(queue).is_some_and(|queue| queue.starved) {
        call.process.pollables.edit().note_starved(queue);
    }
    if nonblocking || is_over(until_ns) {
        return if done > 0 { Ok(count(done)) } else { Err(Errno::EAGAIN.into()) };
    }
    Err(call.wait_with_progress(Wait { call: name, until_ns, look_ns: None }, done))
}

/// Copies up to `wanted` bytes from the buffers, skipping their first `skip` bytes, to the back of a queue; returns the
/// number of bytes. Fails if the first byte cannot be read.
pub(crate) fn copy_in(
    call: &mut Call<'_, '_>,
    queue: QueueId,
    buffers: &[Buffer],
    skip: usize,
    wanted: usize,
) -> Result<usize, Halt> {
    let may_block = call.may_wait_for_memory();
    let process = &mut *call.process;
    let mut user =
        UserMemory { machine: call.machine, space: &process.memory, inodes: process.overlay.inodes(), may_block };
    let pollables = process.pollables.edit();
    let mut done: usize = 0;
    for (address, len) in behind(buffers, skip) {
        let part = len.min(wanted.saturating_sub(done));
        if part == 0 {
            break;
        }
        match pollables.write(queue, part, |room| user.read(address, room)) {
            Ok(()) => done = done.saturating_add(part),
            Err(Halt::Errno(_)) if done > 0 => break,
            Err(halt) => {
                pollables.undo_write(queue, done);
                return Err(halt);
            }
        }
    }
    Ok(done)
}

/// The first `size` bytes of the buffers.
pub(crate) fn gather(call: &mut Call<'_, '_>, buffers: &[Buffer], size: usize) -> Result<Vec<u8>, Halt> {
    let mut bytes = vec![0; size];
    let mut rest = bytes.as_mut_slice();
    for (address, len) in behind(buffers, 0) {
        let (part, more) = rest.split_at_mut(len.min(rest.len()));
        call.user().read(address, part)?;
        rest = more;
    }
    Ok(bytes)
}

/// Sends bytes of the host's memory; returns their number. Those without space in a blocking socket's queue are not
/// sent.
pub(crate) fn send_bytes(call: &mut Call<'_, '_>, queue: QueueId, bytes: &[u8]) -> usize {
    let part = bytes.get(..call.process.pollables.room(queue).min(bytes.len())).unwrap_or_default();
    let pollables = call.process.pollables.edit();
    if part.is_empty() {
        pollables.note_starved(queue);
        return 0;
    }
    pollables.write_bytes(queue, part);
    pollables.note_written(queue);
    call.note_change();
    part.len()
}
