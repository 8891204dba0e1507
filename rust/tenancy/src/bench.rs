// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entry points for benchmarks of this crate. Not part of the interface for servers.

use crate::config::{Config, ConfigError};
use crate::model::route::Router;

/// The routes of a configuration, without its tenants.
#[derive(Debug)]
pub struct Routes(Router);

impl Routes {
    /// The table that a server with this configuration uses.
    ///
    /// # Errors
    ///
    /// Those of [`Config::from_value`].
    pub fn new(config: &serde_json::Value) -> Result<Self, ConfigError> {
        Ok(Self(Router::new(&Config::from_value(config)?.tenants)))
    }

    /// The position of the request's tenant in the configuration.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        self.0.find(host, path)
    }
}
