// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that serve connections of their own, instead of waiting at the doorbell.
//!
//! Such a program listens on a socket, which exists in its machine alone. A request becomes bytes that arrive on a
//! connection, and what the program writes there becomes the response. What those bytes mean is decided on the floor
//! above, which gives a program a [`Protocol`].

use crate::message::{Request, ResponseSink};
use crate::response::ResponseError;

/// How requests and responses look on a connection.
pub trait Protocol: std::fmt::Debug + Send + Sync {
    /// Appends `request` to `out` in the form in which the program reads it from its connection.
    fn encode(&self, request: &Request<'_>, out: &mut Vec<u8>);

    /// A decoder for one worker; it is used for one response after the other.
    fn decoder(&self) -> Box<dyn Decoder>;
}

/// Takes responses apart. Every byte that it is given is hostile; how many there are is bounded by the sandbox.
pub trait Decoder: std::fmt::Debug + Send {
    /// Forgets what was taken so far: the next bytes answer a request with this method.
    fn begin(&mut self, method: &[u8]);

    /// Takes what the program wrote next.
    ///
    /// # Errors
    ///
    /// [`ResponseError`] says why this can be no response.
    fn take(&mut self, bytes: &[u8]) -> Result<Decoded, ResponseError>;

    /// The program writes no more: what has been taken is the response, if it is complete.
    ///
    /// # Errors
    ///
    /// [`ResponseError`] if it is cut short.
    fn end(&mut self) -> Result<(), ResponseError>;

    /// Gives the complete response to `sink`: the body first, then the status, then the headers.
    fn deliver(&mut self, sink: &mut dyn ResponseSink);
}

/// What a decoder says after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decoded {
    /// There is more to come.
    Partial,
    /// The response is complete.
    Complete {
        /// Whether the connection can carry another request.
        keeps_open: bool,
    },
}

/// How a program serves connections.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it speaks.
    pub protocol: std::sync::Arc<dyn Protocol>,
    /// The port of its application. `None`: the only port that the program listens on.
    pub port: Option<u16>,
    /// Requests that it serves before it is frozen, one after the other, so that its code and its caches are warm.
    pub warm_up: Vec<WarmUp>,
}

/// A request made at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// Method.
    pub method: Vec<u8>,
    /// Path, without the query.
    pub path: Vec<u8>,
    /// Query, without the question mark.
    pub query: Vec<u8>,
    /// Header names, in lower case, and values.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
    /// How often it is made.
    pub times: u32,
    /// Whether it is repeated until it costs no more exits than before: for programs with compilers and garbage
    /// collectors.
    pub steady: bool,
}
