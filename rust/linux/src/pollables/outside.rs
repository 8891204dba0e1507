// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that arrive from outside the machine at the program's application, and how the sandbox speaks on them. Which listener that is: see
//! `application.rs`.

use serde::{Deserialize, Serialize};

use super::socket::Address;
use super::{End, PollableId, Pollables, Queue, QueueId};
use crate::process::Process;

/// Most bytes that a program has written to a connection and that nobody has taken yet; then it waits.
const OUTPUT_BYTES: usize = 1 << 20;
/// Most connections from outside at a time.
const CONNECTIONS_MAX: usize = 1024;
/// Where the made-up ports of those who connect start.
const FIRST_PEER_PORT: u16 = 40_000;

/// A connection from outside. Its number is not used again before the process is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionId(u64);

/// There is nobody to connect to, or too many are waiting there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program does not listen, or does not accept the connections that wait already")]
pub struct NotListening;

/// The program has closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program has closed the connection")]
pub struct Closed;

/// Whether more may come from a program on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputState {
    /// More may come.
    Open,
    /// The program writes nothing more, but may still read.
    Finished,
    /// The program has closed the connection.
    Gone,
}

/// A connection, as seen from outside.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Connection {
    id: ConnectionId,
    /// The program's end, unless it has closed that.
    node: Option<PollableId>,
    input: QueueId,
    output: QueueId,
    /// What [`Process::take_output`] has said last.
    told: OutputState,
}

/// All connections from outside.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outside {
    connections: Vec<Connection>,
    made: u64,
    /// The application's port: what the tenant names, or, from the freeze on, what the program's only one was.
    pub(super) port: Option<u16>,
    /// There may be something to take.
    pub(super) news: bool,
}

impl Outside {
    fn get(&self, id: ConnectionId) -> Option<Connection> {
        self.connections.iter().find(|connection| connection.id == id).copied()
    }

    /// The program has closed its end.
    pub(super) fn left(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.node = None;
            self.news = true;
        }
    }
}

impl Connection {
    fn state(&self, output: Option<&Queue>) -> OutputState {
        match (self.node, output) {
            (Some(_), Some(output)) if !output.finished => OutputState::Open,
            (Some(_), _) => OutputState::Finished,
            (None, _) => OutputState::Gone,
        }
    }
}

impl Pollables {
    fn connect_outside(&mut self) -> Result<ConnectionId, NotListening> {
        let door = self.front_door().ok_or(NotListening)?;
        if self.outside.connections.len() >= CONNECTIONS_MAX {
            return Err(NotListening);
        }
        let socket = self.socket(door).map_err(|_| NotListening)?;
        let (domain, port, v6_alone) = (socket.domain, socket.local.port().unwrap_or(0), socket.is_for_v6_alone());
        self.outside.made = self.outside.made.saturating_add(1);
        let id = ConnectionId(self.outside.made);
        let peer_port = u16::try_from(self.outside.made % 20_000).unwrap_or(0).saturating_add(FIRST_PEER_PORT);
        let loopback = |port| if v6_alone { Address::loopback_6(port) } else { Address::loopback(domain, port) };
        let (local, peer) = (loopback(port), loopback(peer_port));
        let node = self.arrive(door, local, peer).map_err(|_| NotListening)?;
        // What comes in is bounded by whoever sends it.
        let input = self.add_queue(Queue::stream(usize::MAX, End::Inside(node), End::Outside(id)));
        let output = self.add_queue(Queue::stream(OUTPUT_BYTES, End::Outside(id), End::Inside(node)));
        if let Ok(socket) = self.socket_mut(node) {
            socket.input = Some(input);
            socket.output = Some(output);
            socket.connection = Some(id);
        }
        self.outside.connections.push(Connection { id, node: Some(node), input, output, told: OutputState::Open });
        Ok(id)
    }

