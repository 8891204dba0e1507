// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends requests to a program that serves connections, and takes its responses.

use std::net::SocketAddr;
use std::sync::Arc;

use mayfly_linux::{ConnectionId, OutputState, Process};

use crate::error::CallError;
use crate::message::{BufferedResponse, Request, ResponseSink};
use crate::protocol::{Decoded, Decoder, Protocol, Target};
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
    hook: Option<Hook>,
}

/// What the program is asked for when its worker is at the snapshot, before the first request.
#[derive(Debug)]
struct Hook {
    target: Arc<Target>,
    state: HookState,
    /// The request that follows it, and its method; an empty method if there is none yet.
    next: Vec<u8>,
    next_method: Vec<u8>,
    /// Where its client is.
    next_client: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HookState {
    Due,
    Asked,
    Done,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseProgress {
    Partial,
    Complete,
    /// The program has answered the hook: [`Served::go_on`] follows.
    Restored,
    /// The program has closed a connection that it had kept open, or has written to it, before it can have seen the
    /// request: the request must be sent again.
    Stale,
}

impl Served {
    /// A conversation that continues on `connection`, if the program has kept one open. It begins with `hook`.
    pub(crate) fn new(
        protocol: &Arc<dyn Protocol>,
        connection: Option<ConnectionId>,
        hook: Option<Arc<Target>>,
    ) -> Self {
        let hook = hook.map(|target| Hook {
            target,
            state: HookState::Due,
            next: vec![],
            next_method: vec![],
            next_client: None,
        });
        Self {
            protocol: Arc::clone(protocol),
            decoder: protocol.decoder(),
            connection,
            may_be_stale: false,
            request: Vec::new(),
            client: None,
            output: Vec::new(),
            taken: 0,
            hook,
        }
    }

    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// The program is to be asked for its hook before the next request.
    pub(crate) fn needs_hook(&self) -> bool {
        self.hook.as_ref().is_some_and(|hook| hook.state == HookState::Due)
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
        if let Some(hook) = &mut self.hook {
            hook.forget();
        }
    }

    /// Encodes a request, for [`Self::begin`]. The program stays as it is.
    ///
    /// # Errors
    ///
    /// [`CallError::RequestTooLarge`].
    pub(crate) fn encode(&mut self, request: &Request<'_>, limit: u64) -> Result<(), CallError> {
        self.request.clear();
        self.protocol.encode(request, &mut self.request);
        let bytes = self.request.len() as u64;
        if bytes > limit { Err(CallError::RequestTooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Sends the request that was encoded, or the hook that comes before it. The caller wakes the process afterwards.
    ///
    /// # Errors
    ///
    /// [`CallError::NotListening`].
    pub(crate) fn begin(&mut self, process: &mut Process, request: &Request<'_>) -> Result<(), CallError> {
        let client = request.client.map(|client| client.address);
        if let Some(hook) = self.hook.as_mut().filter(|hook| hook.state == HookState::Due) {
            std::mem::swap(&mut self.request, &mut hook.next);
            hook.next_method = request.method.to_vec();
            hook.next_client = client;
            return self.begin_hook(process);
        }
        self.client = client;
        self.send(process, request.method)
    }

    /// Asks for the hook. The caller wakes the process afterwards.
    ///
    /// # Errors
    ///
    /// [`CallError::NotListening`].
    pub(crate) fn begin_hook(&mut self, process: &mut Process) -> Result<(), CallError> {
        let Some(hook) = &mut self.hook else { return Ok(()) };
        hook.state = HookState::Asked;
        // It is Mayfly's own.
        self.client = None;
        let target = Arc::clone(&hook.target);
        self.request.clear();
        self.protocol.encode(&target.request(), &mut self.request);
        self.send(process, target.request().method)
    }

    /// Goes on behind the hook with the request that follows it. Returns `false` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`CallError::AfterRestore`] if the program has not answered the hook as it must; [`CallError::NotListening`].
    pub(crate) fn go_on(&mut self, process: &mut Process) -> Result<bool, CallError> {
        let mut answer = BufferedResponse::default();
        self.decoder.deliver(&mut answer);
        if !(200..300).contains(&answer.status) {
            return Err(CallError::AfterRestore { status: answer.status });
        }
        let Some(hook) = &mut self.hook else { return Ok(false) };
        hook.state = HookState::Done;
        let method = std::mem::take(&mut hook.next_method);
        if method.is_empty() {
            return Ok(false);
        }
        std::mem::swap(&mut self.request, &mut hook.next);
        self.client = hook.next_client;
        self.send(process, &method)?;
        Ok(true)
    }

    /// Sends what is in `request`: on the connection that is open, or else on a new one.
    fn send(&mut self, process: &mut Process, method: &[u8]) -> Result<(), CallError> {
        self.decoder.begin(method);
        self.taken = 0;
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
        if self.may_be_stale && process.take_back(connection, self.request.len()) {
            // Whatever it has written answers nothing that it has read, and might be taken for the response.
            return Ok(ResponseProgress::Stale);
        }
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
                return Ok(self.complete());
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
        Ok(self.complete())
    }

    /// What the complete response answers.
    fn complete(&self) -> ResponseProgress {
        match &self.hook {
            Some(hook) if hook.state == HookState::Asked => ResponseProgress::Restored,
            _ => ResponseProgress::Complete,
        }
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

impl Hook {
    /// It is due again, and no request follows it yet.
    fn forget(&mut self) {
        self.state = HookState::Due;
        self.next_method.clear();
        self.next_client = None;
        if self.next.capacity() > KEPT_BYTES {
            self.next = Vec::new();
        }
    }
}
