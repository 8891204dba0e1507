// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many tenants in one process: configuration, routing, worker pools, limits, hot reload, counting.
//!
//! ```text
//!  Config ──> Server ── TenantSet (epoch) ── Tenant ── Generation (snapshot) ──> Generation …
//!               │ loop_pool()                             ^ forks
//!               v                                         │
//!            LoopPool ── slot ── worker <── berth ────────┴─ Forker
//!               │          (none?) ──> Deferred: forks one, serves the first slice ──┐
//!               │ inline budget over ──> Overflow: turns of 5 ms, by tenant <────────┴──> DeferredReply
//! ```
//!
//! # Invariants
//!
//! - A loop thread never creates or closes a virtual machine, and never waits for one.
//! - While a tenant answers within its inline budget, a request takes no lock and allocates nothing on this floor.
//! - Every request gets exactly one complete response.
//! - A worker that is not ready after a call, or is of another generation than the tenant's, is never called again.
//! - What a tenant has in work outside the loops is bounded, by itself and among all.
//!
//! # Life
//!
//! [`Server::shutdown`] must be called (or the server and its pools dropped) before what deferred replies refer to goes away.
//! [`logging::init`] sends the log to standard error; whoever owns the process calls it once. [`LoopPool::refuse`] answers for what
//! the HTTP server in front finds wrong, in the same form. A sink takes the body first (see [`ResponseSink`]), and may be given a
//! second response that replaces the first.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod advice;
mod background;
pub mod bench;
mod berth;
mod call;
mod config;
mod deferred;
mod descriptors;
mod destination;
mod failure;
mod fair;
mod gate;
mod generation;
mod health;
mod http1;
pub mod inbound;
mod json;
mod launch;
mod limits;
pub mod logging;
mod memory;
mod meter;
mod metrics;
mod outside;
mod overflow;
mod places;
mod pool;
mod reload;
mod report;
mod request;
mod resources;
mod route;
mod schema;
mod server;
mod sleepers;
mod snapshots;
mod storage;
mod tenant;
mod tenant_log;
mod uploads;
mod values;
mod watched;
mod workers;

pub use config::{
    AdminConfig, BootWhen, Config, ConfigError, HealthConfig, Mode, PLUGIN_NAME, Position, Route, ServiceConfig,
    SharedConfig, StorageConfig, TenantConfig,
};
pub use deferred::DeferredReply;
pub use descriptors::{TooLow, for_connection, require as require_descriptors};
pub use failure::Failure;
pub use http1::Http1;
pub use launch::LaunchError;
pub use limits::Limits;
pub use mayfly_sandbox::{Header, Request, ResponseSink};
pub use memory::{Bound, MemoryReport};
pub use metrics::METRICS_CONTENT_TYPE;
pub use pool::{LoopPool, Outcome, RouteHit};
pub use reload::{Applied, ReloadError, Reloaded};
pub use report::{HostState, Readiness, Report, TenantReport, TenantState};
pub use resources::{room_for_a_thread, with_advice};
pub use schema::tenants_schema;
pub use server::{Server, StartError};
pub use values::{HostPattern, KeyDigest, RoutePath, TenantName};
pub use watched::WatchedFiles;
