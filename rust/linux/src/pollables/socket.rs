// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets: binding, connections inside the program, and closing.
//!
//! A listener is reached from inside the program and from outside the machine alike. Every address is this machine's,
//! except those that the program may connect to: see `remote.rs`. Sources: socket(7), ip(7), ipv6(7), tcp(7), unix(7).

use std::sync::Arc;

use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::event::events::Event;
use crate::event::queue::{End, Queue};
use crate::net::address::Address;
use crate::net::socket::{Backlog, Phase, Socket};
use crate::pollables::table::{PollableKind, Pollables};

impl Pollables {
    /// Connects two sockets with two queues.
    pub(crate) fn join(&mut self, one: PollableId, other: PollableId, capacity: usize) {
        let (mut queues, messages) =
            ([None, None], self.socket(one).is_ok_and(|socket| socket.kind != libc::SOCK_STREAM));
        for (slot, (reader, writer)) in queues.iter_mut().zip([(one, other), (other, one)]) {
            let (reader, writer) = (End::Inside(reader), End::Inside(writer));
            let queue = if messages {
                Queue::messages(capacity, reader, writer)
            } else {
                Queue::stream(capacity, reader, writer)
            };
            *slot = Some(self.add_queue(queue));
        }
        let [to_one, to_other] = queues;
        for (id, input, output) in [(one, to_one, to_other), (other, to_other, to_one)] {
            if let Ok(socket) = self.socket_mut(id) {
                socket.phase = Phase::Connected;
                socket.input = input;
                socket.output = output;
            }
        }
    }

