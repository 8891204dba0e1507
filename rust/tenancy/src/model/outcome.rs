// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a reload came to.

use serde::Serialize;

/// A generation that answers from now on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reloaded {
    /// Its number.
    pub generation: u64,
    /// How long its program took to boot; for a rollback, when it was booted first.
    pub boot_ms: f64,
}

/// Why a tenant's program was not replaced. What ran before goes on.
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
    /// The program brings its machine into a state that no program needs, in its boot or its health request.
    #[error("{0}")]
    Violation(String),
    /// The program boots, but does not answer its health request as it should.
    #[error("the health request failed: {0}")]
    Unhealthy(String),
    /// There is no earlier generation to go back to.
    #[error("there is no earlier generation")]
    NoPrevious,
    /// Uploads are not configured.
    #[error("the server has no directory for uploads")]
    NoUploads,
    /// The program answers requests now, but could not be kept: the next start of the server will not have it.
    #[error("the program runs, but could not be stored: {0}")]
    Persist(String),
    /// Its files do not answer, or not yet: what was begun goes on when they do.
    #[error("{0}")]
    Held(String),
    /// The server ends.
    #[error("the server is shutting down")]
    Ending,
    /// This host cannot run machines.
    #[error("no tenant can run on this host: {0}")]
    Host(String),
}

/// What a new configuration came to: names of tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Tenants that are new.
    pub added: Vec<String>,
    /// Tenants that are gone.
    pub removed: Vec<String>,
    /// Tenants that were booted anew, because of a change to their program or to how it runs.
    pub changed: Vec<String>,
    /// Tenants that should have been, and why they go on as they were.
    pub failed: Vec<(String, String)>,
}
