// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries that C++ calls.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cxx::UniquePtr;
use mayfly_admin::{Admin, AdminError};
use mayfly_tenancy as tenancy;
use smallvec::SmallVec;
use tenancy::logging::{self, LogGuard};
use tenancy::{Failure, Header, Request};

use crate::ffi::{self, Outcome, Reply, RequestView};
use crate::guard::{Panicked, guard};
use crate::reply::{Deferred, Sink};
use crate::waker::OtherThreads;

/// Why an entry other than a call failed; C++ sees its text as the exception's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] tenancy::ConfigError),
    /// The tenants could not be started.
    #[error(transparent)]
    Start(#[from] tenancy::StartError),
    /// Operators would not reach the server, or changes of files would go unseen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A tenant goes on as it was.
    #[error(transparent)]
    Reload(#[from] tenancy::ReloadError),
    /// A report could not be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A limit of the process is too low.
    #[error(transparent)]
    TooLow(#[from] tenancy::TooLow),
    /// A bug in Mayfly.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// The tenants of this process, and its log.
pub(crate) struct Server {
    tenancy: tenancy::Server,
    /// The listener for operators and the watch over files, until the end.
    admin: Mutex<Option<Admin>>,
    /// Writes what waits when the server ends.
    _log: LogGuard,
}

/// One event-loop thread's workers.
pub(crate) struct LoopPool(tenancy::LoopPool);

/// Starts the tenants that `config_json` describes, the listener for operators and the watch over files. Without a
/// usable KVM it starts all the same, and every tenant answers 503.
pub(crate) fn start_server(config_json: &str) -> Result<Box<Server>, BridgeError> {
    guard(|| {
        let log = logging::init("info");
        let tenancy = tenancy::Server::start(parse(config_json)?)?;
        let admin = Mutex::new(Some(Admin::start(&tenancy)?));
        Ok(Box::new(Server { tenancy, admin, _log: log }))
    })?
}

/// Makes sure that the process may have enough descriptors for a server that opens `later` more before it starts
/// Mayfly.
pub(crate) fn require_descriptors(later: u64) -> Result<(), BridgeError> {
    guard(|| Ok(tenancy::require_descriptors(later)?))?
}

/// Whether a connection that was just accepted can be kept.
pub(crate) fn has_room_for_connection() -> bool {
    guard(tenancy::for_connection).unwrap_or(true)
}

fn parse(config_json: &str) -> Result<tenancy::Config, BridgeError> {
    // C++ wrote this text from what it had parsed, so the text's lines and columns would tell its reader nothing.
    let config = serde_json::from_str(config_json).map_err(tenancy::ConfigError::syntax)?;
    Ok(tenancy::Config::from_value(&config)?)
}

impl Server {
    /// What runs, as JSON.
    pub(crate) fn report_json(&self) -> Result<String, BridgeError> {
        guard(|| Ok(serde_json::to_string(&self.tenancy.report())?))?
    }

    /// What runs, as Prometheus reads it.
    pub(crate) fn metrics(&self) -> Result<String, BridgeError> {
        Ok(guard(|| self.tenancy.metrics())?)
    }

    /// Whether one of the tenants has what is nobody else's.
    pub(crate) fn has_default(&self) -> Result<bool, BridgeError> {
        Ok(guard(|| self.tenancy.config().tenants.iter().any(|tenant| tenant.is_default))?)
    }

    /// Puts another configuration in force; what came of it, as JSON.
    pub(crate) fn apply(&self, config_json: &str) -> Result<String, BridgeError> {
        guard(|| Ok(serde_json::to_string(&self.tenancy.apply(parse(config_json)?))?))?
    }

    /// Boots a tenant's program again; the number of the generation that answers now.
    pub(crate) fn reload(&self, tenant: &str) -> Result<u64, BridgeError> {
        guard(|| Ok(self.tenancy.reload(tenant)?.generation))?
    }

    /// Goes back to a tenant's former generation, and returns its number.
    pub(crate) fn rollback(&self, tenant: &str) -> Result<u64, BridgeError> {
        guard(|| Ok(self.tenancy.rollback(tenant)?.generation))?
    }

    /// Tells operators that the server ends.
    pub(crate) fn begin_end(&self, at_most_ms: u64) {
        // After a panic, which the panic hook has told, the end goes on without a word to operators.
        let _ = guard(|| self.tenancy.begin_end(Duration::from_millis(at_most_ms)));
    }

    /// Requests that have left their loops and are not answered yet.
    pub(crate) fn in_work(&self) -> u32 {
        guard(|| self.tenancy.in_work()).unwrap_or(0)
    }

    /// Ends what operators and changed files do, and answers what waits; no deferred reply is sent once this has
    /// returned.
    pub(crate) fn shutdown(&self) {
        // There is nothing to be done about a panic here: the process is about to end.
        let _ = guard(|| {
            drop(self.admin.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.tenancy.shutdown();
        });
    }

    /// Workers for the calling thread.
    pub(crate) fn loop_pool(&self) -> Result<Box<LoopPool>, BridgeError> {
        Ok(guard(|| Box::new(LoopPool(self.tenancy.loop_pool())))?)
    }
}

impl LoopPool {
    /// Whether a tenant other than the default one has this host and path.
    pub(crate) fn claims(&mut self, host: &[u8], path: &[u8]) -> bool {
        // After a panic the request is whose it would be without tenants.
        guard(|| self.0.claims(host, path)).unwrap_or(false)
    }

    /// Whether one of the tenants has what is nobody else's.
    pub(crate) fn has_default(&mut self) -> bool {
        guard(|| self.0.has_default()).unwrap_or(false)
    }

    /// Serves `request` on this thread, if that takes no longer than the tenant's inline budget.
    pub(crate) fn call(&mut self, request: &RequestView, reply: Pin<&mut Reply>) -> Outcome {
        let mut sink = Sink(reply);
        with_request(request, |request| match guard(|| self.0.call(request, &mut sink)) {
            Ok(tenancy::Outcome::Done) => Outcome::Done,
            Ok(tenancy::Outcome::Later) => Outcome::Later,
            Err(Panicked { .. }) => {
                self.0.refuse(request, Failure::Internal, "the server made a mistake; its log says where", &mut sink);
                Outcome::Done
            }
        })
    }

    /// Has `request`, for which [`Self::call`] said `Later`, served in the background. `reply` is sent when that is
    /// done; if this panics it is dropped, which answers too.
    pub(crate) fn call_later(&mut self, request: &RequestView, reply: UniquePtr<Reply>) {
        let _ = guard(|| {
            if let Some(reply) = Deferred::new(reply) {
                with_request(request, |request| self.0.call_later(request, Box::new(reply)));
            }
        });
    }

    /// Has `waker` called, on other threads, when the pool's own thread is to call [`Self::tend`]; null: none is.
    pub(crate) fn set_waker(&mut self, waker: UniquePtr<ffi::Waker>) {
        let _ = guard(|| match OtherThreads::new(waker) {
            Some(waker) => self.0.set_waker(move || waker.wake()),
            None => self.0.clear_waker(),
        });
    }

    /// Does what is to be done besides requests.
    pub(crate) fn tend(&mut self) {
        let _ = guard(|| self.0.tend());
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
