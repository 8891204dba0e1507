// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connects with, sends to and receives from remote hosts, as far as the program's list allows.
//!
//! Bytes are copied between the program's memory and the host's socket, a piece at a time, and buffered nowhere in
//! between.

use std::net::SocketAddr;

use crate::base::arguments::count;
use crate::base::clock::{self, is_over};
use crate::base::context::Stream;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::ids::PollableId;
use crate::event::events::Event;
use crate::kernel::buffers::{Buffer, TRANSFER_MAX, behind, total};
use crate::kernel::call::Call;
use crate::net::address::Address;
use crate::net::allow_list::{Destination, OWN_ADDRESS};
use crate::net::calls::receive::{Receive, Received, deadline, take_error};

/// Bytes copied at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Updates the state of a socket whose connect is not finished.
pub(crate) fn refresh(call: &mut Call<'_, '_>, id: PollableId) {
    if call.process.pollables.socket(id).is_ok_and(crate::net::socket::Socket::is_dialing) {
        call.process.poll_remotes();
    }
}

/// The destination that an address stands for, if the program may connect to it.
pub(crate) fn find(call: &Call<'_, '_>, to: &Address) -> Option<Destination> {
    call.process.shared.network.find(to.of_network()?)
}

/// Begins to connect, and waits for the result unless the socket is non-blocking.
pub(crate) fn connect(
    call: &mut Call<'_, '_>,
    id: PollableId,
    to: Address,
    target: Destination,
    nonblocking: bool,
) -> CallResult {
    let process = &mut *call.process;
    process.connects.made = process.connects.made.saturating_add(1);
    let mounts = &process.shared.mounts;
    let pollables = process.pollables.edit();
    if let Some(port) = pollables.port_without_address(id)? {
        let socket = pollables.socket_mut(id)?;
        let domain = socket.domain;
        socket.local = if to.is_loopback() {
            Address::loopback(domain, port)
        } else {
            Address::V4(OWN_ADDRESS, port).in_family(domain)
        };
    }
    pollables.socket_mut(id)?.peer = to;
    pollables.dial(id, target, || mounts.permit())?;
    call.note_change();
    if nonblocking {
        return Err(Errno::EINPROGRESS.into());
    }
    continue_connect(call, id, nonblocking)
}

/// Continues a connect.
pub(crate) fn continue_connect(call: &mut Call<'_, '_>, id: PollableId, nonblocking: bool) -> CallResult {
    let socket = call.process.pollables.socket(id)?;
    if let Some(remote) = socket.remote.as_ref().filter(|remote| remote.open().is_none()) {
        if nonblocking {
            return Err(Errno::EALREADY.into());
        }
        let look_ns = remote.look_ns(clock::now_ns());
        let timeout = socket.send_timeout_ns;
        let until_ns = deadline(call, timeout)?;
        if is_over(until_ns) {
            return Err(Errno::EINPROGRESS.into());
        }
        return Err(Wait { call: "connect", until_ns, look_ns }.into());
    }
    let socket = call.process.pollables.edit().socket_mut(id)?;
    socket.connecting = false;
    if socket.is_connected() {
        return Ok(0);
    }
    // The error, or, if the program has already got that, an error that says that there was one.
    Err(take_error(call, id).unwrap_or(Errno::ECONNABORTED).into())
}

/// Refuses a connect that the list does not allow, and logs it for the tenant.
pub(crate) fn refuse(call: &mut Call<'_, '_>, to: SocketAddr) -> Errno {
    let process = &mut *call.process;
    process.connects.refused = process.connects.refused.saturating_add(1);
    let network = &process.shared.network;
    let line = format!("mayfly: the program may not connect to {}: it is not in `outbound`\n", network.describe(to));
    call.context.output.write(Stream::Stderr, line.as_bytes());
    // As without a network, or as with a firewall that blocks the connect.
    if call.process.shared.network.is_empty() { Errno::ENETUNREACH } else { Errno::EACCES }
}

