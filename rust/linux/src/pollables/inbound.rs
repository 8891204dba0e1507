// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that arrive from outside the machine at the program's application, and the embedder's end of them.
//! `application.rs` says which listener that is.

use crate::base::ids::ConnectionId;
use crate::event::queue::{End, Queue};
use crate::net::address::Address;
use crate::net::inbound::{InboundConnection, NotListening, OutputState};
use crate::pollables::table::Pollables;

/// Most bytes that a program has written to a connection and the embedder has not taken; then writing waits.
const OUTPUT_BYTES: usize = 1 << 20;
/// Most connections from outside at a time.
const CONNECTIONS_MAX: usize = 1024;
/// First of the synthetic peer ports.
const FIRST_PEER_PORT: u16 = 40_000;

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
        let peer_port = u16::try_from(self.inbound.made % 20_000).unwrap_or(0).saturating_add(FIRST_PEER_PORT);
        let loopback = |port| if v6_alone { Address::loopback_6(port) } else { Address::loopback(domain, port) };
        let (local, peer) = (loopback(port), loopback(peer_port));
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
