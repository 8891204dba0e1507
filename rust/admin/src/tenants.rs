// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of a server that operators need. Tests have another implementation, which is as slow and fails as often as
//! they ask.

use std::sync::Arc;

use mayfly_tenancy::{Applied, Config, Readiness, ReloadError, Reloaded, Server};

/// A server's tenants. Every method but `config` and `readiness` may block.
pub(crate) trait Tenants: Clone + Send + Sync + 'static {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;
    /// Whether the server is ready.
    fn readiness(&self) -> Readiness;
    /// The report as JSON.
    fn status(&self) -> String;
    /// The report in the format of Prometheus.
    fn metrics(&self) -> String;
    fn apply(&self, config: Config) -> Applied;
    fn reload(&self, tenant: &str) -> Result<Reloaded, ReloadError>;
    fn reload_changed(&self) -> Vec<(String, Result<Reloaded, ReloadError>)>;
    fn upload(&self, tenant: &str, elf: Vec<u8>) -> Result<Reloaded, ReloadError>;
    fn rollback(&self, tenant: &str) -> Result<Reloaded, ReloadError>;
}

impl Tenants for Server {
    fn config(&self) -> Arc<Config> {
        self.config()
    }

    fn readiness(&self) -> Readiness {
        self.readiness()
    }

    fn status(&self) -> String {
        // A report is strings and numbers, which always serialise.
        serde_json::to_string(&self.report()).unwrap_or_default()
    }

    fn metrics(&self) -> String {
        self.metrics()
    }

    fn apply(&self, config: Config) -> Applied {
        self.apply(config)
    }

    fn reload(&self, tenant: &str) -> Result<Reloaded, ReloadError> {
        self.reload(tenant)
    }

    fn reload_changed(&self) -> Vec<(String, Result<Reloaded, ReloadError>)> {
        self.reload_changed()
    }

    fn upload(&self, tenant: &str, elf: Vec<u8>) -> Result<Reloaded, ReloadError> {
        self.upload(tenant, elf)
    }

    fn rollback(&self, tenant: &str) -> Result<Reloaded, ReloadError> {
        self.rollback(tenant)
    }
}
