// SPDX-License-Identifier: MIT OR Apache-2.0
//! `send(2)`, `recv(2)` and the like, and `sendfile(2)`.

use super::sockets::{read_address, socket_of, write_address};
use super::{datagrams, netlink, remote, rights, transfer};
use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::PollableId;
use crate::event::queue::Sender;
use crate::fs::object::Object;
use crate::kernel::buffers::{Buffer, TRANSFER_MAX, read_vectors};
use crate::kernel::call::Call;
use crate::net::address::Address;
use crate::net::calls::receive::Receive;
use crate::pollables::table::PollableKind;

/// Most messages of one `sendmmsg` or `recvmmsg`.
const MESSAGES_MAX: u64 = 64;
/// Size of `struct mmsghdr`.
const MESSAGE_ENTRY_BYTES: u64 = 64;
/// Most bytes of a file that `sendfile` reads at a time.
const FILE_CHUNK_BYTES: usize = 64 << 10;

/// `struct msghdr`.
#[derive(Clone, Copy)]
struct Header {
    at: u64,
    name: u64,
    name_len: u64,
    vectors: u64,
    vector_count: u64,
    control: u64,
    control_len: u64,
}

fn read_header(call: &mut Call<'_, '_>, at: u64) -> Result<Header, Halt> {
    let [name, name_len, vectors, vector_count, control, control_len] = call.user().read_words(at)?;
    let name_len = u64::from(int(name_len).cast_unsigned());
    if vector_count > crate::kernel::buffers::VECTORS_MAX {
        return Err(Errno::EMSGSIZE.into());
    }
    Ok(Header { at, name, name_len, vectors, vector_count, control, control_len })
}

/// Sends to the socket's peer: `write(2)` and the like.
pub(crate) fn send(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], nonblocking: bool) -> CallResult {
    send_to(call, id, None, buffers, nonblocking)
}

/// Sends to the socket's peer. A datagram socket may send to `to` instead.
fn send_to(
    call: &mut Call<'_, '_>,
    id: PollableId,
    to: Option<Address>,
    buffers: &[Buffer],
    nonblocking: bool,
) -> CallResult {
    let socket = call.process.pollables.socket(id)?;
    if socket.domain == libc::AF_NETLINK {
        return netlink::send(call, id, buffers);
    }
    if socket.is_datagram() {
        return datagrams::send(call, id, to, buffers, nonblocking, Vec::new());
    }
    // A stream socket ignores the address, except that a Unix one must not be given any.
    if to.is_some() && socket.is_unix() && socket.kind == libc::SOCK_STREAM {
        return Err(if socket.is_connected() { Errno::EISCONN } else { Errno::EOPNOTSUPP }.into());
    }
    transfer::send(call, id, buffers, nonblocking)
}

fn check_send_flags(flags: i32) -> Result<(), Errno> {
    if flags & libc::MSG_OOB != 0 { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// `sendto(2)`.
pub(crate) fn sendto(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, flags, name, name_len] = call.args;
    let (id, nonblocking) = socket_of(call, fd)?;
    let flags = int(flags);
    check_send_flags(flags)?;
    let domain = call.process.pollables.socket(id)?.domain;
    let to = if name == 0 { None } else { Some(read_address(call, domain, name, name_len)?) };
    send_to(call, id, to, &[Buffer { address, len }], nonblocking || flags & libc::MSG_DONTWAIT != 0)
}

/// `sendmsg(2)`.
pub(crate) fn sendmsg(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, message, flags, ..] = call.args;
    send_message(call, fd, message, int(flags))
}

