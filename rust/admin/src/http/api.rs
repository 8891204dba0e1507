// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of operators and tenants' owners: rights, bounds, answers. `docs/configuration.md` has the table.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, EXPECT, HOST, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use mayfly_tenancy::{AdminConfig, Config, METRICS_CONTENT_TYPE, ReloadError, Reloaded};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::changes::reload::Reloads;
use crate::http::answer::{
    Answer, Refusal, answer, busy, changes_answer, internal_error, readiness, refusal, refused, reload_refusal,
    response, rounded,
};
use crate::http::auth::{Caller, caller};
use crate::http::body::{self, BodyError};
use crate::http::endpoint::Endpoint;
use crate::http::patience::Patience;
use crate::tenants::Tenants;

/// Uploads at a time: each is held in memory.
const UPLOADS: usize = 2;
/// Changes at a time: each holds a thread for as long as programs boot.
const CHANGES: usize = 4;
/// Reports at a time; further requests wait, since a report takes little time.
const LOOKS: usize = 2;

/// The interface, with its bounds.
pub(crate) struct Api<T> {
    reloads: Reloads<T>,
    patience: Patience,
    /// Whether the listener is on a loopback address. It is not read from the configuration: a new one that moves the
    /// listener takes effect at the next start only.
    is_local: bool,
    looks: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    start: Instant,
    /// The second since the start in which a refused key was last logged.
    refused_at: AtomicU64,
}

