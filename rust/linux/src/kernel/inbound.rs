// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections from outside to a program that listens.

use std::net::SocketAddr;

use crate::base::ids::{ConnectionId, PollableId};
use crate::event::queue::Queue;
use crate::kernel::process::Process;
use crate::net::inbound::{Closed, NotListening, OutputState};

/// Connections from outside to a program that listens.
impl Process {
    /// Whether the program's application listens.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.pollables.inbound_listener().is_some()
    }

    /// Opens a connection to the program's application.
    ///
    /// # Errors
    ///
    /// [`NotListening`] if there is no such socket, or its backlog is full.
    pub fn connect(&mut self) -> Result<ConnectionId, NotListening> {
        let connection = self.pollables.edit().connect_inbound()?;
        self.note_change();
        Ok(connection)
    }

    /// Sets the client whose address the program finds as the connection's peer (`accept(2)`, `getpeername(2)`).
    /// `None`: this machine's address. A socket for IPv4 shows a client of IPv6 as this machine, with the client's
    /// port, and so does a socket for IPv6 alone with a client of IPv4.
    pub fn set_client(&mut self, connection: ConnectionId, client: Option<SocketAddr>) {
        self.pollables.edit().set_client(connection, client);
    }

    /// Appends bytes to the connection's input. The caller bounds them: they are stored until the program reads them.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the program has closed the connection, or reads no more from it.
    pub fn send(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), Closed> {
        let found = self.pollables.inbound.get(connection).ok_or(Closed)?;
        let is_open = found.pollable.is_some()
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
                pollables.note_written(found.input);
            }
            self.note_change();
        }
        Ok(())
    }

    /// Ends the connection's input: the program reads the end after the bytes that have arrived.
    pub fn finish(&mut self, connection: ConnectionId) {
        if let Some(found) = self.pollables.inbound.get(connection) {
            self.pollables.edit().finish(found.input);
            self.note_change();
        }
    }

    /// Takes the last `count` bytes of the connection's input back, if the program has read none of them: it never
    /// sees them. Returns whether it has read none.
    pub fn take_back(&mut self, connection: ConnectionId, count: usize) -> bool {
        let Some(found) = self.pollables.inbound.get(connection) else { return false };
        let unread = self.pollables.queue(found.input).map_or(0, Queue::len);
        if unread < count {
            return false;
        }
        // With what came before them, which belongs to a request that is over.
        self.pollables.edit().take(found.input, unread);
        self.note_change();
        true
    }

    /// Whether the program has written to a connection or closed one, and the caller has not taken that yet. Costs a
    /// check of a flag.
    #[inline]
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.pollables.inbound.news
    }

    /// Moves what the program has written to the connection to the end of `out`. Returns whether more may come; a
    /// connection that is [`OutputState::Gone`] is forgotten.
    pub fn take_output(&mut self, connection: ConnectionId, out: &mut Vec<u8>) -> OutputState {
        let state = self.pollables.edit().take_inbound(connection, out);
        self.note_change();
        state
    }

    /// Closes the connection from outside. The program reads the end after the bytes that have arrived, and cannot
    /// write any more.
    pub fn close(&mut self, connection: ConnectionId) {
        if self.pollables.inbound.get(connection).is_some() {
            self.pollables.edit().close_inbound(connection);
            self.note_change();
        }
    }

    /// Makes waiting threads check again.
    pub(crate) fn note_change(&mut self) {
        if self.threads.waits().next().is_some() {
            self.threads.edit().note_change();
        }
    }

    /// The program's end of a connection, or the application's listener.
    pub(crate) fn inside_of(&self, connection: Option<ConnectionId>) -> Option<PollableId> {
        match connection {
            Some(connection) => self.pollables.inbound.get(connection)?.pollable,
            None => self.pollables.inbound_listener(),
        }
    }
}
