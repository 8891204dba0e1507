// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server knows about itself, ready to be written as JSON.

pub(crate) mod metrics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use mayfly_sandbox::PAGE_SIZE;
use serde::Serialize;

use crate::config::TenantConfig;
use crate::memory::MemoryReport;
use crate::model::failure::Failure;
use crate::model::meter::Event;
use crate::model::tenant::{State, Tenant};

/// A server at one moment. Counts are since the start; counts of different threads are read one after the other.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The host, or why it cannot run machines.
    pub host: HostState,
    /// In the order of the configuration.
    pub tenants: Vec<TenantReport>,
    /// Requests for which there was no tenant.
    pub unrouted: u64,
    /// Workers that there are, and at most may be.
    pub workers: usize,
    /// See `workers`.
    pub max_workers: usize,
    /// Requests that have left their loop after their inline budget and are not answered yet.
    pub overflow: usize,
    /// Descriptors that the process has open, and at most may have.
    pub descriptors: u64,
    /// See `descriptors`.
    pub max_descriptors: u64,
    /// Memory that the process has, shared pages included.
    pub resident_bytes: u64,
    /// Memory, what bounds it, and what is done about that.
    pub memory: MemoryReport,
}

/// Whether a server is as far as its configuration wants it before the first request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The host can run tenants, none of those that boot at start is still booting for the first time, and the server
    /// does not end.
    pub ready: bool,
    /// The server has been told to end, and serves what is under way.
    pub ending: bool,
    /// Tenants of these that are still booting.
    pub booting: usize,
    /// Tenants that do not boot. They answer 503, and do not keep the others from being ready.
    pub failed: usize,
}

/// Whether tenants can run here.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HostState {
    /// They can.
    Usable {
        /// The kind of KVM: `hardware` or `paging`.
        kvm: &'static str,
    },
    /// They cannot: what is missing, and what to do about it.
    Unusable {
        /// A sentence for the operator.
        reason: String,
    },
}

/// One tenant.
#[derive(Debug, Serialize)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// Its routes, as in `shop.example/cart`.
    pub routes: Vec<String>,
    /// What becomes of a worker's state after a request: `ephemeral`, `stateful`, or as in `reset-every-100`.
    pub mode: String,
    /// Its program.
    pub program: PathBuf,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: TenantState,
    /// The file that a reload of it waits for, and for how long, if one does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Requests that were its own, answered or not.
    pub requests: u64,
    /// CPU time of its requests, storage program and resets included.
    pub cpu_seconds: f64,
    /// Workers rolled back after a request.
    pub resets: u64,
    /// Workers forked.
    pub forks: u64,
    /// Workers that could not be forked.
    pub fork_failures: u64,
    /// Requests that left their loop: they ran past their inline budget, or no worker was ready.
    pub parked: u64,
    /// Requests that have left their loop and are not answered yet.
    pub in_flight: u32,
    /// Calls of functions of the storage program.
    pub store_calls: u64,
    /// Connections to places outside that the program began.
    pub connects: u64,
    /// Those that it was refused.
    pub refused_connects: u64,
    /// New generations since the start, rollbacks included.
    pub reloads: u64,
    /// Generations that did not come about.
    pub reload_failures: u64,
    /// How often the program was refused a descriptor, a thread, a mapping, by the limit's name.
    pub limit_hits: BTreeMap<&'static str, u64>,
    /// Memory that its machines hold, its frozen programs included.
    pub memory_bytes: u64,
    /// How often they were refused more, since the process had no more.
    pub memory_refusals: u64,
    /// Requests that Mayfly answered instead, by the answer's `error`.
    pub errors: BTreeMap<&'static str, u64>,
    /// How often its program brought a machine into a state that no program needs, in requests, boots and the storage
    /// program.
    pub violations: u64,
    /// Lines that the log limit dropped.
    pub dropped_log_lines: u64,
}

/// Where a tenant is in its life.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TenantState {
    /// It boots when it is first called.
    Unbooted,
    /// Its program has not reached its first wait yet.
    Booting,
    /// It answers requests.
    Ready {
        /// Which of its booted programs answers.
        generation: u64,
        /// How long that one took to boot, or to be loaded.
        boot_ms: f64,
        /// Whether it was booted: `program`, or comes from a file: `snapshot`.
        booted_from: &'static str,
    },
    /// It answers 503.
    Failed {
        /// Why.
        reason: String,
    },
}

impl TenantReport {
    pub(crate) fn of(tenant: &Tenant, config: &TenantConfig) -> Self {
        let totals = tenant.totals();
        let state = match tenant.state() {
            State::Unbooted | State::Booting { .. } if tenant.errands.hang().is_some() => {
                TenantState::Failed { reason: tenant.excuse() }
            }
            State::Unbooted => TenantState::Unbooted,
            State::Booting { .. } => TenantState::Booting,
            State::Failed { reason, .. } => TenantState::Failed { reason },
            State::Ready(generation) => TenantState::Ready {
                generation: generation.number,
                boot_ms: generation.snapshot.boot_time().as_secs_f64() * 1e3,
                booted_from: generation.booted_from(),
            },
        };
        let errors = Failure::ALL
            .iter()
            .map(|&failure| (failure.word(), totals.failures(failure)))
            .filter(|&(_, count)| count > 0)
            .collect();
        let hits = [
            ("descriptors", Event::DescriptorLimit),
            ("threads", Event::ThreadLimit),
            ("mappings", Event::MappingLimit),
        ];
        Self {
            name: config.name.to_string(),
            routes: config.routes.iter().map(ToString::to_string).collect(),
            mode: config.mode.to_string(),
            program: config.program.clone(),
            state,
            waits_for: tenant.errands.hang().map(|hang| hang.to_string()),
            requests: totals.events(Event::Request),
            cpu_seconds: totals.cpu_seconds(),
            resets: totals.events(Event::Reset),
            forks: totals.events(Event::Fork),
            fork_failures: totals.events(Event::ForkFailure),
            parked: totals.events(Event::Parked),
            in_flight: tenant.parked.load(Relaxed),
            store_calls: totals.events(Event::StoreCall),
            connects: totals.events(Event::Connect),
            refused_connects: totals.events(Event::RefusedConnect),
            reloads: tenant.reloads.load(Relaxed),
            reload_failures: tenant.reload_failures.load(Relaxed),
            limit_hits: hits
                .map(|(limit, event)| (limit, totals.events(event)))
                .into_iter()
                .filter(|&(_, count)| count > 0)
                .collect(),
            memory_bytes: tenant.account.held().saturating_mul(PAGE_SIZE),
            memory_refusals: tenant.account.refused(),
            errors,
            violations: tenant.log.violations(),
            dropped_log_lines: tenant.log.dropped_lines(),
        }
    }
}
