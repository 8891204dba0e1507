// SPDX-License-Identifier: MIT OR Apache-2.0
//! What benchmarks measure of this floor alone. No part of the interface that servers use.

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
    /// As [`Config::from_value`].
    pub fn new(config: &serde_json::Value) -> Result<Self, ConfigError> {
        Ok(Self(Router::new(&Config::from_value(config)?.tenants)))
    }

    /// The position of the request's tenant in the configuration.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        self.0.find(host, path)
    }
}