fn send_message(call: &mut Call<'_, '_>, fd: u64, message: u64, flags: i32) -> CallResult {
    let (id, nonblocking) = socket_of(call, fd)?;
    check_send_flags(flags)?;
    let header = read_header(call, message)?;
    let buffers = read_vectors(call, header.vectors, header.vector_count)?;
    let socket = call.process.pollables.socket(id)?;
    let (domain, unix, datagram) = (socket.domain, socket.is_unix(), socket.is_datagram());
    let output = socket.output;
    // Streams of other families ignore control messages.
    let sent = if unix { rights::read(call, header.control, header.control_len)? } else { Vec::new() };
    let to = match header.name {
        0 => None,
        _ if header.name_len == 0 => None,
        name => Some(read_address(call, domain, name, header.name_len)?),
    };
    let nonblocking = nonblocking || flags & libc::MSG_DONTWAIT != 0;
    if unix && datagram {
        return datagrams::send(call, id, to, &buffers, nonblocking, sent);
    }
    // Descriptors are attached to the first part of the data.
    let Some(queue) = output.filter(|_| !sent.is_empty() && call.progress() == 0) else {
        return send_to(call, id, to, &buffers, nonblocking);
    };
    rights::check(call, &sent)?;
    let before = call.process.pollables.queue(queue).map_or((0, 0), |queue| (queue.len(), queue.cost()));
    let result = send_to(call, id, to, &buffers, nonblocking);
    let after = call.process.pollables.queue(queue).map_or((0, 0), |queue| (queue.len(), queue.cost()));
    if after != before {
        rights::attach(call, queue, after.0.saturating_sub(before.0), sent);
    }
    result
}

fn receive_how(flags: i32, nonblocking: bool) -> Result<Receive, Errno> {
    if flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        return Err(if flags & libc::MSG_OOB != 0 { Errno::EINVAL } else { Errno::EAGAIN });
    }
    Ok(Receive {
        nonblocking: nonblocking || flags & libc::MSG_DONTWAIT != 0,
        peek: flags & libc::MSG_PEEK != 0,
        all: flags & libc::MSG_WAITALL != 0,
        truncate: flags & libc::MSG_TRUNC != 0,
    })
}

/// The sender's address, for `recvfrom`. Streams return none, unless the peer is bound to a name.
fn sender(call: &Call<'_, '_>, id: PollableId, of_message: Option<Sender>) -> Vec<u8> {
    if let Some(sender) = of_message {
        return sender.to_vec();
    }
    match call.process.pollables.socket(id) {
        Ok(socket) if socket.is_unix() && matches!(socket.peer, Address::Unix(_)) => socket.peer.encode(socket.domain),
        _ => Vec::new(),
    }
}

/// `recvfrom(2)`.
pub(crate) fn recvfrom(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, address, len, flags, name, name_len] = call.args;
    let (id, nonblocking) = socket_of(call, fd)?;
    let how = receive_how(int(flags), nonblocking)?;
    let received = transfer::receive(call, id, &[Buffer { address, len }], how)?;
    transfer::close_unclaimed(call, received.open);
    if name != 0 && name_len != 0 {
        let from = sender(call, id, received.sender);
        write_address(call, &from, name, name_len)?;
    }
    Ok(count(received.len))
}

/// `recvmsg(2)`.
pub(crate) fn recvmsg(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, message, flags, ..] = call.args;
    receive_message(call, fd, message, int(flags))
}

