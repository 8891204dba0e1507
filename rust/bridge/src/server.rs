// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries that C++ calls.

use std::pin::Pin;

use cxx::UniquePtr;
use mayfly_tenancy as tenancy;
use smallvec::SmallVec;
use tenancy::{Header, Request, ResponseSink};

use crate::ffi::{self, Outcome, Reply, RequestView};
use crate::guard::{Panicked, guard};
use crate::reply::{Deferred, Sink};

/// Why an entry other than a call failed; C++ sees its text as the exception's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] tenancy::ConfigError),
    /// The tenants could not be started.
    #[error(transparent)]
    Start(#[from] tenancy::StartError),
    /// The report could not be written as JSON.
    #[error("cannot write the report as JSON: {0}")]
    Report(#[from] serde_json::Error),
    /// A bug in Mayfly.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// The tenants of this process.
pub(crate) struct Server(tenancy::Server);

/// One event-loop thread's workers.
pub(crate) struct LoopPool(tenancy::LoopPool);

/// Starts the tenants that `config_json` describes. Without a usable KVM it starts all the same, and every
/// tenant answers 503.
pub(crate) fn start_server(config_json: &str) -> Result<Box<Server>, BridgeError> {
    guard(|| {
        let config = tenancy::Config::from_json(config_json)?;
        Ok(Box::new(Server(tenancy::Server::start(config)?)))
    })?
}

impl Server {
    /// What runs, as JSON.
    pub(crate) fn report_json(&self) -> Result<String, BridgeError> {
        guard(|| Ok(serde_json::to_string(&self.0.report())?))?
    }

    /// The path prefixes that belong to tenants.
    pub(crate) fn routes(&self) -> Result<Vec<String>, BridgeError> {
        Ok(guard(|| self.0.report().tenants.into_iter().map(|tenant| tenant.path).collect())?)
    }

    /// Workers for the calling thread.
    pub(crate) fn loop_pool(&self) -> Result<Box<LoopPool>, BridgeError> {
        Ok(guard(|| Box::new(LoopPool(self.0.loop_pool())))?)
    }
}

impl LoopPool {
    /// Serves `request` on this thread, if a worker is at hand.
    pub(crate) fn call(&mut self, request: &RequestView, reply: Pin<&mut Reply>) -> Outcome {
        let mut sink = Sink(reply);
        let outcome = guard(|| with_request(request, |request| self.0.call(request, &mut sink)));
        match outcome {
            Ok(tenancy::Outcome::Done) => Outcome::Done,
            Ok(tenancy::Outcome::NeedsWorker) => Outcome::NeedsWorker,
            Err(Panicked { .. }) => {
                internal_error(&mut sink);
                Outcome::Done
            }
        }
    }

    /// Has `request`, which is copied, served in the background. `reply` is sent when that is done; if this
    /// panics it is dropped, which answers too.
    pub(crate) fn call_later(&mut self, request: &RequestView, reply: UniquePtr<Reply>) {
        let _ = guard(|| {
            if let Some(reply) = Deferred::new(reply) {
                with_request(request, |request| self.0.call_later(request, Box::new(reply)));
            }
        });
    }
}

/// Most requests have no more headers than this: their views then live on the stack.
const HEADERS_ON_STACK: usize = 32;

/// Calls `work` with `request` in the tenancy's type.
fn with_request<T>(request: &RequestView, work: impl FnOnce(&Request<'_>) -> T) -> T {
    let headers: SmallVec<[Header<'_>; HEADERS_ON_STACK]> = (0..ffi::request_header_count(request))
        .map(|index| {
            // SAFETY: `index` is below the header count, all that both functions ask for.
            unsafe {
                Header {
                    name: ffi::request_header_name(request, index),
                    value: ffi::request_header_value(request, index),
                }
            }
        })
        .collect();
    work(&Request {
        method: ffi::request_method(request),
        path: ffi::request_path(request),
        query: ffi::request_query(request),
        body: ffi::request_body(request),
        headers: &headers,
    })
}

/// Writes the response for a panic, over whatever was written of another one before it.
fn internal_error(sink: &mut Sink<'_>) {
    const BODY: &[u8] =
        br#"{"error":"internal","reason":"Mayfly failed while serving this request; the server's log says where."}"#;
    sink.status(500);
    sink.header(b"content-type", b"application/json");
    sink.body(BODY.len()).copy_from_slice(BODY);
}
