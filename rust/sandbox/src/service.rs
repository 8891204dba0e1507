// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends requests to a program that serves connections, and takes its responses.

use std::net::SocketAddr;
use std::sync::Arc;

use mayfly_linux::{ConnectionId, OutputState, Process};

use crate::error::CallError;
use crate::message::{Request, ResponseSink};
use crate::protocol::{Decoded, Decoder, Protocol};
use crate::response::ResponseError;

/// What a response may have besides header names, values and body: status line, punctuation, sizes of chunks.
const FRAMING_BYTES: u64 = 64 << 10;
/// A buffer up to this size is kept from request to request.
const KEPT_BYTES: usize = 64 << 10;

/// One worker's conversation with its program.
#[derive(Debug)]
pub(crate) struct Served {
    protocol: Arc<dyn Protocol>,
    decoder: Box<dyn Decoder>,
    /// The connection of the present request, or the one that the last request left open.
    connection: Option<ConnectionId>,
    /// The connection is older than the request, and the program has written nothing on it since: it may be about to
    /// close it.
    may_be_stale: bool,
    /// The request as it was sent, and who sent it.
    request: Vec<u8>,
    client: Option<SocketAddr>,
    output: Vec<u8>,
    /// Bytes of the response so far.
    taken: u64,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseProgress {
    Partial,
    Complete,
    /// The program has closed a connection that it had kept open, before it can have seen the request: the request must
    /// be sent again.
    Stale,
}

impl Served {
    /// A conversation that continues on `connection`, if the program has kept one open.
    pub(crate) fn new(protocol: &Arc<dyn Protocol>, connection: Option<ConnectionId>) -> Self {
        Self {
            protocol: Arc::clone(protocol),
            decoder: protocol.decoder(),
            connection,
            may_be_stale: false,
            request: Vec::new(),
            client: None,
            output: Vec::new(),
            taken: 0,
        }
    }

    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// The worker has been reset to a snapshot in which this connection is open.
    pub(crate) fn reset(&mut self, connection: Option<ConnectionId>) {
        self.connection = connection;
        if self.output.capacity() > KEPT_BYTES {
            self.output = Vec::new();
        }
        if self.request.capacity() > KEPT_BYTES {
            self.request = Vec::new();
        }
    }

    /// Sends a request. The caller wakes the process afterwards.
    ///
    /// # Errors
    ///
    /// [`CallError::RequestTooLarge`] with nothing sent; [`CallError::NotListening`].
    pub(crate) fn begin(&mut self, process: &mut Process, request: &Request<'_>, limit: u64) -> Result<(), CallError> {
        self.request.clear();
        self.protocol.encode(request, &mut self.request);
        let bytes = self.request.len() as u64;
        if bytes > limit {
            return Err(CallError::RequestTooLarge { bytes, limit });
        }
        self.decoder.begin(request.method);
        self.taken = 0;
        self.client = request.client.map(|client| client.address);
        if let Some(kept) = self.connection {
            // Always: the connection may still have the last request's client.
            process.set_client(kept, self.client);
            if process.send(kept, &self.request).is_ok() {
                self.may_be_stale = true;
                return Ok(());
            }
        }
        self.send_again(process)
    }

    /// Sends the request on a new connection.
    pub(crate) fn send_again(&mut self, process: &mut Process) -> Result<(), CallError> {
        self.close(process);
        let connection = process.connect().map_err(|_| CallError::NotListening)?;
        process.set_client(connection, self.client);
        process.send(connection, &self.request).map_err(|_| CallError::NotListening)?;
        self.connection = Some(connection);
        self.may_be_stale = false;
        Ok(())
    }

    /// Takes what the program has written. `limit`: bytes of a response.
    pub(crate) fn take(&mut self, process: &mut Process, limit: u64) -> Result<ResponseProgress, ResponseError> {
        let Some(connection) = self.connection else { return Ok(ResponseProgress::Partial) };
        self.output.clear();
        let state = process.take_output(connection, &mut self.output);
        self.taken = self.taken.saturating_add(self.output.len() as u64);
        if self.taken > limit.saturating_add(FRAMING_BYTES) {
            return Err(ResponseError::TooLarge { bytes: self.taken, limit });
        }
        if !self.output.is_empty() {
            self.may_be_stale = false;
            if let Decoded::Complete { keeps_open } = self.decoder.take(&self.output)? {
                if !keeps_open || state != OutputState::Open {
                    self.close(process);
                }
                return Ok(ResponseProgress::Complete);
            }
        }
        if state == OutputState::Open {
            return Ok(ResponseProgress::Partial);
        }
        if self.may_be_stale {
            return Ok(ResponseProgress::Stale);
        }
        self.close(process);
        self.decoder.end()?;
        Ok(ResponseProgress::Complete)
    }

    /// Gives the complete response to `sink`.
    pub(crate) fn deliver(&mut self, sink: &mut dyn ResponseSink) {
        self.decoder.deliver(sink);
    }

    /// Closes the connection, if there is one.
    pub(crate) fn close(&mut self, process: &mut Process) {
        if let Some(connection) = self.connection.take() {
            process.close(connection);
        }
    }
}
