// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the format about programs that are servers of their own: what they are asked for until they are frozen,
//! and after that.
//!
//! The doc comments are the descriptions in the published schema.

use std::collections::BTreeMap;
use std::time::Duration;

use mayfly_sandbox::{Readiness, Target, WarmUp};
use schemars::JsonSchema;
use serde::Deserialize;

use super::run::Serve;
use super::{ConfigError, ServiceConfig};
use crate::config::json::Key;
use crate::config::values::{Bounded, FieldName, FieldValue, Method, RequestTarget, WarmUpBody};

const WARM_UP_TIMES: u32 = 1;
const READY_STATUS: u16 = 200;
const READY_WITHIN_MS: u64 = 30_000;
/// See decision 283.
pub(super) const SETTLE_MS: u64 = 2000;

/// A request that a program must answer before it counts as ready: a GET.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ready {
    /// The path, with the query if there is one.
    path: RequestTarget,
    /// The status that the program answers once it is ready.
    #[schemars(extend("default" = READY_STATUS))]
    status: Option<Bounded<200, 599>>,
    /// How long the program may take to become ready, once it listens. `boot_ms` bounds the boot as a whole.
    #[schemars(extend("default" = READY_WITHIN_MS))]
    within_ms: Option<Bounded<1, 600_000>>,
}

impl From<Ready> for Readiness {
    fn from(ready: Ready) -> Self {
        Self {
            target: Target::new(ready.path.as_str()),
            status: ready.status.map_or(READY_STATUS, Bounded::u16),
            within: Duration::from_millis(ready.within_ms.map_or(READY_WITHIN_MS, Bounded::get)),
        }
    }
}

/// How long a program idles before it is frozen, in milliseconds.
pub(super) type SettleMs = Bounded<0, 600_000>;

/// A request that a program serves before it is frozen, so that its code and its caches are warm.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WarmUpRequest {
    /// The path, with the query if there is one.
    path: RequestTarget,
    /// The method.
    #[schemars(extend("default" = "GET"))]
    method: Option<Method>,
    /// Headers, by name. The default of "host" is "localhost".
    #[serde(default)]
    headers: BTreeMap<FieldName, FieldValue>,
    /// The body. Its length is sent, too.
    #[serde(default)]
    #[schemars(extend("default" = ""))]
    body: Option<WarmUpBody>,
    /// How often it is sent.
    #[schemars(extend("default" = WARM_UP_TIMES))]
    times: Option<Bounded<1, 100_000>>,
    /// Whether it is repeated further, for up to two seconds, until it no longer gets cheaper. For programs with
    /// just-in-time compilers and garbage collectors.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    steady: bool,
}

impl WarmUpRequest {
    fn into_request(self) -> WarmUp {
        let (path, query) = self.path.as_str().split_once('?').unwrap_or((self.path.as_str(), ""));
        let header = |(name, value): (FieldName, FieldValue)| {
            (name.as_str().to_ascii_lowercase().into_bytes(), String::from(value).into_bytes())
        };
        WarmUp {
            method: self.method.map_or_else(|| b"GET".to_vec(), |method| String::from(method).into_bytes()),
            path: path.into(),
            query: query.into(),
            headers: self.headers.into_iter().map(header).collect(),
            body: self.body.map(|body| String::from(body).into_bytes()).unwrap_or_default(),
            times: self.times.map_or(WARM_UP_TIMES, Bounded::u32),
            steady: self.steady,
        }
    }
}

/// The port of a program's application.
pub(super) type Port = Bounded<1, 65_535>;

/// The keys of a tenant's program that is a server of its own.
pub(super) struct ServiceKeys {
    pub(super) port: Option<Port>,
    pub(super) ready: Option<Ready>,
    pub(super) warm_up: Option<Vec<WarmUpRequest>>,
    pub(super) settle_ms: Option<SettleMs>,
    pub(super) before_freeze: Option<RequestTarget>,
    pub(super) after_restore: Option<RequestTarget>,
}

impl ServiceKeys {
    /// The settings, if the program is such a server.
    pub(super) fn check(self, serve: Serve) -> Result<Option<ServiceConfig>, ConfigError> {
        let Self { port, ready, warm_up, settle_ms, before_freeze, after_restore } = self;
        if serve == Serve::Doorbell {
            let keys = [
                ("port", port.is_some()),
                ("ready", ready.is_some()),
                ("warm_up", warm_up.is_some()),
                ("settle_ms", settle_ms.is_some()),
                ("before_freeze", before_freeze.is_some()),
                ("after_restore", after_restore.is_some()),
            ];
            let Some((key, _)) = keys.into_iter().find(|(_, is_set)| *is_set) else { return Ok(None) };
            let instead = match key {
                "ready" | "settle_ms" => ": a program with the SDK is ready when it waits for a request",
                "before_freeze" => ": a program with the SDK prepares before it waits for a request",
                "after_restore" => ": a program with the SDK prepares when it gets its request",
                _ => "",
            };
            let problem = format!("only for programs with `\"serve\": \"connections\"`{instead}");
            return Err(ConfigError::new(&[Key::from(key)], problem));
        }
        let target = |target: RequestTarget| Target::new(target.as_str());
        Ok(Some(ServiceConfig {
            port: port.map(Bounded::u16),
            ready: ready.map(Readiness::from),
            warm_up: warm_up.unwrap_or_default().into_iter().map(WarmUpRequest::into_request).collect(),
            settle: Duration::from_millis(settle_ms.map_or(SETTLE_MS, Bounded::get)),
            before_freeze: before_freeze.map(target),
            after_restore: after_restore.map(target),
        }))
    }
}
