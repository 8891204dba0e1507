// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many tenants in one process: configuration, routing, worker pools, limits, hot reload, counting.
//!
//! ```text
//!  Config ──> Server ── TenantSet (epoch) ── Tenant ── Generation (snapshot) ──> Generation …
//!               │ loop_pool()                             ^ forks
//!               v                                         │
//!            LoopPool ── slot ── worker <── mailbox ──────┴─ Forker
//!               │          (none?) ──> Deferred: forks one, serves the first slice ──┐
//!               │ inline budget over ──> Overflow: turns of 5 ms, by tenant <────────┴──> DeferredReply
//! ```
//!
//! # Invariants
//!
//! - A loop thread never creates or closes a machine, and never waits for one.
//! - While a tenant answers within its inline budget, a request takes no lock and allocates nothing in this crate.
//! - Every request receives exactly one complete response.
//! - A worker that is not ready after a call, or belongs to another generation than the tenant's current one, is never
//!   called again.
//! - The number of requests outside the loops is bounded, per tenant and in total.
//!
//! # Life cycle
//!
//! Call [`Server::shutdown`], or drop the server and its pools, before anything that deferred replies refer to is
//! freed. [`logging::init`] sends the log to standard error; the process's main program calls it once.
//! [`LoopPool::refuse`] answers, in the same form, a request that the HTTP server in front rejects. A sink takes the
//! body first (see [`ResponseSink`]). It may receive a second response, which replaces the first.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

pub mod bench;
mod config;
mod host;
mod http1;
pub mod inbound;
mod life;
pub mod logging;
mod memory;
mod model;
mod pool;
mod report;
mod run;
mod schedule;
mod server;

pub use config::client::{ClientConfig, ClientHeaders};
pub use config::cpu_share::CpuShare;
pub use config::launch::LaunchError;
pub use config::limits::Limits;
pub use config::network::Network;
pub use config::schema::tenants_schema;
pub use config::values::{HostPattern, KeyDigest, RoutePath, TenantName};
pub use config::watched_files::WatchedFiles;
pub use config::{
    AdminConfig, BootWhen, Config, ConfigError, HealthConfig, Mode, PLUGIN_NAME, Position, Route, ServiceConfig,
    SharedConfig, StorageConfig, TenantConfig,
};
pub use host::descriptors::{TooLow, for_connection, require as require_descriptors};
pub use host::resources::{room_for_a_thread, with_advice};
pub use http1::Http1;
pub use mayfly_sandbox::{Client, Header, Request, ResponseSink};
pub use memory::{Bound, MemoryReport};
pub use model::failure::Failure;
pub use model::outcome::{Applied, ReloadError, Reloaded};
pub use pool::{LoopPool, Outcome, RouteHit};
pub use report::metrics::METRICS_CONTENT_TYPE;
pub use report::{
    AutoReport, EngineState, FixedWorkersReport, HostReport, HostState, Readiness, Report, TenantReport, TenantState,
    Usability,
};
pub use run::reply::DeferredReply;
pub use server::{Server, StartError};