impl<T: Tenants> Api<T> {
    pub(crate) fn new(reloads: Reloads<T>, patience: Patience, is_local: bool) -> Self {
        Self {
            reloads,
            patience,
            is_local,
            looks: Arc::new(Semaphore::new(LOOKS)),
            changes: Arc::new(Semaphore::new(CHANGES)),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            start: Instant::now(),
            refused_at: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, from: Option<SocketAddr>) -> Answer {
        let (head, body) = request.into_parts();
        let answer = match self.route(&head.method, head.uri.path(), &head.headers, from) {
            Ok((endpoint, config)) => match endpoint {
                Endpoint::Upload(tenant) => return self.upload(tenant, &config, body, from).await,
                endpoint => self.serve(endpoint, from).await,
            },
            Err(refusal) => refused(refusal),
        };
        // A client that waits for `100 Continue` is answered at once.
        if !head.headers.contains_key(EXPECT) {
            body::discard(body).await;
        }
        answer
    }

    /// Finds the endpoint, and checks that the caller may use it.
    fn route<'a>(
        &self,
        method: &Method,
        path: &'a str,
        headers: &HeaderMap,
        from: Option<SocketAddr>,
    ) -> Result<(Endpoint<'a>, Arc<Config>), Refusal> {
        let nothing = || refusal(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path");
        let endpoint = Endpoint::find(path).ok_or_else(nothing)?;
        if !endpoint.allow().split(", ").any(|allowed| allowed == method.as_str()) {
            let reason = format!("expected {}", endpoint.allow());
            let refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", reason);
            return Err(refusal.with(ALLOW, endpoint.allow()));
        }
        let config = self.reloads.tenants.config();
        if matches!(endpoint, Endpoint::Health | Endpoint::Ready) {
            return Ok((endpoint, config));
        }
        // A listener that a new configuration removes stays open until the server restarts.
        let admin = config.admin.as_ref().ok_or_else(nothing)?;
        let who = caller(&config, endpoint.tenant(), headers);
        match (endpoint, who) {
            (Endpoint::Status | Endpoint::Metrics, Caller::Unknown) if admin.key.is_none() && self.is_local => {
                local(headers)?;
            }
            (_, Caller::Operator) => {}
            (Endpoint::Upload(_) | Endpoint::Rollback(_) | Endpoint::Reload(_), Caller::Owner) => {}
            (_, Caller::Owner | Caller::Unknown) => {
                self.log_refused_key(endpoint, from);
                // The answer does not depend on whether a tenant of that name exists.
                let reason = "expected `Authorization: Bearer KEY` with a key that allows this";
                let refusal = refusal(StatusCode::UNAUTHORIZED, "unauthorized", reason);
                return Err(refusal.with(WWW_AUTHENTICATE, "Bearer"));
            }
        }
        if let Some(name) = endpoint.tenant()
            && !config.tenants.iter().any(|tenant| tenant.name.as_str() == name)
        {
            return Err(reload_refusal(&ReloadError::UnknownTenant));
        }
        Ok((endpoint, config))
    }

    /// Logs at most one line a second: guessing keys must not fill the disk.
    fn log_refused_key(&self, endpoint: Endpoint<'_>, from: Option<SocketAddr>) {
        let second = self.start.elapsed().as_secs();
        if self.refused_at.swap(second, Ordering::Relaxed) != second {
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            let what = endpoint.word();
            tracing::warn!(target: "mayfly::admin", from, what, "refused: no key, or not the right one");
        }
    }

    async fn serve(&self, endpoint: Endpoint<'_>, from: Option<SocketAddr>) -> Answer {
        match endpoint {
            Endpoint::Health => answer(StatusCode::OK, &json!({ "status": "ok" })),
            Endpoint::Ready => readiness(&self.reloads.tenants.readiness()),
            Endpoint::Status => self.look(T::status, "application/json").await,
            Endpoint::Metrics => self.look(T::metrics, METRICS_CONTENT_TYPE).await,
            Endpoint::ReloadAll => {
                let Ok(place) = Arc::clone(&self.changes).try_acquire_owned() else { return busy() };
                log(endpoint, from);
                let reloads = self.reloads.clone();
                let look = tokio::spawn(async move {
                    let _place = place;
                    reloads.everything().await
                });
                look.await.map_or_else(|_| internal_error(), |changes| changes_answer(&changes))
            }
            Endpoint::Rollback(tenant) => {
                self.change(endpoint, tenant, from, |tenants, name| tenants.rollback(name)).await
            }
            Endpoint::Reload(tenant) => self.change(endpoint, tenant, from, |tenants, name| tenants.reload(name)).await,
            // `answer` has handled uploads, which have a body.
            Endpoint::Upload(_) => busy(),
        }
    }

    async fn look(&self, write: fn(&T) -> String, content_type: &'static str) -> Answer {
        // The semaphore is never closed.
        let place = Arc::clone(&self.looks).acquire_owned().await.ok();
        let tenants = self.reloads.tenants.clone();
        let look = move || {
            let _place = place;
            write(&tenants)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(text) => response(StatusCode::OK, content_type, text),
            Err(_) => internal_error(),
        }
    }

    async fn upload(&self, tenant: &str, config: &Config, body: Incoming, from: Option<SocketAddr>) -> Answer {
        let Some(AdminConfig { upload_bytes, .. }) = config.admin.as_ref().filter(|admin| admin.uploads.is_some())
        else {
            body::discard(body).await;
            return refused(reload_refusal(&ReloadError::NoUploads));
        };
        let Ok(place) = Arc::clone(&self.uploads).try_acquire_owned() else {
            body::discard(body).await;
            return busy();
        };
        let elf = match body::read(body, *upload_bytes, self.patience.pause, self.patience.body).await {
            Ok(elf) => elf,
            Err(BodyError::TooLarge) => {
                let reason = format!("the program is above the limit of {upload_bytes} bytes");
                return refused(refusal(StatusCode::PAYLOAD_TOO_LARGE, "program-too-large", reason));
            }
            Err(BodyError::TooSlow | BodyError::Broken) => {
                let reason = "the program did not arrive in time";
                return refused(refusal(StatusCode::REQUEST_TIMEOUT, "too-slow", reason));
            }
        };
        let upload = move |tenants: &T, name: &str| {
            let _place = place;
            tenants.upload(name, elf)
        };
        self.change(Endpoint::Upload(tenant), tenant, from, upload).await
    }

    /// Makes a change on a thread that may block. Once begun it goes on, even if the client disconnects.
    async fn change(
        &self,
        endpoint: Endpoint<'_>,
        tenant: &str,
        from: Option<SocketAddr>,
        change: impl FnOnce(&T, &str) -> Result<Reloaded, ReloadError> + Send + 'static,
    ) -> Answer {
        let Ok(place) = Arc::clone(&self.changes).try_acquire_owned() else { return busy() };
        log(endpoint, from);
        let (tenants, name) = (self.reloads.tenants.clone(), tenant.to_owned());
        let change = move || {
            // The permit belongs to the work, not to the client, which may disconnect and try again.
            let _place = place;
            change(&tenants, &name)
        };
        match tokio::task::spawn_blocking(change).await {
            Ok(Ok(Reloaded { generation, boot_ms, .. })) => {
                let body = json!({ "tenant": tenant, "generation": generation, "boot_ms": rounded(boot_ms) });
                answer(StatusCode::OK, &body)
            }
            Ok(Err(error)) => refused(reload_refusal(&error)),
            Err(_) => internal_error(),
        }
    }
}

fn log(endpoint: Endpoint<'_>, from: Option<SocketAddr>) {
    let from = from.map(|from| from.to_string()).unwrap_or_default();
    let tenant = endpoint.tenant().unwrap_or("(all)");
    tracing::info!(target: "mayfly::admin", %tenant, from, "{} was asked for", endpoint.word());
}

/// Without a key, the status is for callers on this host. A page in a browser there is no such caller: it can reach the
/// listener under a name of its own (DNS rebinding), but then the `Host` header has that name.
fn local(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let reason = "expected an address or localhost as Host; other names are served with `key_sha256` only";
    Err(refusal(StatusCode::MISDIRECTED_REQUEST, "wrong-host", reason))
}
