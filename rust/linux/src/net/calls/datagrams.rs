// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connects datagram sockets, and sends from them: udp(7), unix(7), and see `pollables/datagrams.rs`.
//!
//! Datagrams reach the program's own sockets, and its name server. The list of what the program may connect to is one
//! of TCP ports: a datagram to any other host is refused, which the program's log says once for each socket.

use std::net::SocketAddr;

use super::transfer::{copy_in, gather};
use super::{names, rights};
use crate::base::arguments::count;
use crate::base::clock::is_over;
use crate::base::context::Stream;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::{OpenId, PollableId, QueueId};
use crate::event::events::Event;
use crate::event::queue::{End, MESSAGE_COST, Sender};
use crate::kernel::buffers::{Buffer, total};
use crate::kernel::call::Call;
use crate::net::address::Address;
use crate::net::calls::receive::{deadline, take_error};
use crate::net::resolver;
use crate::net::socket::CONNECTION_BYTES;

/// Largest datagram of IPv4, and of IPv6.
const BYTES_MAX: u64 = 65_507;
const BYTES_MAX_6: u64 = 65_527;
/// Default of SO_SNDBUF, and what of it a message of a Unix socket cannot have.
const SEND_BUFFER: i32 = 212_992;
const SEND_BUFFER_SPARE: u64 = 32;

/// `connect(2)` of a datagram socket.
pub(crate) fn connect(call: &mut Call<'_, '_>, id: PollableId, to: Address) -> CallResult {
    if call.process.pollables.socket(id)?.is_unix() {
        let receiver = names::receiver(call, &to)?;
        let pollables = call.process.pollables.edit();
        if !pollables.may_send(id, receiver) {
            return Err(Errno::EPERM.into());
        }
        pollables.connect_to_socket(id, receiver)?;
        call.note_change();
        return Ok(0);
    }
    let (to, is_inside) = destination(call, id, to)?;
    if !is_inside && !to.of_network().is_some_and(|to| call.process.shared.network.knows(to.ip())) {
        return Err(Errno::ENETUNREACH.into());
    }
    call.process.pollables.edit().connect_to_address(id, to, is_inside)?;
    call.note_change();
    Ok(0)
}

/// AF_UNSPEC: the socket forgets its peer.
pub(crate) fn disconnect(call: &mut Call<'_, '_>, id: PollableId) -> CallResult {
    call.process.pollables.edit().disconnect(id)?;
    call.note_change();
    Ok(0)
}

/// Where an address leads, and whether that is this machine.
fn destination(call: &Call<'_, '_>, id: PollableId, to: Address) -> Result<(Address, bool), Errno> {
    let socket = call.process.pollables.socket(id)?;
    let to = if to.is_any() { to.loopback_beside(socket.domain, to.port().unwrap_or(0)) } else { to };
    // A socket for IPv6 alone has no way to IPv4 addresses.
    if to.is_mapped() && socket.is_for_v6_alone() {
        return Err(Errno::ENETUNREACH);
    }
    let is_inside = to.is_loopback();
    Ok((to, is_inside))
}

/// Sends a datagram to the socket's peer, or to `to`. `open`: the open files that it carries.
pub(crate) fn send(
    call: &mut Call<'_, '_>,
    id: PollableId,
    to: Option<Address>,
    buffers: &[Buffer],
    nonblocking: bool,
    open: Vec<OpenId>,
) -> CallResult {
    if call.process.pollables.socket(id)?.is_unix() {
        send_to_socket(call, id, to, buffers, nonblocking, open)
    } else {
        send_to_address(call, id, to, buffers)
    }
}

/// Sends from a socket of the network. It never waits: a message that finds no space is lost.
fn send_to_address(call: &mut Call<'_, '_>, id: PollableId, to: Option<Address>, buffers: &[Buffer]) -> CallResult {
    let size = total(buffers);
    let socket = call.process.pollables.socket(id)?;
    let (is_connected, shut_write, domain) = (socket.is_connected(), socket.shut_write, socket.domain);
    let to = match to {
        Some(to) => to,
        None if is_connected => socket.peer.clone(),
        None => return Err(if size > BYTES_MAX_6 { Errno::EMSGSIZE } else { Errno::EDESTADDRREQ }.into()),
    };
    if to.port() == Some(0) {
        return Err(Errno::EINVAL.into());
    }
    let (to, is_inside) = destination(call, id, to)?;
    let is_v4 = to.of_network().is_some_and(|to| to.is_ipv4());
    if size > if is_v4 { BYTES_MAX } else { BYTES_MAX_6 } {
        return Err(Errno::EMSGSIZE.into());
    }
    if let Some(error) = take_error(call, id) {
        return Err(error.into());
    }
    if shut_write {
        return Err(Errno::EPIPE.into());
    }
    if !is_inside {
        return Err(refuse(call, id, &to)?.into());
    }
    let socket = call.process.pollables.socket(id)?;
    if socket.input.is_none() || socket.local.port() == Some(0) {
        call.process.pollables.edit().prepare_to_send(id)?;
        call.begin();
    }
    let pollables = &call.process.pollables;
    let socket = pollables.socket(id)?;
    let from = match &socket.local {
        any if any.is_any() => to.loopback_beside(domain, any.port().unwrap_or(0)),
        local => local.clone(),
    };
    let is_peer = is_connected && socket.peer == to;
    let learns_errors = is_peer || wants_errors(socket);
    let receiver = pollables.datagram_receiver(&to, &from);
    let has_address = |receiver| pollables.socket(receiver).is_ok_and(|socket| !socket.local.is_any());
    // The name server is at this very address, unless a socket of the program is.
    if to.of_network() == resolver::ADDRESS.of_network() && !receiver.is_some_and(has_address) {
        return ask_resolver(call, id, buffers, to.as_sender(domain));
    }
    match receiver {
        Some(receiver) => {
            let receiver = pollables.socket(receiver)?;
            let (queue, sender) = (receiver.input, from.as_sender(receiver.domain));
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if let Some(queue) = queue.filter(|&queue| pollables.has_room_for(queue, size)) {
                put(call, queue, buffers, size, sender, Vec::new())?;
            }
        }
        None if learns_errors => {
            let pollables = call.process.pollables.edit();
            pollables.socket_mut(id)?.error = Some(Errno::ECONNREFUSED);
            pollables.record_event(id, Event::State);
            call.note_change();
        }
        None => {}
    }
    Ok(size)
}

