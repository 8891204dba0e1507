// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections from outside the machine to the program.

use serde::{Deserialize, Serialize};

use crate::base::ids::{ConnectionId, PollableId, QueueId};
use crate::event::queue::Queue;

/// There is no listener, or its backlog is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program does not listen, or its backlog of connections is full")]
pub struct NotListening;

/// The program has closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program has closed the connection")]
pub struct Closed;

/// Whether a program may still write to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputState {
    /// More bytes may come.
    Open,
    /// The program writes no more, but may still read.
    Finished,
    /// The program has closed the connection.
    Gone,
}

/// A connection from outside, as the embedder sees it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct InboundConnection {
    pub(crate) id: ConnectionId,
    /// The program's end; `None` if the program has closed it.
    pub(crate) pollable: Option<PollableId>,
    pub(crate) input: QueueId,
    pub(crate) output: QueueId,
    /// The state that [`crate::Process::take_output`] returned last.
    pub(crate) reported: OutputState,
}

/// All connections from outside.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct InboundConnections {
    pub(crate) connections: Vec<InboundConnection>,
    pub(crate) made: u64,
    /// The application's port: the one that the tenant configured, or, from the freeze on, the only one on which the
    /// program listened.
    pub(crate) port: Option<u16>,
    /// There may be output or a new state to take.
    pub(crate) news: bool,
}

impl InboundConnections {
    pub(crate) fn get(&self, id: ConnectionId) -> Option<InboundConnection> {
        self.connections.iter().find(|connection| connection.id == id).copied()
    }

    /// The program has closed its end.
    pub(crate) fn left(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.pollable = None;
            self.news = true;
        }
    }
}

impl InboundConnection {
    pub(crate) fn state(&self, output: Option<&Queue>) -> OutputState {
        match (self.pollable, output) {
            (Some(_), Some(output)) if !output.finished => OutputState::Open,
            (Some(_), _) => OutputState::Finished,
            (None, _) => OutputState::Gone,
        }
    }
}