    /// Moves what was written to `out`; what may still come.
    fn take_outside(&mut self, id: ConnectionId, out: &mut Vec<u8>) -> OutputState {
        let Some(connection) = self.outside.get(id) else { return OutputState::Gone };
        if let Some(queue) = self.queue(connection.output) {
            out.extend_from_slice(queue.front());
            let count = queue.len();
            self.take(connection.output, count);
        }
        let state = connection.state(self.queue(connection.output));
        if state == OutputState::Gone {
            self.close_outside(id);
        } else if let Some(slot) = self.outside.connections.iter_mut().find(|connection| connection.id == id) {
            slot.told = state;
        }
        self.outside.news = self.outside.connections.iter().any(|connection| {
            let output = self.queue(connection.output);
            output.is_some_and(|output| !output.is_empty()) || connection.state(output) != connection.told
        });
        state
    }

    fn close_outside(&mut self, id: ConnectionId) {
        let Some(connection) = self.outside.get(id) else { return };
        self.outside.connections.retain(|connection| connection.id != id);
        if let Some(node) = connection.node
            && let Ok(socket) = self.socket_mut(node)
        {
            socket.connection = None;
        }
        self.leave_writing(connection.input);
        self.leave_reading(connection.output);
    }
}

/// Connections from outside to a program that listens.
impl Process {
    /// Whether the program's application listens.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.pollables.front_door().is_some()
    }

    /// A connection arrives at the program's application.
    ///
    /// # Errors
    ///
    /// [`NotListening`] if there is no such socket, or its backlog is full.
    pub fn connect(&mut self) -> Result<ConnectionId, NotListening> {
        let connection = self.pollables.edit().connect_outside()?;
        self.note_change();
        Ok(connection)
    }

    /// Bytes arrive on the connection, behind those that have arrived already. The caller bounds them: they are kept until the program reads them.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the program has closed the connection, or reads nothing more from it.
    pub fn send(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), Closed> {
        let found = self.pollables.outside.get(connection).ok_or(Closed)?;
        let is_open = found.node.is_some()
            && self.pollables.queue(found.input).is_some_and(|queue| !queue.refused && !queue.finished);
        if !is_open {
            return Err(Closed);
        }
        if !bytes.is_empty() {
            let pollables = self.pollables.edit();
            let filled: Result<(), std::convert::Infallible> = pollables.write(found.input, bytes.len(), |room| {
                room.copy_from_slice(bytes);
                Ok(())
            });
            if filled.is_ok() {
                pollables.written(found.input, None);
            }
            self.note_change();
        }
        Ok(())
    }

    /// Nothing more will arrive on the connection: the program reads the end behind what has arrived.
    pub fn finish(&mut self, connection: ConnectionId) {
        if let Some(found) = self.pollables.outside.get(connection) {
            self.pollables.edit().finish(found.input);
            self.note_change();
        }
    }

    /// Whether the program has written something to a connection, or closed one, and that has not been taken. Costs a look at a flag.
    #[inline]
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.pollables.outside.news
    }

    /// Takes what the program has written to the connection: it is appended to `out`. Says whether more may come; a connection that is
    /// [`OutputState::Gone`] is forgotten.
    pub fn take_output(&mut self, connection: ConnectionId, out: &mut Vec<u8>) -> OutputState {
        let state = self.pollables.edit().take_outside(connection, out);
        self.note_change();
        state
    }

    /// The connection is closed from outside. The program reads its end behind what has arrived, and can write nothing more.
    pub fn close(&mut self, connection: ConnectionId) {
        if self.pollables.outside.get(connection).is_some() {
            self.pollables.edit().close_outside(connection);
            self.note_change();
        }
    }

    /// Who waits must look again.
    pub(crate) fn note_change(&mut self) {
        if self.threads.waits().next().is_some() {
            self.threads.edit().note_change();
        }
    }

    /// The program's end of a connection, or what its application listens on.
    pub(crate) fn inside_of(&self, connection: Option<ConnectionId>) -> Option<PollableId> {
        match connection {
            Some(connection) => self.pollables.outside.get(connection)?.node,
            None => self.pollables.front_door(),
        }
    }
}
