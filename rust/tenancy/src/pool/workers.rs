// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which worker a request gets, and which workers make room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mayfly_sandbox::Request;

use crate::config::cpu_share::CpuShare;
use crate::host::clock::monotonic_ns;
use crate::model::fixed_workers::Claim;
use crate::model::generation::Forked;
use crate::model::route::TenantIndex;
use crate::model::tenant::{State, Tenant};
use crate::model::worker_mailbox::Joined;
use crate::pool::{LoopPool, Slot, Unfinished};
use crate::run::client_key::client_key;
use crate::schedule::job::Retention;
use crate::server::TenantSet;

/// A worker that was used more recently than this is not closed to make room for another tenant's. Otherwise a loop
/// that serves more tenants in turn than it may have workers would fork for every request.
const IDLE_NS: u64 = 1_000_000_000;
/// When memory is short, an idle worker of a tenant that holds more than its share is closed after this time.
const MUCH_IDLE_NS: u64 = 100_000_000;
/// Slots that are searched for a worker to close.
const SAMPLE: usize = 64;

impl LoopPool {
    /// Finds a worker for a slot that has none of the current generation. The error is `None` if the request is to be
    /// served elsewhere, or else the reason why it cannot be answered.
    #[cold]
    pub(super) fn find_worker(
        &mut self,
        index: TenantIndex,
        current: u64,
        request: &Request<'_>,
    ) -> Result<Forked, Option<String>> {
        let hit = self.hit(index);
        if current != 0
            && self.set.tenants[index].fixed.is_open()
            && let Some(found) = self.claim(index, current, request)
        {
            return found;
        }
        let tenant = &self.set.tenants[index];
        let background = self.server.background();
        let slot = &mut self.slots[index];
        let mailbox = Arc::clone(&slot.share(tenant).mailbox);
        let mut former = slot.worker.take();
        self.held -= usize::from(former.is_some());
        if current == 0 {
            if let Some(former) = former {
                background.orders.close(former);
            }
            return match tenant.state() {
                State::Booting { holds: false } => Err(Some(tenant.excuse())),
                State::Failed { .. } if !tenant.is_boot_due() => Err(Some(tenant.excuse())),
                _ => {
                    let retention = self.make_room();
                    self.later =
                        Some(Unfinished::Unserved { hit, former: None, retention, slot: None, is_in_line: false });
                    Err(None)
                }
            };
        }
        if former.is_none() {
            former = mailbox.take_other(current);
        }
        if let Some(old) = former {
            if tenant.ready().is_some_and(|generation| generation.succeeds(Some(&old.generation))) {
                let (former, retention) = (Some(old), Retention::Stay);
                self.later = Some(Unfinished::Unserved { hit, former, retention, slot: None, is_in_line: false });
                return Err(None);
            }
            background.orders.close(old);
        }
        let runs_between_requests = self.set.config.tenants[index].background_cpu() != CpuShare::NONE;
        let found = match mailbox.take(current) {
            Some(forked) => Joined::Worker(forked),
            None if runs_between_requests => mailbox.claim(current),
            None => Joined::NoWorker,
        };
        match found {
            Joined::Worker(forked) => {
                self.held += 1;
                return Ok(forked);
            }
            Joined::InLine => {
                let retention = Retention::Stay;
                self.later = Some(Unfinished::Unserved { hit, former: None, retention, slot: None, is_in_line: true });
                return Err(None);
            }
            Joined::NoWorker => {}
        }
        let retention = self.make_room();
        self.later = Some(Unfinished::Unserved { hit, former: None, retention, slot: None, is_in_line: false });
        Err(None)
    }

    /// Claims one of a tenant's fixed number of workers. `None`: each loop has its own since a moment ago.
    fn claim(
        &mut self,
        index: TenantIndex,
        current: u64,
        request: &Request<'_>,
    ) -> Option<Result<Forked, Option<String>>> {
        let hit = self.hit(index);
        let tenant = &self.set.tenants[index];
        // From before it had a fixed number.
        if let Some(own) = self.slots[index].worker.take() {
            self.held -= 1;
            self.server.background().orders.close(own);
        }
        let key = self.set.config.tenants[index].affinity.as_ref().and_then(|by| client_key(by, request));
        let (former, slot, is_in_line) = match tenant.fixed.take(key, self.number as usize) {
            Claim::Worker(forked) if forked.number >= current => return Some(Ok(forked)),
            Claim::Worker(former) => (Some(former), None, false),
            Claim::Vacant(slot) => (None, Some(slot), false),
            Claim::Busy => (None, None, true),
            Claim::Closed => return None,
        };
        self.later = Some(Unfinished::Unserved { hit, former, retention: Retention::Stay, slot, is_in_line });
        Some(Err(None))
    }