fn receive_message(call: &mut Call<'_, '_>, fd: u64, message: u64, flags: i32) -> CallResult {
    let (id, nonblocking) = socket_of(call, fd)?;
    let how = receive_how(flags, nonblocking)?;
    let header = read_header(call, message)?;
    let buffers = read_vectors(call, header.vectors, header.vector_count)?;
    let socket = call.process.pollables.socket(id)?;
    let wants_sender = socket.is_unix() && socket.option(libc::SOL_SOCKET, libc::SO_PASSCRED).unwrap_or(0) != 0;
    let received = transfer::receive(call, id, &buffers, how)?;
    let mut msg_flags = flags & libc::MSG_CMSG_CLOEXEC;
    let room = if header.control == 0 { 0 } else { header.control_len };
    let close_on_exec = flags & libc::MSG_CMSG_CLOEXEC != 0;
    let first = if wants_sender { rights::write_credentials(call, header.control, room) } else { Ok((0, true)) };
    let (first_len, first_fits) = match first {
        // As on Linux, credentials that cannot be written are left out without a note.
        Err(Halt::Errno(Errno::EFAULT)) => (0, true),
        Err(halt) => {
            // The received open files are no longer in the queue.
            transfer::close_unclaimed(call, received.open);
            return Err(halt);
        }
        Ok(first) => first,
    };
    let control = header.control.wrapping_add(first_len);
    let (second_len, second_fits) =
        rights::write(call, control, room.saturating_sub(first_len), received.open, close_on_exec)?;
    let control_len = first_len.saturating_add(second_len);
    if !(first_fits && second_fits) {
        msg_flags |= libc::MSG_CTRUNC;
    }
    if received.truncated {
        msg_flags |= libc::MSG_TRUNC;
    }
    let field = |offset: u64| header.at.checked_add(offset).ok_or(Errno::EFAULT);
    if header.name != 0 {
        let from = sender(call, id, received.sender);
        let room = usize::try_from(header.name_len).unwrap_or(0).min(from.len());
        call.user().write(header.name, from.get(..room).unwrap_or_default())?;
        call.user().write(field(8)?, &u32::try_from(from.len()).unwrap_or(0).to_le_bytes())?;
    }
    call.user().write(field(40)?, &control_len.to_le_bytes())?;
    call.user().write(field(48)?, &msg_flags.to_le_bytes())?;
    Ok(count(received.len))
}

/// `sendmmsg(2)`.
pub(crate) fn sendmmsg(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, messages, message_count, flags, ..] = call.args;
    for_each_message(call, messages, message_count, |call, at, _| send_message(call, fd, at, int(flags)))
}

/// `recvmmsg(2)`: waits for the first message only, as with MSG_WAITFORONE.
pub(crate) fn recvmmsg(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, messages, message_count, flags, timeout, _] = call.args;
    // The timeout is checked, but not used: the call does not wait for more.
    if timeout != 0 {
        crate::time::calls::clocks::read_duration(call, timeout)?;
    }
    for_each_message(call, messages, message_count, |call, at, first| {
        let flags = if first { int(flags) } else { int(flags) | libc::MSG_DONTWAIT };
        receive_message(call, fd, at, flags & !libc::MSG_WAITFORONE)
    })
}

/// Calls a function for each of several messages, until one fails. Only the first may wait.
fn for_each_message(
    call: &mut Call<'_, '_>,
    messages: u64,
    message_count: u64,
    mut each: impl FnMut(&mut Call<'_, '_>, u64, bool) -> CallResult,
) -> CallResult {
    let mut done: u64 = 0;
    for index in 0..u64::from(int(message_count).cast_unsigned()).min(MESSAGES_MAX) {
        let at = index.checked_mul(MESSAGE_ENTRY_BYTES).and_then(|offset| messages.checked_add(offset));
        let at = at.ok_or(Errno::EFAULT)?;
        match each(call, at, index == 0) {
            Ok(len) => {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                let slot = at.checked_add(56).ok_or(Errno::EFAULT)?;
                // A message has been sent or received, and cannot be again.
                call.commit();
                call.user().write(slot, &len.to_le_bytes())?;
                // If a later message fails, the call ends with the number so far.
                call.begin();
            }
            Err(Halt::Errno(_) | Halt::Wait(_)) if done > 0 => break,
            Err(halt) => return Err(halt),
        }
        done = done.saturating_add(1);
    }
    Ok(done)
}

