// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that arrive from outside the machine at the program's application, and the embedder's end of them.
//! `application.rs` says which listener that is.

use std::net::{IpAddr, SocketAddr};

use crate::base::ids::ConnectionId;
use crate::event::queue::{End, Queue};
use crate::net::address::Address;
use crate::net::inbound::{InboundConnection, NotListening, OutputState};
use crate::pollables::table::Pollables;

/// Most bytes that a program has written to a connection and the embedder has not taken; then writing waits.
const OUTPUT_BYTES: usize = 1 << 20;
/// Most connections from outside at a time.
const CONNECTIONS_MAX: usize = 1024;
/// First of the ports of peers that are no client's.
const FIRST_PEER_PORT: u16 = 40_000;
/// Number of these ports.
const PEER_PORTS: u64 = 20_000;
/// The IPv4 dummy address (RFC 7600): no host has it, and it stands for senders that have no IPv4 address.
const DUMMY: [u8; 4] = [192, 0, 0, 8];

impl Pollables {
    pub(crate) fn connect_inbound(&mut self) -> Result<ConnectionId, NotListening> {
        let listener = self.inbound_listener().ok_or(NotListening)?;
        if self.inbound.connections.len() >= CONNECTIONS_MAX {
            return Err(NotListening);
        }
        let socket = self.socket(listener).map_err(|_| NotListening)?;
        let (domain, port, v6_alone) = (socket.domain, socket.local.port().unwrap_or(0), socket.is_for_v6_alone());
        self.inbound.made = self.inbound.made.saturating_add(1);
        let id = ConnectionId(self.inbound.made);
        let local = if v6_alone { Address::loopback_6(port) } else { Address::loopback(domain, port) };
        let peer = peer_address(domain, &local, id, None);
        let pollable = self.queue_connection(listener, local, peer).map_err(|_| NotListening)?;
        // The sender bounds the input.
        let input = self.add_queue(Queue::stream(usize::MAX, End::Inside(pollable), End::Inbound(id)));
        let output = self.add_queue(Queue::stream(OUTPUT_BYTES, End::Inbound(id), End::Inside(pollable)));
        if let Ok(socket) = self.socket_mut(pollable) {
            socket.input = Some(input);
            socket.output = Some(output);
            socket.connection = Some(id);
        }
        self.inbound.connections.push(InboundConnection {
            id,
            pollable: Some(pollable),
            input,
            output,
            reported: OutputState::Open,
        });
        Ok(id)
    }

    /// Sets the client whose address the program finds as the connection's peer.
    pub(crate) fn set_client(&mut self, id: ConnectionId, client: Option<SocketAddr>) {
        if let Some(pollable) = self.inbound.get(id).and_then(|connection| connection.pollable)
            && let Ok(socket) = self.socket_mut(pollable)
        {
            socket.peer = peer_address(socket.domain, &socket.local, id, client);
        }
    }

    /// Moves the program's output to `out`; returns whether more may come.
    pub(crate) fn take_inbound(&mut self, id: ConnectionId, out: &mut Vec<u8>) -> OutputState {
        let Some(connection) = self.inbound.get(id) else { return OutputState::Gone };
        if let Some(queue) = self.queue(connection.output) {
            out.extend_from_slice(queue.front());
            let count = queue.len();
            self.take(connection.output, count);
        }
        let state = connection.state(self.queue(connection.output));
        if state == OutputState::Gone {
            self.close_inbound(id);
        } else if let Some(slot) = self.inbound.connections.iter_mut().find(|connection| connection.id == id) {
            slot.reported = state;
        }
        self.look_for_news();
        state
    }

    fn look_for_news(&mut self) {
        self.inbound.news = self.inbound.connections.iter().any(|connection| {
            let output = self.queue(connection.output);
            output.is_some_and(|output| !output.is_empty()) || connection.state(output) != connection.reported
        });
    }

