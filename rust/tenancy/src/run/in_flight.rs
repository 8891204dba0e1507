// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts a tenant's requests that have left their loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::tenant::Tenant;

/// One of a tenant's requests that have left their loop. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct InFlight {
    tenant: Arc<Tenant>,
}

impl InFlight {
    /// Counts a request, unless the tenant has reached its limit.
    pub(crate) fn enter(tenant: &Arc<Tenant>, most: u32) -> Option<Self> {
        let more = |parked| (parked < most).then_some(parked + 1);
        let entered = tenant.parked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Self { tenant: Arc::clone(tenant) })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.tenant.parked.fetch_sub(1, Ordering::Relaxed);
    }
}
