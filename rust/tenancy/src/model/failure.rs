// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer that Mayfly gives in a tenant's place: status, error word, reason.

use std::fmt;

use mayfly_sandbox::ResponseSink;
use serde::Serialize;

/// Defines [`Failure`], one line per kind: variant, the word in answers and reports, HTTP status.
macro_rules! failures {
    ($($(#[$doc:meta])* $kind:ident $word:literal $status:literal,)*) => {
        /// Why a request was answered by Mayfly instead of its tenant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failure {
            $($(#[$doc])* $kind,)*
        }

        impl Failure {
            /// All kinds, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The word in the answer's `error` and in reports.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }
        }
    };
}

failures! {
    /// No tenant has a route that matches the request.
    NoRoute "no-such-route" 404,
    /// The request exceeds the tenant's inbox or its limit.
    RequestTooLarge "request-too-large" 413,
    /// An internal error of Mayfly; the log has the details.
    Internal "internal" 500,
    /// The program ended instead of answering.
    Exited "exited" 502,
    /// The program crashed.
    Faulted "faulted" 502,
    /// The program brought its machine into a state that no well-behaved program reaches: it may be attacking the
    /// sandbox.
    Violation "violation" 502,
    /// The program's response breaks the rules: wild pointers, a bad status or a forbidden header.
    BadResponse "bad-response" 502,
    /// The response is above its limit.
    ResponseTooLarge "response-too-large" 502,
    /// No worker is available: no usable engine, still booting, boot failed, or too many waiting requests.
    Unavailable "unavailable" 503,
    /// The process has reached its bound on memory, and the request needed more.
    ServerMemory "server-memory" 503,
    /// The tenant has reached its limit on requests in progress.
    TooManyRequests "too-many-requests" 429,
    /// The server has reached its limit on unfinished requests, or the tenant its share of them.
    Overloaded "overloaded" 503,
    /// The request reached its limit on CPU time.
    CpuLimit "cpu-limit" 504,
    /// The request reached its limit on wall-clock time, independent of the CPU time that it received.
    WallLimit "wall-limit" 504,
    /// The request reached its memory limit.
    MemoryLimit "memory-limit" 507,
}

/// Number of kinds of failure.
pub(crate) const FAILURES: usize = Failure::ALL.len();

/// Identifies a request within this process; shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// The id of a request that no client sent.
    pub(crate) const NONE: Self = Self(0);
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Writes the whole answer for a failure.
pub(crate) fn answer(failure: Failure, reason: &str, id: RequestId, sink: &mut (impl ResponseSink + ?Sized)) {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'static str,
        reason: &'a str,
        request_id: String,
    }
    let body = Body { error: failure.word(), reason, request_id: id.to_string() };
    // Serialising strings cannot fail. If that ever changes, the client still receives the status.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    sink.body(body.len()).copy_from_slice(&body);
    sink.status(failure.status());
    sink.header(b"content-type", b"application/json");
    sink.header(b"cache-control", b"no-store");
    if matches!(failure, Failure::Unavailable | Failure::Overloaded | Failure::ServerMemory | Failure::TooManyRequests)
    {
        sink.header(b"retry-after", b"1");
    }
}
