// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that names, routes and shared files are unique over all tenants, and that durable directories do not overlap.

use std::collections::HashMap;
use std::path::PathBuf;

use mayfly_sandbox::{DurableLimits, MountAccess};

use crate::config::json::Key;
use crate::config::values::TenantName;
use crate::config::{ConfigError, Route, TenantConfig};

/// Values that only one tenant may have, with the position of the tenant that has each.
#[derive(Default)]
pub(super) struct UsedNames {
    names: HashMap<TenantName, usize>,
    routes: HashMap<Route, usize>,
    shared_files: HashMap<PathBuf, usize>,
    /// With their limits.
    durable: HashMap<PathBuf, (DurableLimits, usize)>,
    default: Option<usize>,
}

impl UsedNames {
    pub(super) fn claim(&mut self, index: usize, tenant: &TenantConfig, form: PathForm) -> Result<(), ConfigError> {
        if let Some(first) = self.names.insert(tenant.name.clone(), index) {
            return Err(refused("name", format!("\"{}\" is already the name of tenants[{first}]", tenant.name)));
        }
        for (position, route) in tenant.routes.iter().enumerate() {
            if let Some(first) = self.routes.insert(route.clone(), index) {
                let problem = format!("\"{route}\" is already a route of tenants[{first}]");
                return Err(ConfigError::new(&form.keys(position), problem));
            }
        }
        if let Some(file) = tenant.shared.as_ref().and_then(|shared| shared.file.as_ref())
            && let Some(first) = self.shared_files.insert(file.clone(), index)
        {
            let problem = format!("{} is already the shared memory of tenants[{first}]", file.display());
            return Err(ConfigError::new(&["shared_memory".into(), "file".into()], problem));
        }
        self.claim_durable(index, tenant)?;
        if tenant.is_default
            && let Some(first) = self.default.replace(index)
        {
            return Err(refused("default", format!("tenants[{first}] is already the default")));
        }
        Ok(())
    }

    /// Checks that all mounts of a durable directory have the same limits, and that no durable directory lies in another,
    /// whose limits would not hold.
    fn claim_durable(&mut self, index: usize, tenant: &TenantConfig) -> Result<(), ConfigError> {
        let storage = tenant.storage.as_ref().map_or(&[][..], |storage| &storage.mounts);
        for mount in tenant.mounts.iter().chain(storage) {
            let MountAccess::Durable(limits) = mount.access else { continue };
            let host = &mount.host;
            for (other, (their, first)) in &self.durable {
                let owner = if *first == index { "this tenant".to_owned() } else { format!("tenants[{first}]") };
                let problem = if other == host && *their != limits {
                    format!("{} is durable for {owner} with other limits: expected the same", host.display())
                } else if other != host && (other.starts_with(host) || host.starts_with(other)) {
                    format!(
                        "{} and {}, which is durable for {owner}, lie one in the other: expected separate directories",
                        host.display(),
                        other.display()
                    )
                } else {
                    continue;
                };
                return Err(refused("mounts", problem));
            }
            self.durable.insert(host.clone(), (limits, index));
        }
        Ok(())
    }
}

/// How a tenant's routes are written, so that an error about the n-th route names its key.
#[derive(Clone, Copy)]
pub(super) struct PathForm {
    key: &'static str,
    /// The number of paths per host, if they are a list.
    listed: Option<usize>,
}

impl PathForm {
    /// `paths`: the length of the list `paths`, if there is one.
    pub(super) fn of(has_path: bool, paths: Option<usize>) -> Self {
        match (has_path, paths) {
            (_, Some(paths)) => Self { key: "paths", listed: Some(paths) },
            (true, None) => Self { key: "path", listed: None },
            (false, None) => Self { key: "hosts", listed: None },
        }
    }

    fn keys(self, route: usize) -> Vec<Key> {
        match (self.key, self.listed) {
            ("hosts", _) => vec![self.key.into(), route.into()],
            (key, Some(paths)) => vec![key.into(), (route % paths).into()],
            (key, None) => vec![key.into()],
        }
    }
}

fn refused(key: &str, problem: String) -> ConfigError {
    ConfigError::new(&[Key::from(key)], problem)
}
