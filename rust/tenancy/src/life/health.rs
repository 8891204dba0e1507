// SPDX-License-Identifier: MIT OR Apache-2.0
//! The request that a new generation must answer before it takes over.
//!
//! It is served like a client's request, by a worker of its own, on a thread that may block. If the program calls its
//! storage program, that is the same one that serves requests, and the call waits for its worker.

use mayfly_sandbox::{BufferedResponse, CallError, PeerError, Request, Snapshot, Worker};

use crate::config::{HealthConfig, TenantConfig};
use crate::model::failure::RequestId;
use crate::model::outcome::ReloadError;
use crate::model::store::{Next, Store};

/// Calls a fresh worker. `send_on` receives the storage program's next ticket when a call of it has finished.
pub(crate) fn check(
    snapshot: &Snapshot,
    config: &TenantConfig,
    health: &HealthConfig,
    store: Option<&Store>,
    send_on: &dyn Fn(Option<Next>),
) -> Result<(), ReloadError> {
    let (path, query) = health.path.split_once('?').unwrap_or((&health.path, ""));
    let request = Request {
        method: b"GET",
        path: path.as_bytes(),
        query: query.as_bytes(),
        headers: &[],
        body: b"",
        client: None,
    };
    let mut response = BufferedResponse::default();
    let mut worker = Worker::fork(snapshot).map_err(|error| ReloadError::Unhealthy(error.to_string()))?;
    let called = worker.call_with_peer(RequestId::NONE.0, &request, &mut response, |call| match store {
        Some(store) => store.call(call, send_on),
        None => Err(PeerError::NoPeer),
    });
    match called {
        Ok(_) if response.status == health.status => Ok(()),
        Ok(_) => Err(ReloadError::Unhealthy(format!(
            "{} of {} answered {} instead of {}{}{}",
            health.path,
            config.name,
            response.status,
            health.status,
            response.excerpt(),
            hint(config),
        ))),
        Err(error @ CallError::Violation(_)) => Err(ReloadError::Violation(format!("health request: {error}"))),
        Err(error) => Err(ReloadError::Unhealthy(error.to_string())),
    }
}

/// What else may be the reason. Every fork of a program that was frozen before it was ready gives the same answer.
fn hint(config: &TenantConfig) -> &'static str {
    match &config.service {
        Some(service) if service.ready.is_none() => {
            " (a program that becomes ready only after it listens needs \"ready\")"
        }
        _ => "",
    }
}
