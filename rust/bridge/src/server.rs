// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries that C++ calls.

use std::pin::Pin;

use cxx::UniquePtr;
use mayfly_tenancy as tenancy;
use smallvec::SmallVec;
use tenancy::logging::{self, LogGuard};
use tenancy::{Failure, Header, Request};

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

/// The tenants of this process, and its log.
pub(crate) struct Server {
    tenancy: tenancy::Server,
    /// Writes what waits when the server ends.
    _log: LogGuard,
}

/// One event-loop thread's workers.
pub(crate) struct LoopPool(tenancy::LoopPool);

/// Starts the tenants that `config_json` describes. Without a usable KVM it starts all the same, and every
/// tenant answers 503.
pub(crate) fn start_server(config_json: &str) -> Result<Box<Server>, BridgeError> {
    guard(|| {
        let log = logging::init("info");
        // C++ wrote this text from what it had parsed, so the text's lines and columns would tell its reader nothing.
        let config = serde_json::from_str(config_json).map_err(tenancy::ConfigError::syntax)?;
        let config = tenancy::Config::from_value(&config)?;
        Ok(Box::new(Server { tenancy: tenancy::Server::start(config)?, _log: log }))
    })?
}

impl Server {
    /// What runs, as JSON.
    pub(crate) fn report_json(&self) -> Result<String, BridgeError> {
        guard(|| Ok(serde_json::to_string(&self.tenancy.report())?))?
    }

    /// The path prefixes that belong to tenants.
    pub(crate) fn routes(&self) -> Result<Vec<String>, BridgeError> {
        Ok(guard(|| {
            let config = self.tenancy.config();
            config.tenants.iter().flat_map(|tenant| &tenant.routes).map(|route| route.path.to_string()).collect()
        })?)
    }

    /// Answers what waits for a worker; no deferred reply is sent once this has returned.
    pub(crate) fn shutdown(&self) {
        // There is nothing to be done about a panic here: the process is about to end.
        let _ = guard(|| self.tenancy.shutdown());
    }

    /// Workers for the calling thread.
    pub(crate) fn loop_pool(&self) -> Result<Box<LoopPool>, BridgeError> {
        Ok(guard(|| Box::new(LoopPool(self.tenancy.loop_pool())))?)
    }
}

impl LoopPool {
    /// Serves `request` on this thread, if a worker is at hand.
    pub(crate) fn call(&mut self, request: &RequestView, reply: Pin<&mut Reply>) -> Outcome {
        let mut sink = Sink(reply);
        with_request(request, |request| match guard(|| self.0.call(request, &mut sink)) {
            Ok(tenancy::Outcome::Done) => Outcome::Done,
            Ok(tenancy::Outcome::Later) => Outcome::NeedsWorker,
            Err(Panicked { .. }) => {
                self.0.refuse(request, Failure::Internal, "the server made a mistake; its log says where", &mut sink);
                Outcome::Done
            }
        })
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
