// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the tenants that have had no requests for the longest time, by comparing their request counts while memory is
//! short.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::memory::Programs;
use crate::model::meter::Event;
use crate::model::tenant::Tenant;

/// The last time at which the memory thread saw a new request of each tenant, by the tenant's address.
#[derive(Debug, Default)]
pub(crate) struct LastRequests {
    by_tenant: HashMap<usize, (u64, Instant)>,
    /// When the last program was stopped.
    stopped_at: Option<Instant>,
}

impl LastRequests {
    /// Stops the program of the tenant whose last request is the oldest, if one may be stopped. Returns whether one
    /// was.
    pub(crate) fn make_room(&mut self, tenants: &[Arc<Tenant>], programs: Programs) -> bool {
        let now = Instant::now();
        if self.stopped_at.is_some_and(|then| now.saturating_duration_since(then) < PAUSE) {
            return false;
        }
        let mut candidates: Vec<(Instant, &Arc<Tenant>)> = tenants
            .iter()
            .filter(|tenant| tenant.generation() != 0)
            .map(|tenant| (self.last_call(tenant, now), tenant))
            .collect();
        // Forgets tenants that no longer exist.
        let addresses: Vec<usize> = tenants.iter().map(address).collect();
        self.by_tenant.retain(|address, _| addresses.contains(address));
        candidates.sort_by_key(|(called, _)| *called);
        let longest = match programs {
            Programs::Idle(time) => time,
            Programs::AnyPastMinRunTime => IDLE_WHILE_OTHERS_WAIT,
        };
        let is_idle = |called: Instant| now.saturating_duration_since(called) >= longest;
        let is_any = programs == Programs::AnyPastMinRunTime;
        // Among the busy ones, the one whose program was booted first.
        let (idle, mut busy): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|(called, _)| is_idle(*called));
        busy.sort_by_key(|(_, tenant)| tenant.ready().map(|generation| generation.made_at));
        let has_stopped = idle.into_iter().any(|(_, tenant)| tenant.make_room(true))
            || (is_any && busy.into_iter().any(|(_, tenant)| tenant.make_room(false)));
        if has_stopped {
            self.stopped_at = Some(now);
        }
        has_stopped
    }

    /// When a new request of the tenant was last seen.
    fn last_call(&mut self, tenant: &Arc<Tenant>, now: Instant) -> Instant {
        let requests = tenant.totals().events(Event::Request);
        let seen = self.by_tenant.entry(address(tenant)).or_insert((requests, now));
        if seen.0 != requests {
            *seen = (requests, now);
        }
        seen.1
    }
}

/// Pause between two stops: a program's memory is free only when its workers are closed.
const PAUSE: Duration = Duration::from_millis(100);
/// A tenant without requests for this long is stopped at once for one that has requests.
const IDLE_WHILE_OTHERS_WAIT: Duration = Duration::from_secs(1);

fn address(tenant: &Arc<Tenant>) -> usize {
    Arc::as_ptr(tenant).addr()
}
