// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that serve connections of their own, instead of waiting at the doorbell.
//!
//! Such a program listens on a socket, which exists in its machine alone. A request becomes bytes that arrive on a
//! connection, and what the program writes there becomes the response. What those bytes mean is decided on the floor
//! above, which gives a program a [`Protocol`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::message::{Request, ResponseSink};
use crate::response::ResponseError;

/// How requests and responses look on a connection.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// Appends `request` to `out` in the form in which the program reads it from its connection.
    fn encode(&self, request: &Request<'_>, out: &mut Vec<u8>);

    /// A decoder for one worker; it is used for one response after the other.
    fn decoder(&self) -> Box<dyn Decoder>;
}

/// Takes responses apart. Every byte that it is given is hostile; how many there are is bounded by the sandbox.
pub trait Decoder: fmt::Debug + Send {
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
    pub protocol: Arc<dyn Protocol>,
    /// The port of its application. `None`: the only port that the program listens on.
    pub port: Option<u16>,
    /// What it must answer before the warm-up. `None`: it is ready when it listens and all its threads wait.
    pub ready: Option<Readiness>,
    /// Requests that it serves before it is frozen, one after the other, so that its code and its caches are warm.
    pub warm_up: Vec<WarmUp>,
    /// How long it idles after the warm-up, while its timers run in real time.
    pub settle: Duration,
    /// What it is asked for just before the freeze.
    pub before_freeze: Option<Target>,
    /// What a worker at its snapshot is asked for before its first request.
    pub after_restore: Option<Target>,
}

impl Service {
    /// A program that listens on one port and needs nothing more.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mayfly_sandbox::{Protocol, Service};
    /// # fn service(http: Arc<dyn Protocol>) -> Service {
    /// Service { port: Some(8000), ..Service::new(http) }
    /// # }
    /// ```
    #[must_use]
    pub fn new(protocol: Arc<dyn Protocol>) -> Self {
        Self {
            protocol,
            port: None,
            ready: None,
            warm_up: Vec::new(),
            settle: Duration::ZERO,
            before_freeze: None,
            after_restore: None,
        }
    }
}

/// A path that Mayfly itself asks a program for, by `GET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Path, without the query.
    pub path: Vec<u8>,
    /// Query, without the question mark.
    pub query: Vec<u8>,
}

impl Target {
    /// Parses a path with a query, if there is one.
    ///
    /// ```
    /// use mayfly_sandbox::Target;
    ///
    /// let target = Target::new("/ready?deep=1");
    /// assert_eq!((&target.path[..], &target.query[..]), (&b"/ready"[..], &b"deep=1"[..]));
    /// assert_eq!(target.to_string(), "GET /ready?deep=1");
    /// ```
    #[must_use]
    pub fn new(target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { path: path.into(), query: query.into() }
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request { method: b"GET", path: &self.path, query: &self.query, headers: &[], body: b"", client: None }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET {}", self.path.escape_ascii())?;
        if self.query.is_empty() { Ok(()) } else { write!(f, "?{}", self.query.escape_ascii()) }
    }
}

/// What a program must answer before it counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What it is asked for, again and again.
    pub target: Target,
    /// The status that it answers once it is ready.
    pub status: u16,
    /// How long that may take, from the first question on.
    pub within: Duration,
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