/// `sendfile(2)`, from a file to a pipe or socket. At most 1 MiB a call.
pub(crate) fn sendfile(call: &mut Call<'_, '_>) -> CallResult {
    let [to, from, offset_at, len, ..] = call.args;
    let source = call.process.files.open_file(int(from))?;
    let target = call.process.files.open_file(int(to))?;
    if !source.is_readable() || !target.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let nonblocking = target.flags & libc::O_NONBLOCK != 0;
    let (object, start) = (source.object.clone(), source.offset);
    if !matches!(object, Object::Text { .. } | Object::Host(_) | Object::Memory { .. } | Object::Zero) {
        return Err(Errno::EINVAL.into());
    }
    let Object::Pollable(id) = target.object else { return Err(Errno::EINVAL.into()) };
    let start = if offset_at == 0 { start } else { call.user().read_words::<1>(offset_at)?[0] };
    if start.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let wanted = len.min(TRANSFER_MAX);
    if call.process.pollables.socket(id).is_ok_and(|socket| socket.remote.is_some()) {
        let done = send_file_remote(call, id, &object, start, wanted, nonblocking)?;
        return file_sent(call, from, offset_at, start, done);
    }
    let (queue, reset) = match call.process.pollables.kind(id) {
        Some(PollableKind::PipeWriter(queue) | PollableKind::PipeBoth(queue)) => (*queue, false),
        Some(PollableKind::Socket(socket)) if socket.kind == libc::SOCK_STREAM => {
            (socket.output.ok_or(Errno::ENOTCONN)?, socket.shut_write || socket.reset)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if reset || call.process.pollables.queue(queue).is_none_or(|queue| queue.refused) {
        return Err(Errno::EPIPE.into());
    }
    let mut done: u64 = 0;
    let mut chunk = Vec::new();
    while done < wanted {
        let room = call.process.pollables.room(queue).min(FILE_CHUNK_BYTES);
        let part = usize::try_from(wanted.saturating_sub(done)).unwrap_or(0).min(room);
        if part == 0 {
            transfer::send_bytes(call, queue, &[]);
            break;
        }
        chunk.resize(part, 0);
        let got = match object.read_at(call, start.saturating_add(done), &mut chunk) {
            // Bytes that have been sent cannot be sent again.
            Err(Halt::Errno(_)) if done > 0 => break,
            got => got?,
        };
        let sent = transfer::send_bytes(call, queue, chunk.get(..got).unwrap_or_default());
        done = done.saturating_add(count(sent));
        if got < part || sent < got {
            break;
        }
    }
    if done == 0 && wanted > 0 && call.process.pollables.room(queue) == 0 {
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "sendfile", until_ns: None, look_ns: None }.into());
    }
    file_sent(call, from, offset_at, start, done)
}

/// Stores the position behind the bytes that `sendfile` sent.
fn file_sent(call: &mut Call<'_, '_>, from: u64, offset_at: u64, start: u64, done: u64) -> CallResult {
    let end = start.saturating_add(done);
    if offset_at != 0 {
        call.commit();
        call.user().write_words(offset_at, &[end])?;
    } else if done > 0 {
        call.process.files.edit().open_file_mut(int(from))?.offset = end;
    }
    Ok(done)
}

/// Sends a part of a file to a remote peer; returns the number of bytes.
fn send_file_remote(
    call: &mut Call<'_, '_>,
    id: PollableId,
    object: &Object,
    start: u64,
    wanted: u64,
    nonblocking: bool,
) -> CallResult {
    let mut done: u64 = 0;
    let mut chunk = Vec::new();
    while done < wanted {
        let part = usize::try_from(wanted.saturating_sub(done)).unwrap_or(0).min(FILE_CHUNK_BYTES);
        chunk.resize(part, 0);
        let got = match object.read_at(call, start.saturating_add(done), &mut chunk) {
            // Bytes that have been sent cannot be sent again.
            Err(Halt::Errno(_)) if done > 0 => break,
            got => got?,
        };
        if got == 0 {
            break;
        }
        match remote::send_bytes(call, id, chunk.get(..got).unwrap_or_default()) {
            Ok(sent) => done = done.saturating_add(count(sent)),
            Err(_) if done > 0 => break,
            Err(Errno::EAGAIN) if !nonblocking => {
                return Err(Wait { call: "sendfile", until_ns: None, look_ns: None }.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}
