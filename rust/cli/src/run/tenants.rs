// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one loop serves.

use std::sync::Arc;

use mayfly_tenancy::{Config, LoopPool, Server};

/// A loop's workers, and what the loop needs of the configuration.
pub(crate) struct Tenants {
    pub(crate) pool: LoopPool,
    pub(crate) server: Server,
    config: Arc<Config>,
    /// The largest request that any tenant accepts.
    body_bytes: usize,
}

impl Tenants {
    pub(crate) fn new(server: &Server) -> Self {
        let config = server.config();
        let mut pool = server.loop_pool();
        pool.defer_resets();
        Self { pool, server: server.clone(), body_bytes: body_bytes(&config), config }
    }

    /// The limit on a request's body before its tenant is known. The tenancy enforces the tenant's own limit.
    pub(crate) fn body_bytes(&mut self) -> usize {
        let config = self.server.config();
        if !Arc::ptr_eq(&config, &self.config) {
            self.body_bytes = body_bytes(&config);
            self.config = config;
        }
        self.body_bytes
    }
}

fn body_bytes(config: &Config) -> usize {
    let most = config.tenants.iter().map(|tenant| tenant.limits.machine.request_bytes).max();
    most.map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX))
}
