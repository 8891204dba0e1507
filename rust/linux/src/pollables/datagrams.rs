// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagram sockets: each has one queue for what arrives, from any sender.
//!
//! ```text
//!   socket --(address, at each send)--+
//!   socket --(address, at each send)--+--> queue --> socket
//!   Unix socket, connected -----------+              `End::Many` counts these; they keep the queue
//! ```
//!
//! Network sockets find the receiver anew at each send, as the network does. A Unix socket is connected with one
//! receiver, not with whatever has its address later. Sources: udp(7), unix(7).

use crate::base::errno::Errno;
use crate::base::ids::{PollableId, QueueId};
use crate::event::queue::{End, Queue, Sender};
use crate::net::address::Address;
use crate::net::allow_list::OWN_ADDRESS;
use crate::net::socket::{CONNECTION_BYTES, Phase, Socket};
use crate::pollables::table::Pollables;

impl Pollables {
    /// The queue of what arrives at a datagram socket.
    pub(crate) fn inbox(&mut self, id: PollableId) -> Result<QueueId, Errno> {
        if let Some(queue) = self.socket(id)?.input {
            return Ok(queue);
        }
        let queue = self.add_queue(Queue::messages(CONNECTION_BYTES, End::Inside(id), End::Many(0)));
        self.socket_mut(id)?.input = Some(queue);
        Ok(queue)
    }

    /// Puts a message of the host's into a socket's queue. It is lost if the queue is full.
    pub(crate) fn deliver(&mut self, id: PollableId, bytes: &[u8], sender: Sender) -> Result<(), Errno> {
        let queue = self.inbox(id)?;
        if self.has_room_for(queue, bytes.len()) {
            self.write_bytes(queue, bytes);
            self.note_message(queue, bytes.len(), sender);
        }
        Ok(())
    }

    /// Gives a network socket that sends a port and a queue.
    pub(crate) fn prepare_to_send(&mut self, id: PollableId) -> Result<(), Errno> {
        if self.socket(id)?.local.port() == Some(0) {
            let port = self.free_port();
            let socket = self.socket_mut(id)?;
            socket.local = socket.local.clone().with_port(port);
        }
        self.inbox(id).map(drop)
    }

    /// The network socket that receives what is sent from one address to another: the one with the most particular
    /// addresses. Of sockets that share an address, the sender's port selects one.
    pub(crate) fn datagram_receiver(&self, to: &Address, from: &Address) -> Option<PollableId> {
        let from_ip = from.of_network()?;
        let to_v4 = to.of_network()?.is_ipv4();
        let fit = |socket: &Socket| {
            let is_peer = socket.is_connected() && socket.peer.of_network() == Some(from_ip);
            let is_reached = socket.is_datagram()
                && socket.is_inet()
                && socket.local.takes(to)
                && !(to_v4 && socket.is_for_v6_alone())
                && (is_peer || !socket.is_connected());
            is_reached.then_some((is_peer, !socket.local.is_any()))
        };
        let all = || self.ids().filter_map(|id| Some((fit(self.socket(id).ok()?)?, id)));
        let best = all().map(|(fit, _)| fit).max()?;
        let equal: Vec<PollableId> = all().filter(|(fit, _)| *fit == best).map(|(_, id)| id).collect();
        let shares = |id: &PollableId| {
            self.socket(*id).is_ok_and(|socket| socket.option(libc::SOL_SOCKET, libc::SO_REUSEPORT).unwrap_or(0) != 0)
        };
        if equal.iter().all(shares) {
            let index = usize::from(from_ip.port()).checked_rem(equal.len()).unwrap_or(0);
            return equal.get(index).copied();
        }
        // With SO_REUSEADDR alone, the latest.
        equal.into_iter().max_by_key(|id| self.get(*id).map(|pollable| pollable.number))
    }

    /// Connects a network socket with the address to which it sends. `inside`: the address is the machine's own.
    pub(crate) fn connect_to_address(&mut self, id: PollableId, to: Address, inside: bool) -> Result<(), Errno> {
        let (domain, is_new) = (self.socket(id)?.domain, self.socket(id)?.local.is_any());
        self.prepare_to_send(id)?;
        let socket = self.socket_mut(id)?;
        if is_new {
            let port = socket.local.port().unwrap_or(0);
            socket.local = match inside {
                true => to.loopback_beside(domain, port),
                false => Address::V4(OWN_ADDRESS, port).in_family(domain),
            };
            socket.local_by_connect = true;
        }
        socket.peer = to;
        socket.phase = Phase::Connected;
        Ok(())
    }

    /// Whether one Unix socket may send to another: one that is connected receives from its peer alone.
    pub(crate) fn may_send(&self, from: PollableId, to: PollableId) -> bool {
        let Ok(output) = self.socket(to).map(|socket| socket.output) else { return false };
        output.is_none() || output == self.socket(from).ok().and_then(|socket| socket.input)
    }

    /// Connects a Unix socket with another.
    pub(crate) fn connect_to_socket(&mut self, id: PollableId, to: PollableId) -> Result<(), Errno> {
        let (own, queue) = (self.inbox(id)?, self.inbox(to)?);
        let peer = self.socket(to)?.local.clone();
        match self.socket(id)?.output {
            Some(before) if before == queue => return Ok(()),
            Some(_) => {
                // What has come from others is dropped.
                self.disconnect(id)?;
                self.drain(own);
            }
            None => {}
        }
        if let Some(queue) = self.queue_mut(queue) {
            queue.writer = match queue.writer {
                End::Many(connected) => End::Many(connected.saturating_add(1)),
                _ => End::Many(1),
            };
        }
        let socket = self.socket_mut(id)?;
        socket.output = Some(queue);
        socket.peer = peer;
        socket.phase = Phase::Connected;
        Ok(())
    }

    /// Connects two new sockets with each other: `socketpair`.
    pub(crate) fn pair_up(&mut self, one: PollableId, other: PollableId) -> Result<(), Errno> {
        self.connect_to_socket(one, other)?;
        self.connect_to_socket(other, one)
    }

    /// Separates a datagram socket from its peer. What `connect` has set of its address goes, too.
    pub(crate) fn disconnect(&mut self, id: PollableId) -> Result<(), Errno> {
        let socket = self.socket_mut(id)?;
        socket.phase = Phase::Idle;
        socket.peer = Address::any(socket.domain);
        if socket.local_by_connect {
            socket.local_by_connect = false;
            let port = socket.local.port().unwrap_or(0);
            socket.local = Address::any(socket.domain).with_port(port);
        }
        if !socket.bound && socket.is_inet() {
            socket.local = Address::any(socket.domain);
        }
        if let Some(output) = socket.output.take() {
            self.close_writer(output);
        }
        Ok(())
    }
}