/// Receives from a remote peer.
pub(crate) fn receive(
    call: &mut Call<'_, '_>,
    id: PollableId,
    buffers: &[Buffer],
    how: Receive,
) -> Result<Received, Halt> {
    let timeout = call.process.pollables.socket(id)?.receive_timeout_ns;
    let until_ns = deadline(call, timeout)?;
    let mut done = call.progress();
    let wanted = usize::try_from(total(buffers).min(TRANSFER_MAX)).unwrap_or(0);
    let mut piece = vec![0; wanted.saturating_sub(done).min(PIECE_BYTES)];
    while done < wanted {
        let part = piece.len().min(wanted.saturating_sub(done));
        let room = piece.get_mut(..part).unwrap_or_default();
        let socket = call.process.pollables.socket(id)?;
        let received = match socket.stream() {
            Some(stream) => stream.receive(room, how.peek),
            None => Err(Errno::EAGAIN),
        };
        match received {
            Ok(0) => return Ok(Received::bytes(done)),
            Ok(got) => {
                // The bytes have left the host's socket.
                call.commit();
                if !how.truncate {
                    let bytes = piece.get(..got).unwrap_or_default();
                    match scatter(call, buffers, done, bytes) {
                        // Bytes that cannot be written to the program's buffers are lost.
                        Err(Halt::Errno(_)) if done > 0 => return Ok(Received::bytes(done)),
                        other => other?,
                    }
                }
                done = done.saturating_add(got);
                // Another peek would return the same bytes.
                if how.peek {
                    break;
                }
            }
            Err(Errno::EAGAIN) => {
                let enough = done > 0 && !how.all;
                if enough || ((how.nonblocking || is_over(until_ns)) && done > 0) {
                    break;
                }
                if how.nonblocking || is_over(until_ns) {
                    return Err(Errno::EAGAIN.into());
                }
                return Err(call.wait_with_progress(Wait { call: "recv", until_ns, look_ns: None }, done));
            }
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Received::bytes(done))
}

/// Copies to the buffers, skipping their first `skip` bytes.
fn scatter(call: &mut Call<'_, '_>, buffers: &[Buffer], skip: usize, bytes: &[u8]) -> Result<(), Halt> {
    let mut rest = bytes;
    for (address, len) in behind(buffers, skip) {
        let (part, more) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        if part.is_empty() {
            break;
        }
        call.user().write(address, part)?;
        rest = more;
    }
    Ok(())
}

/// Sends to a remote peer.
pub(crate) fn send(call: &mut Call<'_, '_>, id: PollableId, buffers: &[Buffer], nonblocking: bool) -> CallResult {
    let socket = call.process.pollables.socket(id)?;
    let timeout = socket.send_timeout_ns;
    if socket.shut_write && call.progress() == 0 {
        return Err(Errno::EPIPE.into());
    }
    let until_ns = deadline(call, timeout)?;
    let mut done = call.progress();
    let wanted = usize::try_from(total(buffers).min(TRANSFER_MAX)).unwrap_or(0);
    let mut piece = vec![0; wanted.saturating_sub(done).min(PIECE_BYTES)];
    while done < wanted {
        let filled = match fetch(call, buffers, done, &mut piece) {
            Ok(filled) => filled,
            Err(Halt::Errno(_)) if done > 0 => break,
            Err(halt) => return Err(halt),
        };
        match send_bytes(call, id, piece.get(..filled).unwrap_or_default()) {
            Ok(sent) => done = done.saturating_add(sent),
            Err(Errno::EAGAIN) => {
                if !nonblocking && !is_over(until_ns) {
                    return Err(call.wait_with_progress(Wait { call: "send", until_ns, look_ns: None }, done));
                }
                if done > 0 {
                    break;
                }
                return Err(Errno::EAGAIN.into());
            }
            // The call returns what was sent before; the next call returns the error.
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count(done))
}

/// Copies from the buffers, skipping their first `skip` bytes; returns the number of bytes.
fn fetch(call: &mut Call<'_, '_>, buffers: &[Buffer], skip: usize, piece: &mut [u8]) -> Result<usize, Halt> {
    let mut filled: usize = 0;
    for (address, len) in behind(buffers, skip) {
        let room = piece.get_mut(filled..).unwrap_or_default();
        let part = room.len().min(len);
        let Some(room) = room.get_mut(..part).filter(|room| !room.is_empty()) else { break };
        match call.user().read(address, room) {
            Ok(()) => filled = filled.saturating_add(part),
            Err(Halt::Errno(_)) if filled > 0 => break,
            Err(halt) => return Err(halt),
        }
    }
    Ok(filled)
}

/// Sends bytes of the host's memory; returns their number.
pub(crate) fn send_bytes(call: &mut Call<'_, '_>, id: PollableId, bytes: &[u8]) -> Result<usize, Errno> {
    match call.process.pollables.socket(id)?.stream() {
        Some(stream) => stream.send(bytes),
        None => Err(Errno::EAGAIN),
    }
}

/// `shutdown`.
pub(crate) fn shut_down(call: &mut Call<'_, '_>, id: PollableId, read: bool, write: bool) -> CallResult {
    let socket = call.process.pollables.socket(id)?;
    socket.stream().ok_or(Errno::ENOTCONN)?.shut_down(read, write)?;
    let pollables = call.process.pollables.edit();
    let socket = pollables.socket_mut(id)?;
    socket.shut_read |= read;
    socket.shut_write |= write;
    pollables.record_event(id, Event::State);
    call.note_change();
    Ok(0)
}