    pub(crate) fn close_inbound(&mut self, id: ConnectionId) {
        let Some(connection) = self.inbound.get(id) else { return };
        self.inbound.connections.retain(|connection| connection.id != id);
        if let Some(pollable) = connection.pollable
            && let Ok(socket) = self.socket_mut(pollable)
        {
            socket.connection = None;
        }
        self.close_writer(connection.input);
        self.close_reader(connection.output);
        self.look_for_news();
    }
}

/// The peer's address of a connection whose own address is `local`: the client's, as Linux shows it to a socket of this
/// family; without a client, this machine's.
///
/// A client may have an address that Linux would never show to such a socket, since it comes by way of Mayfly. That does
/// not become this machine's address, which many programs trust. A socket for IPv6 alone has the client's IPv4-mapped
/// address, as one for both families would have, and a socket for IPv4 [`DUMMY`] for any client of IPv6.
fn peer_address(domain: i32, local: &Address, id: ConnectionId, client: Option<SocketAddr>) -> Address {
    let Some(client) = client else {
        let ConnectionId(number) = id;
        let offset = u16::try_from(number.checked_rem(PEER_PORTS).unwrap_or(0)).unwrap_or(0);
        let port = FIRST_PEER_PORT.saturating_add(offset);
        // `local` tells sockets for IPv6 alone from those that take both families: see `Socket::is_for_v6_alone`.
        let v6_alone = local.of_network().is_some_and(|local| local.is_ipv6());
        return if v6_alone { Address::loopback_6(port) } else { Address::loopback(domain, port) };
    };
    match (client.ip().to_canonical(), domain) {
        (IpAddr::V6(ip), libc::AF_INET6) => Address::V6(ip.octets(), client.port()),
        (IpAddr::V6(_), _) => Address::V4(DUMMY, client.port()),
        (IpAddr::V4(ip), _) => Address::V4(ip.octets(), client.port()).in_family(domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Address = Address::V4([127, 0, 0, 1], 80);

    fn peer(domain: i32, local: &Address, client: Option<&str>) -> String {
        let client = client.map(|client| client.parse().unwrap());
        let bytes = peer_address(domain, local, ConnectionId(20_007), client).encode(domain);
        match Address::decode(domain, &bytes) {
            Ok(Address::V4(host, port)) => SocketAddr::new(host.into(), port).to_string(),
            Ok(Address::V6(host, port)) => SocketAddr::new(host.into(), port).to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_is_the_client_where_the_socket_can_have_its_address() {
        let v4 = |client| peer(libc::AF_INET, &V4, client);
        assert_eq!(v4(Some("192.0.2.7:1234")), "192.0.2.7:1234");
        assert_eq!(v4(Some("[::ffff:192.0.2.7]:1234")), "192.0.2.7:1234");
        assert_eq!(v4(Some("[2001:db8::7]:1234")), "192.0.0.8:1234", "not an address that programs trust");
        assert_eq!(v4(Some("[::1]:1234")), "192.0.0.8:1234");
        let both = |client| peer(libc::AF_INET6, &V4.in_family(libc::AF_INET6), client);
        assert_eq!(both(Some("192.0.2.7:1234")), "[::ffff:192.0.2.7]:1234");
        assert_eq!(both(Some("[::ffff:192.0.2.7]:1234")), "[::ffff:192.0.2.7]:1234");
        assert_eq!(both(Some("[2001:db8::7]:1234")), "[2001:db8::7]:1234");
        let v6_alone = |client| peer(libc::AF_INET6, &Address::loopback_6(80), client);
        assert_eq!(v6_alone(Some("[2001:db8::7]:1234")), "[2001:db8::7]:1234");
        assert_eq!(v6_alone(Some("192.0.2.7:1234")), "[::ffff:192.0.2.7]:1234", "not an address that programs trust");
        assert_eq!((v4(None).as_str(), v6_alone(None).as_str()), ("127.0.0.1:40007", "[::1]:40007"));
        assert_eq!(both(None), "[::ffff:127.0.0.1]:40007");
    }
}