    /// Binds a socket to an address.
    pub(crate) fn bind(&mut self, id: PollableId, address: Address) -> Result<(), Errno> {
        let socket = self.socket(id)?;
        // A datagram socket of the network is bound by its first message, too; a Unix one may be connected already.
        let has_address = match (socket.is_datagram(), socket.is_inet()) {
            (true, true) => socket.local.port() != Some(0),
            (true, false) => false,
            (false, _) => socket.is_connected(),
        };
        if socket.bound || has_address || socket.remote.is_some() {
            return Err(Errno::EINVAL);
        }
        let domain = socket.domain;
        let address = match address {
            Address::Unnamed => Address::Unix(self.free_name()),
            inet if inet.port() == Some(0) => {
                let port = self.free_port();
                inet.with_port(port)
            }
            other => other,
        };
        let socket = self.socket(id)?;
        let shares = |socket: &Socket, name| socket.option(libc::SOL_SOCKET, name).unwrap_or(0) != 0;
        let taken = self.ids().filter(|&other| other != id).filter_map(|other| self.socket(other).ok()).any(|other| {
            let only_6 = |socket: &Socket| {
                socket.domain == libc::AF_INET6
                    && socket.option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).unwrap_or(0) != 0
            };
            let apart = other.domain != domain && (only_6(other) || only_6(socket));
            let reuse =
                shares(other, libc::SO_REUSEADDR) && shares(socket, libc::SO_REUSEADDR) && !other.is_listening();
            let both = shares(other, libc::SO_REUSEPORT) && shares(socket, libc::SO_REUSEPORT);
            // A path that has a file is free as soon as the file is removed, and taken as long as it exists.
            let has_address = other.bound || (other.is_datagram() && other.local.port().is_some_and(|port| port != 0));
            has_address
                && other.node.is_none()
                && other.kind == socket.kind
                && !apart
                && other.local.conflicts_with(&address)
                && (domain == libc::AF_UNIX || !(reuse || both))
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        let socket = self.socket_mut(id)?;
        socket.local = address;
        socket.bound = true;
        if socket.is_datagram() { self.inbox(id).map(drop) } else { Ok(()) }
    }

    /// The port of a network socket that is about to connect and has no address yet: an unused one, or the one that it
    /// is bound to on all addresses.
    pub(crate) fn port_without_address(&mut self, id: PollableId) -> Result<Option<u16>, Errno> {
        let socket = self.socket(id)?;
        match (socket.bound, socket.local.is_any()) {
            (false, _) => Ok(Some(self.free_port())),
            (true, true) => Ok(socket.local.port()),
            (true, false) => Ok(None),
        }
    }

    /// Picks an unused name for an unbound Unix socket: a NUL and five hexadecimal digits.
    fn free_name(&mut self) -> Arc<[u8]> {
        self.made = self.made.saturating_add(1);
        [b"\0".as_slice(), format!("{:05x}", self.made & 0xf_ffff).as_bytes()].concat().into()
    }

    /// The listener at `address`, for sockets of this kind.
    pub(crate) fn listener(&self, kind: i32, address: &Address) -> Option<PollableId> {
        let to_v4 = address.of_network().is_some_and(|address| address.is_ipv4());
        let takes = |socket: &Socket| {
            socket.kind == kind
                && socket.node.is_none()
                && socket.local.takes(address)
                && !(to_v4 && socket.is_for_v6_alone())
        };
        self.listeners.iter().copied().find(|&id| self.socket(id).is_ok_and(takes))
    }

    /// Queues a connection for `listener` to accept; `peer` is its peer's address.
    pub(crate) fn queue_connection(
        &mut self,
        listener: PollableId,
        local: Address,
        peer: Address,
    ) -> Result<PollableId, Errno> {
        let socket = self.socket(listener)?;
        match &socket.phase {
            Phase::Listening(backlog) if backlog.is_full() || self.is_at_capacity() => return Err(Errno::EAGAIN),
            Phase::Listening(_) => {}
            _ => return Err(Errno::ECONNREFUSED),
        }
        let local = if socket.local.is_any() { local } else { socket.local.clone() };
        let accepted = socket.accepted(local, peer);
        let id = self.add(PollableKind::Socket(Box::new(accepted)));
        if let Phase::Listening(backlog) = &mut self.socket_mut(listener)?.phase {
            backlog.waiting.push_back(id);
        }
        self.record_event(listener, Event::Input);
        Ok(id)
    }

    /// Whether the backlog is full.
    pub(crate) fn is_full(&self, listener: PollableId) -> bool {
        if self.is_at_capacity() {
            return true;
        }
        self.socket(listener)
            .is_ok_and(|socket| matches!(&socket.phase, Phase::Listening(backlog) if backlog.is_full()))
    }

    /// `listen`.
    pub(crate) fn listen(&mut self, id: PollableId, most: i32) -> Result<(), Errno> {
        if !self.socket(id)?.bound {
            let socket = self.socket(id)?;
            if socket.is_unix() {
                return Err(Errno::EINVAL);
            }
            let any = Address::any(socket.domain);
            self.bind(id, any)?;
        }
        let socket = self.socket_mut(id)?;
        if socket.remote.is_some() {
            return Err(Errno::EINVAL);
        }
        match std::mem::replace(&mut socket.phase, Phase::Idle) {
            Phase::Idle => {
                socket.phase = Phase::Listening(Backlog::new(most));
                self.listeners.push(id);
                self.record_event(id, Event::State);
            }
            Phase::Listening(backlog) => socket.phase = Phase::Listening(backlog.limited(most)),
            Phase::Connected => {
                socket.phase = Phase::Connected;
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }

    /// Closes a socket whose last descriptor is gone, or that was never accepted.
    pub(crate) fn close_socket(&mut self, id: PollableId, socket: &Socket) {
        if socket.remote.is_some() {
            self.hang_up(id);
        }
        if let Phase::Listening(backlog) = &socket.phase {
            self.listeners.retain(|&listener| listener != id);
            for &waiting in &backlog.waiting {
                self.close(waiting);
            }
        }
        self.leave_resolver(socket);
        // Closing a socket with unread input resets the connection, and so does SO_LINGER with a time of 0.
        let unread = socket.input.and_then(|queue| self.queue(queue)).is_some_and(|queue| !queue.is_empty());
        let unread = unread || socket.resets_when_closed();
        if let Some(output) = socket.output {
            if let (true, false, Some(End::Inside(peer))) =
                (unread, socket.is_datagram(), self.queue(output).map(|queue| queue.reader))
                && let Ok(peer) = self.socket_mut(peer)
            {
                peer.error = Some(Errno::ECONNRESET);
                peer.reset = true;
            }
            self.close_writer(output);
        }
        if let Some(input) = socket.input {
            self.close_reader(input);
        }
        if let Some(connection) = socket.connection {
            self.inbound.left(connection);
        }
    }

    /// `shutdown`.
    pub(crate) fn shut_down(&mut self, id: PollableId, read: bool, write: bool) -> Result<(), Errno> {
        let socket = self.socket_mut(id)?;
        if socket.is_datagram() {
            // As on Linux, it takes effect on a socket of the network without a peer, too: threads that wait return.
            socket.shut_read |= read;
            socket.shut_write |= write;
            let is_error = socket.is_inet() && !socket.is_connected();
            self.record_event(id, Event::State);
            return if is_error { Err(Errno::ENOTCONN) } else { Ok(()) };
        }
        match socket.phase {
            Phase::Connected => {}
            // Ends listening.
            Phase::Listening(_) if !socket.is_unix() && read => {
                let Phase::Listening(backlog) = std::mem::replace(&mut socket.phase, Phase::Idle) else {
                    return Ok(());
                };
                self.listeners.retain(|&listener| listener != id);
                for waiting in backlog.waiting {
                    self.close(waiting);
                }
                self.record_event(id, Event::State);
                return Ok(());
            }
            _ => return Err(Errno::ENOTCONN),
        }
        socket.shut_read |= read;
        socket.shut_write |= write;
        let (input, output, unix) = (socket.input, socket.output, socket.is_unix());
        if write && let Some(output) = output {
            self.finish(output);
        }
        if read
            && unix
            && let Some(input) = input
        {
            self.refuse(input);
        }
        self.record_event(id, Event::State);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_encoding() {
        for (domain, address) in [
            (libc::AF_INET, Address::V4([127, 0, 0, 1], 8080)),
            (libc::AF_INET6, Address::V6([7; 16], 65_535)),
            (libc::AF_UNIX, Address::Unix(b"/tmp/socket\0".as_slice().into())),
            (libc::AF_UNIX, Address::Unix(b"\0abstract".as_slice().into())),
            (libc::AF_UNIX, Address::Unnamed),
        ] {
            assert_eq!(Address::decode(domain, &address.encode(domain)), Ok(address));
        }
        assert_eq!(Address::decode(libc::AF_INET, &[2, 0, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(Address::decode(libc::AF_INET, &[9; 16]), Err(Errno::EAFNOSUPPORT));
        assert_eq!(Address::decode(libc::AF_UNIX, &[1; 200]), Err(Errno::EINVAL));
    }

    #[test]
    fn a_listener_on_all_addresses_takes_each() {
        let to = Address::V4([127, 0, 0, 1], 80);
        assert!(Address::any(libc::AF_INET).with_port(80).takes(&to));
        assert!(Address::any(libc::AF_INET6).with_port(80).takes(&to));
        assert!(!Address::V4([127, 0, 0, 2], 80).takes(&to));
        assert!(!Address::V4([127, 0, 0, 1], 81).takes(&to));
    }
}
