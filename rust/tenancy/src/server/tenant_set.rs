// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tenants of one configuration and their routes.

use std::sync::Arc;

use crate::config::{BootWhen, Config};
use crate::model::route::Router;
use crate::model::tenant::Tenant;

/// The tenants of one configuration. A new configuration replaces the set as a whole.
#[derive(Debug)]
pub(crate) struct TenantSet {
    pub(crate) epoch: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) router: Router,
    /// In configuration order.
    pub(crate) tenants: Box<[Arc<Tenant>]>,
}

impl TenantSet {
    pub(super) fn new(epoch: u64, config: Arc<Config>, tenants: Box<[Arc<Tenant>]>) -> Self {
        Self { epoch, router: Router::new(&config.tenants), config, tenants }
    }

    /// The tenants that boot at start: those configured to, and the first few of those set to `auto`.
    pub(super) fn to_boot_at_start(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        let mut auto = self.config.boot_at_start;
        self.tenants.iter().zip(&self.config.tenants).filter_map(move |(tenant, config)| {
            let boots = match config.boot {
                BootWhen::Start => true,
                BootWhen::FirstCall => false,
                BootWhen::Auto => {
                    let boots = auto > 0;
                    auto = auto.saturating_sub(1);
                    boots
                }
            };
            boots.then_some(tenant)
        })
    }
}