/// Whether a socket learns that nothing has received a message, although it is not connected.
fn wants_errors(socket: &crate::net::socket::Socket) -> bool {
    let is_set = |level, name| socket.option(level, name).unwrap_or(0) != 0;
    is_set(libc::IPPROTO_IP, libc::IP_RECVERR) || is_set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
}

/// Asks the name server, whose answer is there at once.
fn ask_resolver(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], sender: Sender) -> CallResult {
    let size = total(buffers);
    // A longer message is no question.
    if size <= count(resolver::QUESTION_MAX) {
        let question = gather(call, buffers, usize::try_from(size).unwrap_or(0))?;
        if let Some(answer) = resolver::answer(&call.process.shared.network, &question) {
            call.process.pollables.edit().deliver(id, &answer, sender)?;
            call.note_change();
        }
    }
    Ok(size)
}

/// Refuses to send to another host, and says so in the log.
fn refuse(call: &mut Call<'_, '_>, id: PollableId, to: &Address) -> Result<Errno, Errno> {
    let process = &mut *call.process;
    process.connects.refused = process.connects.refused.saturating_add(1);
    let network = &process.shared.network;
    if !process.pollables.socket(id)?.was_refused {
        let to: SocketAddr = to.of_network().ok_or(Errno::ENETUNREACH)?;
        let line = format!(
            "mayfly: the program may not send datagrams to {}: `outbound` is for TCP alone\n",
            network.describe(to)
        );
        call.context.output.write(Stream::Stderr, line.as_bytes());
        process.pollables.edit().socket_mut(id)?.was_refused = true;
    }
    Ok(if network.is_empty() { Errno::ENETUNREACH } else { Errno::EACCES })
}

/// Sends from a Unix socket. It waits while the receiver's queue is full.
fn send_to_socket(
    call: &mut Call<'_, '_>,
    id: PollableId,
    to: Option<Address>,
    buffers: &[Buffer],
    nonblocking: bool,
    open: Vec<OpenId>,
) -> CallResult {
    let size = total(buffers);
    let socket = call.process.pollables.socket(id)?;
    let (output, shut_write, timeout) = (socket.output, socket.shut_write, socket.send_timeout_ns);
    let (sender, buffer) = (socket.local.as_sender(socket.domain), socket.option(libc::SOL_SOCKET, libc::SO_SNDBUF));
    if to.is_none() && output.is_none() {
        return Err(Errno::ENOTCONN.into());
    }
    let most = u64::try_from(buffer.unwrap_or(SEND_BUFFER)).unwrap_or(0).saturating_sub(SEND_BUFFER_SPARE);
    // A larger one would fit into no receiver's queue, and would wait for ever.
    if size > most.min((CONNECTION_BYTES - MESSAGE_COST) as u64) {
        return Err(Errno::EMSGSIZE.into());
    }
    if let Some(error) = take_error(call, id) {
        return Err(error.into());
    }
    if shut_write {
        return Err(Errno::EPIPE.into());
    }
    let receiver = match (to, output) {
        (Some(to), _) => names::receiver(call, &to)?,
        (None, output) => match output.and_then(|output| call.process.pollables.queue(output)).map(|it| it.reader) {
            Some(End::Inside(receiver)) => receiver,
            _ => {
                // Its peer is gone.
                disconnect(call, id)?;
                return Err(Errno::ECONNREFUSED.into());
            }
        },
    };
    let pollables = &call.process.pollables;
    if !pollables.may_send(id, receiver) {
        return Err(Errno::EPERM.into());
    }
    let receiver = pollables.socket(receiver)?;
    if receiver.shut_read {
        return Err(Errno::EPIPE.into());
    }
    let queue = receiver.input.ok_or(Errno::ECONNREFUSED)?;
    let wanted = usize::try_from(size).unwrap_or(usize::MAX);
    if !pollables.has_room_for(queue, wanted) {
        let until_ns = deadline(call, timeout)?;
        if nonblocking || is_over(until_ns) {
            return Err(Errno::EAGAIN.into());
        }
        return Err(Wait { call: "send", until_ns, look_ns: None }.into());
    }
    put(call, queue, buffers, wanted, sender, open)?;
    Ok(size)
}

/// Puts a message of the program's into a queue that has space for it.
fn put(
    call: &mut Call<'_, '_>,
    queue: QueueId,
    buffers: &[Buffer],
    size: usize,
    sender: Sender,
    open: Vec<OpenId>,
) -> Result<(), Halt> {
    rights::check(call, &open)?;
    let done = copy_in(call, queue, buffers, 0, size)?;
    let pollables = call.process.pollables.edit();
    if done < size {
        pollables.undo_write(queue, done);
        return Err(Errno::EFAULT.into());
    }
    pollables.note_message(queue, size, sender);
    if !open.is_empty() {
        rights::attach(call, queue, size, open);
    }
    call.note_change();
    Ok(())
}