    /// Leaves a worker whose program runs between requests where other threads can take it for that.
    #[cold]
    pub(super) fn lend(&mut self, index: TenantIndex, mut forked: Forked) {
        let tenant = &self.set.tenants[index];
        let slot = &mut self.slots[index];
        if forked.worker.runs_between_requests() {
            let mailbox = Arc::clone(&slot.share(tenant).mailbox);
            let overflow = &self.server.background().overflow;
            let leg = overflow.expect_leg_in_mailbox(tenant, &mut forked, &mailbox);
            mailbox.lend(forked);
            overflow.start_leg(leg);
            self.held -= 1;
            return;
        }
        slot.worker = Some(forked);
    }

    /// Makes room for one more worker within this loop's share.
    fn make_room(&mut self) -> Retention {
        let (most, count) = self.server.workers();
        let share = (most / self.server.pools().max(1)).max(1);
        if self.held < share && count < most {
            return Retention::Stay;
        }
        let now = monotonic_ns();
        let mut oldest: Option<(u64, usize)> = None;
        for _ in 0..SAMPLE.min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &self.slots[self.hand];
            if slot.has_spare_worker() && oldest.is_none_or(|(used, _)| slot.last_used_ns < used) {
                oldest = Some((slot.last_used_ns, self.hand));
            }
        }
        let victim = oldest.filter(|(used, _)| now.saturating_sub(*used) >= IDLE_NS);
        let Some((_, at)) = victim else { return Retention::Go };
        if let Some(worker) = self.slots[at].worker.take() {
            self.held -= 1;
            return Retention::Replace(worker);
        }
        // No request has come since another thread left a worker in the mailbox.
        let spare = self.slots[at].share.as_ref().and_then(|share| share.mailbox.take_spare());
        spare.map_or(Retention::Go, Retention::Replace)
    }

    /// Passes workers to the thread that closes them: those that have been idle for longer than memory allows, and
    /// those of stopped programs. A slot's mailbox has been idle as long as the slot: workers wait there, too, such as
    /// those that are prepared for their next request.
    pub(super) fn close_idle(&mut self) {
        // `u64::MAX`: memory is not short.
        let idle_ns = Some(self.server.idle_ns()).filter(|idle_ns| *idle_ns != u64::MAX);
        let now = monotonic_ns();
        let mut closed = 0;
        for (tenant, slot) in self.set.tenants.iter().zip(&mut self.slots) {
            let Some(share) = &slot.share else { continue };
            let much = if tenant.account.holds_much() { MUCH_IDLE_NS } else { u64::MAX };
            let is_idle = idle_ns.is_some_and(|longest| now.saturating_sub(slot.last_used_ns) >= longest.min(much));
            let is_stopped = tenant.generation() == 0;
            if !(is_idle || is_stopped) {
                continue;
            }
            let own = slot.worker.take_if(|forked| forked.is_ephemeral());
            self.held -= usize::from(own.is_some());
            // In the mailbox of a program that does not run yet is the worker that its boot has just made.
            let waiting = std::iter::from_fn(|| if is_stopped { None } else { share.mailbox.take_spare() });
            for forked in own.into_iter().chain(waiting) {
                closed += 1;
                self.server.background().orders.close(forked);
            }
        }
        self.server.memory().closed_workers.fetch_add(closed, Ordering::Relaxed);
    }

    #[cold]
    pub(super) fn take_over(&mut self, set: Arc<TenantSet>) {
        // Positions still refer to the former set here.
        self.reset_answered();
        let mut former: std::collections::HashMap<*const Tenant, Slot> = std::mem::take(&mut self.slots)
            .into_iter()
            .zip(&self.set.tenants)
            .filter(|(slot, _)| slot.share.is_some())
            .map(|(slot, tenant)| (Arc::as_ptr(tenant), slot))
            .collect();
        self.slots = set.tenants.iter().map(|tenant| former.remove(&Arc::as_ptr(tenant)).unwrap_or_default()).collect();
        for gone in former.into_values() {
            let orders = &self.server.background().orders;
            if let Some(worker) = gone.worker {
                self.held -= 1;
                orders.close(worker);
            }
            let waiting = gone.share.map(|share| share.mailbox.take_all());
            waiting.into_iter().flatten().for_each(|worker| orders.close(worker));
        }
        self.set = set;
    }
}
