// SPDX-License-Identifier: MIT OR Apache-2.0
//! Saving a tenant's snapshot without a server: what `mayfly snapshot` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_sandbox::{Host, LogSink, Snapshot};

use crate::config::Config;
use crate::life::{health, snapshots};
use crate::model::outcome::ReloadError;
use crate::model::store::Store;

impl Config {
    /// Boots a tenant's program and saves its snapshot: to `out`, or where a start of the server looks for it. Returns
    /// where it is.
    ///
    /// If the tenant has a health request, that is made before, so that the first worker knows what a request writes.
    ///
    /// # Errors
    ///
    /// [`ReloadError`].
    pub fn save_snapshot(
        &self,
        host: &Host,
        tenant: &str,
        out: Option<&Path>,
        log: Arc<dyn LogSink>,
    ) -> Result<PathBuf, ReloadError> {
        let config = self.tenants.iter().find(|config| config.name.as_str() == tenant);
        let config = config.ok_or(ReloadError::UnknownTenant)?;
        let program = config.launch().map_err(|error| ReloadError::Program(error.to_string()))?;
        let limits = &config.limits.machine;
        if config.shared.is_some() {
            return Err(ReloadError::Persist("the program has memory that its workers share".to_owned()));
        }
        let path = match (out, &self.snapshots) {
            (Some(out), _) => out.to_owned(),
            (None, Some(directory)) => {
                snapshots::path(directory, &config.name, Snapshot::inputs_digest(&program, limits))
            }
            (None, None) => return Err(ReloadError::Persist("the file says nothing of `snapshots`".to_owned())),
        };
        let snapshot = Snapshot::boot(host, &program, limits, Arc::clone(&log))
            .map_err(|error| ReloadError::Boot(error.to_string()))?;
        if let Some(health) = &config.health {
            let store = config.storage.as_ref().map(|store| Store::boot(store, host, Arc::clone(&log))).transpose()?;
            // No request knows this storage program, so none stands in line.
            health::check(&snapshot, config, health, store.as_ref(), &|_| {})?;
        }
        let saved = match out {
            Some(out) => snapshot.save(out),
            None => snapshots::keep(&path, &config.name, &snapshot),
        };
        saved.map_err(|error| ReloadError::Persist(error.to_string()))?;
        Ok(path)
    }
}
