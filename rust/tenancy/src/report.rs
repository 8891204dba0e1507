// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server knows about itself, ready to be written as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// A server at one moment. Counts are since the start; counts of different threads are read one after the other.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The host, or why it cannot run machines.
    pub host: HostState,
    /// In the order of the configuration.
    pub tenants: Vec<TenantReport>,
    /// Requests for which there was no tenant.
    pub unrouted: u64,
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
    /// Its path prefix.
    pub path: String,
    /// Its program.
    pub program: PathBuf,
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: TenantState,
    /// Requests that were its own, answered or not.
    pub requests: u64,
    /// Workers rolled back after a request.
    pub resets: u64,
    /// Workers forked.
    pub forks: u64,
    /// Requests that Mayfly answered instead, by the answer's `error`.
    pub errors: BTreeMap<&'static str, u64>,
    /// Lines that the log limit dropped.
    pub dropped_log_lines: u64,
}

/// Where a tenant is in its life.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TenantState {
    /// Its program has not reached its first wait yet.
    Booting,
    /// It answers requests.
    Ready {
        /// Which of its booted programs answers.
        generation: u64,
        /// How long that one took to boot.
        boot_ms: f64,
    },
    /// It answers 503.
    Failed {
        /// Why.
        reason: String,
    },
}
