// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many tenants in one process: configuration, routing, worker pools, counting.
//!
//! ```text
//!  Config ──> Server ── boots ──> Tenant (snapshot, or why there is none)
//!               │ loop_pool()                      ^ forks
//!               v                                  │
//!            LoopPool ── slot ── worker <── berth ─┴─ Forker (one thread)
//!   a loop thread's own          (empty?) ──> Deferred (two threads, bounded queue) ──> DeferredReply
//! ```
//!
//! # Invariants
//!
//! - A loop thread never creates or closes a virtual machine, and never waits for one.
//! - While a tenant answers, a request takes no lock and allocates nothing on this floor.
//! - Every request gets exactly one complete response.
//! - A worker that is not ready after a call, or is of another generation than the tenant's, is never called again.
//!
//! # Beyond the agreed surface
//!
//! [`Server::shutdown`] must be called (or the server and its pools dropped) before what deferred replies refer to goes away.
//! [`logging::init`] sends the log to standard error; whoever owns the process calls it once. [`LoopPool::refuse`] answers for what
//! the HTTP server in front finds wrong, in the same form. Limits have a key more than planned: `work_set_kib`. A sink takes the
//! body first (see [`ResponseSink`]), and may be given a second response that replaces the first.

mod config;
mod deferred;
mod failure;
mod forker;
mod json;
mod limits;
pub mod logging;
mod meter;
mod pool;
mod report;
mod request;
mod route;
mod serve;
mod server;
mod tenant;
mod tenant_log;
mod values;

pub use config::{
    AdminConfig, BootWhen, Config, ConfigError, HealthConfig, Mode, PLUGIN_NAME, Position, Route, SharedConfig,
    StorageConfig, TenantConfig,
};
pub use deferred::DeferredReply;
pub use failure::Failure;
pub use limits::Limits;
pub use mayfly_sandbox::{Header, Request, ResponseSink};
pub use pool::{LoopPool, Outcome};
pub use report::{HostState, Report, TenantReport, TenantState};
pub use server::{Server, StartError};
pub use values::{HostPattern, KeyDigest, RoutePath, TenantName};
