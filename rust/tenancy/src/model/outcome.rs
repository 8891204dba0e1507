// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of reloads.

use serde::Serialize;

/// A generation that has taken over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reloaded {
    /// Its number.
    pub generation: u64,
    /// How long its program took to boot, in milliseconds. For a rollback, the time of its original boot.
    pub boot_ms: f64,
}

/// Why a tenant's program was not replaced. The previous program keeps running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// There is no tenant of that name.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// The program cannot be read.
    #[error("{0}")]
    Program(String),
    /// The program does not boot.
    #[error("{0}")]
    Boot(String),
    /// During its boot or its health request, the program brings its machine into a state that no well-behaved program
    /// reaches.
    #[error("{0}")]
    Violation(String),
    /// The program boots, but does not pass its health request.
    #[error("the health request failed: {0}")]
    Unhealthy(String),
    /// There is no earlier generation to roll back to.
    #[error("there is no earlier generation")]
    NoPrevious,
    /// Uploads are not configured.
    #[error("the server has no directory for uploads")]
    NoUploads,
    /// The program serves requests now, but could not be stored: it will be missing after a restart of the server.
    #[error("the program runs, but could not be stored: {0}")]
    Persist(String),
    /// The tenant's files do not respond, at least not yet. The work that was begun continues when they do.
    #[error("{0}")]
    Held(String),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Ending,
    /// The tenant's engine cannot be used on this host.
    #[error("the tenant cannot run on this host: {0}")]
    Host(String),
}

/// The result of a new configuration: names of tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Added tenants.
    pub added: Vec<String>,
    /// Removed tenants.
    pub removed: Vec<String>,
    /// Tenants that were booted again, because their program or its configuration changed.
    pub changed: Vec<String>,
    /// Tenants whose new program did not boot, and why. They keep running as before.
    pub failed: Vec<(String, String)>,
}
