// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers of one loop thread: one for each tenant that it serves, forked ahead of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mayfly_sandbox::{Request, ResponseSink, Slice, WorkerState};

use crate::host::clock::monotonic_ns;
use crate::model::failure::{Failure, RequestId, answer};
use crate::model::generation::Forked;
use crate::model::meter::{Counters, Event};
use crate::model::permits::{CallPermit, PermitKind};
use crate::model::route::TenantIndex;
use crate::model::tenant::{State, Tenant};
use crate::model::worker_mailbox::WorkerMailbox;
use crate::run::call::{Call, CallContext, CallStep, TrackedSink, reset_answered};
use crate::run::gate::Gated;
use crate::run::in_flight::InFlight;
use crate::run::reply::DeferredReply;
use crate::run::request::{OwnedRequest, host, size};
use crate::schedule::deferred::{Job, Retention};
use crate::schedule::overflow::{OVERLOADED, Parked};
use crate::server::{Server, TenantSet};

/// A worker that was used more recently than this is not closed to make room for another tenant's. Otherwise a loop
/// that serves more tenants in turn than it may have workers would fork for every request.
const IDLE_NS: u64 = 1_000_000_000;
/// When memory is short, an idle worker of a tenant that holds more than its share is closed after this time.
const MUCH_IDLE_NS: u64 = 100_000_000;
/// Slots that are searched for a worker to close.
const SAMPLE: usize = 64;

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The sink holds a complete response: the tenant's, or Mayfly's own that reports a failure.
    Done,
    /// The sink is untouched. Next, pass a reply that can be sent later to [`LoopPool::call_later`].
    Later,
}

/// The tenant of a request, as a position in one set of tenants of one server. It is valid for all pools of that
/// server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteHit {
    /// The epoch of the set of tenants; never 0.
    pub epoch: u64,
    /// The tenant's position in the set.
    pub index: usize,
}

/// One loop thread's workers.
///
/// A call takes no lock and allocates nothing while the tenant answers within its inline budget. Only other threads
/// fork workers and close poisoned ones.
#[derive(Debug)]
pub struct LoopPool {
    server: Server,
    set: Arc<TenantSet>,
    number: u64,
    /// The last value of [`Server::news`] that it has handled.
    seen: u64,
    slots: Box<[Slot]>,
    ids: Ids,
    later: Option<Unfinished>,
    /// Whether the reset of workers with large work sets is left to [`Self::reset_answered`].
    defers_resets: bool,
    /// Tenants whose worker may be one of these, each once, with the request that it has answered. Not in the slots: a
    /// request reads its slot, and each cache line of that is a miss after a world switch.
    unreset: Vec<(TenantIndex, RequestId)>,
    /// Slots that have a worker.
    held: usize,
    /// Where the search for a worker to close continues.
    hand: usize,
    unrouted: Arc<AtomicU64>,
}

/// What a loop holds for one tenant: almost nothing until the first request.
#[derive(Debug, Default)]
struct Slot {
    /// Ready, or still to be reset: see [`LoopPool::unreset`].
    worker: Option<Forked>,
    last_used_ns: u64,
    share: Option<TenantShare>,
}

/// What a loop shares with other threads about one tenant.
#[derive(Debug, Clone)]
struct TenantShare {
    mailbox: Arc<WorkerMailbox>,
    counters: Arc<Counters>,
}

/// What [`LoopPool::call`] leaves to [`LoopPool::call_later`].
#[derive(Debug)]
enum Unfinished {
    /// The request has used up its inline budget, or waits.
    Paused {
        tenant: Arc<Tenant>,
        call: Call,
        step: CallStep,
        mailbox: Arc<WorkerMailbox>,
        in_flight: InFlight,
        permit: CallPermit,
    },
    /// The request has no worker.
    Unserved { hit: RouteHit, former: Option<Forked>, retention: Retention },
}

impl Slot {
    /// Whether the slot or the mailbox has a worker that can be closed. One that keeps state cannot.
    fn has_spare_worker(&self) -> bool {
        match &self.worker {
            Some(forked) => forked.is_ephemeral(),
            None => self.share.as_ref().is_some_and(|share| share.mailbox.has_spare()),
        }
    }

    fn share(&mut self, tenant: &Tenant) -> &TenantShare {
        self.share.get_or_insert_with(|| TenantShare { mailbox: tenant.new_mailbox(), counters: tenant.new_counters() })
    }
}

impl Server {
    /// Makes the pool of one loop thread. Its workers are forked in the background, from now on.
    #[must_use]
    pub fn loop_pool(&self) -> LoopPool {
        LoopPool::new(self.clone(), self.new_pool())
    }
}

impl LoopPool {
    fn new(server: Server, number: u64) -> Self {
        // Read before the set, so that a newer set is noticed.
        let seen = server.news();
        let set = server.set();
        let mut slots: Box<[Slot]> = set.tenants.iter().map(|_| Slot::default()).collect();
        for (tenant, slot) in set.tenants.iter().zip(&mut slots) {
            // A tenant that boots at start gets a worker here when it has booted. If it has booted already, a worker is
            // ordered now.
            if !matches!(tenant.state(), State::Unbooted) {
                let mailbox = Arc::clone(&slot.share(tenant).mailbox);
                if tenant.generation() != 0 {
                    server.background().orders.fork(tenant, &mailbox);
                }
            }
        }
        let unrouted = server.new_unrouted();
        let ids = Ids { next: server.id_seed().wrapping_add(number << 40) };
        Self {
            server,
            set,
            number,
            seen,
            slots,
            ids,
            later: None,
            defers_resets: false,
            unreset: Vec::new(),
            held: 0,
            hand: 0,
            unrouted,
        }
    }

    /// Finds the tenant, other than the default one, for this host and path. For an HTTP server that has routes of its
    /// own; [`Self::call_found`] takes the result.
    pub fn claims(&mut self, host: &[u8], path: &[u8]) -> Option<RouteHit> {
        self.refresh();
        self.set.router.claimed(host, path).map(|index| self.hit(index))
    }

    fn hit(&self, index: TenantIndex) -> RouteHit {
        RouteHit { epoch: self.set.epoch, index }
    }

    /// The tenant of a request: that of the hit, if the set of tenants has not changed.
    fn index(&self, hit: Option<RouteHit>, request: &Request<'_>) -> Option<TenantIndex> {
        let hit = hit.filter(|hit| hit.epoch == self.set.epoch);
        hit.map(|hit| hit.index).or_else(|| self.set.router.find(host(request), request.path))
    }

    /// Whether there currently is a default tenant.
    pub fn has_default(&mut self) -> bool {
        self.refresh();
        self.set.router.has_default()
    }

    /// Serves a request on this thread, unless that would exceed the tenant's inline budget or block.
    pub fn call(&mut self, request: &Request<'_>, sink: &mut (impl ResponseSink + ?Sized)) -> Outcome {
        self.call_found(None, request, sink)
    }

    /// Like [`Self::call`], for a request whose tenant [`Self::claims`] has already found. A hit from an earlier set of
    /// tenants is ignored, and the request is routed again.
    pub fn call_found(
        &mut self,
        hit: Option<RouteHit>,
        request: &Request<'_>,
        sink: &mut (impl ResponseSink + ?Sized),
    ) -> Outcome {
        self.refresh();
        if let Some(unfinished) = self.later.take() {
            self.give_up(unfinished);
        }
        let Some(index) = self.index(hit, request) else {
            self.unrouted.store(self.unrouted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            answer(Failure::NoRoute, NO_ROUTE, self.ids.next(), sink);
            return Outcome::Done;
        };
        let tenant = &self.set.tenants[index];
        if tenant.parked.load(Ordering::Relaxed) != 0
            && let Some((failure, reason)) = self.too_much(index)
        {
            self.refuse_at(index, failure, reason, sink);
            return Outcome::Done;
        }
        let current = tenant.generation();
        // The worker returns to its slot only after the call. If a panic interrupts the call, the worker is dropped and
        // never used again.
        let ready = match self.slots[index].worker.take_if(|forked| forked.number == current) {
            Some(forked) if !forked.is_ready() => self.reset_now(index, forked),
            ready => ready,
        };
        let forked = match ready {
            Some(forked) => forked,
            None => match self.find_worker(index, current) {
                Ok(forked) => forked,
                Err(None) => return Outcome::Later,
                Err(Some(excuse)) => {
                    self.refuse_at(index, Failure::Unavailable, &excuse, sink);
                    return Outcome::Done;
                }
            },
        };
        let tenant = &self.set.tenants[index];
        let slot = &mut self.slots[index];
        let TenantShare { counters, .. } = slot.share(tenant);
        counters.count(Event::Request);
        let context = CallContext {
            tenant,
            counters,
            stores: &self.server.background().overflow,
            slice: Slice::non_blocking(forked.slice),
            mode_header: self.set.config.mode_header,
            may_defer_reset: self.defers_resets,
        };
        let mut call = Call::new(forked, self.ids.next());
        let step = call.begin(context, request, &mut TrackedSink::new(sink));
        if step == CallStep::Done && call.forked.is_ready() {
            slot.last_used_ns = call.forked.worker.last_started_ns();
            slot.worker = Some(call.forked);
            return Outcome::Done;
        }
        if step == CallStep::Done && call.forked.worker.state() == WorkerState::Answered {
            self.defer_reset(index, call);
            return Outcome::Done;
        }
        self.leave(index, call, step, sink)
    }

    /// Lets [`Self::call`] return before it resets a worker with a large work set, so that the response can be written
    /// first. The caller must then check [`Self::resets_are_due`] after each call.
    pub fn defer_resets(&mut self) {
        self.defers_resets = true;
    }

    /// Whether to call [`Self::reset_answered`] once the response is written. In any case, the next call of the
    /// worker's tenant resets the worker.
    #[inline]
    #[must_use]
    pub fn resets_are_due(&self) -> bool {
        !self.unreset.is_empty()
    }

    /// Resets the workers whose reset was deferred.
    pub fn reset_answered(&mut self) {
        while let Some((index, id)) = self.unreset.pop() {
            if let Some(unreset) = self.slots[index].worker.take_if(|forked| !forked.is_ready())
                && let Some(forked) = self.finish_reset(index, id, unreset)
            {
                self.slots[index].worker = Some(forked);
            }
        }
    }

    /// Keeps a worker that still has to be reset.
    #[cold]
    fn defer_reset(&mut self, index: TenantIndex, call: Call) {
        let slot = &mut self.slots[index];
        slot.last_used_ns = call.forked.worker.last_started_ns();
        slot.worker = Some(call.forked);
        match self.unreset.iter_mut().find(|(other, _)| *other == index) {
            Some((_, id)) => *id = call.id,
            None => self.unreset.push((index, call.id)),
        }
    }

    /// Resets a worker that is called again before that was done.
    #[cold]
    fn reset_now(&mut self, index: TenantIndex, forked: Forked) -> Option<Forked> {
        let at = self.unreset.iter().position(|(other, _)| *other == index);
        let id = at.map_or(RequestId::NONE, |at| self.unreset.swap_remove(at).1);
        self.finish_reset(index, id, forked)
    }

    /// Resets a worker that has answered. If that fails, the worker is closed and replaced.
    #[cold]
    fn finish_reset(&mut self, index: TenantIndex, id: RequestId, mut forked: Forked) -> Option<Forked> {
        let tenant = &self.set.tenants[index];
        let slot = &mut self.slots[index];
        let share = slot.share(tenant);
        reset_answered(&mut forked, id, tenant, &share.counters);
        if forked.is_ready() {
            return Some(forked);
        }
        self.held -= 1;
        let orders = &self.server.background().orders;
        orders.fork(tenant, &share.mailbox);
        orders.close(forked);
        None
    }

    /// Handles a call that did not leave a worker that is ready again.
    #[cold]
    fn leave(
        &mut self,
        index: TenantIndex,
        mut call: Call,
        step: CallStep,
        sink: &mut (impl ResponseSink + ?Sized),
    ) -> Outcome {
        let tenant = &self.set.tenants[index];
        let background = self.server.background();
        self.held -= 1;
        let share = self.slots[index].share(tenant).clone();
        // A worker that keeps state comes back with it; a second one would start from scratch.
        if step == CallStep::Done || call.forked.is_ephemeral() {
            background.orders.fork(tenant, &share.mailbox);
        }
        if step == CallStep::Done {
            background.orders.close(call.forked);
            return Outcome::Done;
        }
        let most = call.forked.generation.config.limits.concurrent_requests;
        let refusal = match InFlight::enter(tenant, most) {
            None => (Failure::TooManyRequests, TOO_MANY),
            Some(in_flight) => match background.overflow.permits.take(step.permit(), &tenant.permits) {
                None => (Failure::Overloaded, OVERLOADED),
                Some(permit) => {
                    share.counters.count(Event::Parked);
                    let (tenant, mailbox) = (Arc::clone(tenant), share.mailbox);
                    self.later = Some(Unfinished::Paused { tenant, call, step, mailbox, in_flight, permit });
                    return Outcome::Later;
                }
            },
        };
        call.abandon_store(&background.overflow);
        share.counters.failed(refusal.0);
        tenant.log.failed(call.id, refusal.0, refusal.1);
        answer(refusal.0, refusal.1, call.id, sink);
        background.orders.close(call.forked);
        Outcome::Done
    }

    /// Finds a worker for a slot that has none of the current generation. The error is `None` if the request is to be
    /// served elsewhere, or else the reason why it cannot be answered.
    #[cold]
    fn find_worker(&mut self, index: TenantIndex, current: u64) -> Result<Forked, Option<String>> {
        let hit = self.hit(index);
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
                    self.later = Some(Unfinished::Unserved { hit, former: None, retention });
                    Err(None)
                }
            };
        }
        if former.is_none() {
            former = mailbox.take_other(current);
        }
        if let Some(old) = former {
            if tenant.ready().is_some_and(|generation| generation.succeeds(Some(&old.generation))) {
                self.later = Some(Unfinished::Unserved { hit, former: Some(old), retention: Retention::Stay });
                return Err(None);
            }
            background.orders.close(old);
        }
        if let Some(forked) = mailbox.take(current) {
            self.held += 1;
            return Ok(forked);
        }
        let retention = self.make_room();
        self.later = Some(Unfinished::Unserved { hit, former: None, retention });
        Err(None)
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

    /// Serves a request for which [`Self::call`] returned [`Outcome::Later`], in the background: continues it if it has
    /// begun, otherwise copies it. `request` must be the same request.
    ///
    /// If too many requests are waiting already, the reply is sent at once, with 429 or 503.
    pub fn call_later(&mut self, request: &Request<'_>, reply: Box<dyn DeferredReply>) {
        let unfinished = self.later.take();
        let background = self.server.background();
        let mut reply: Box<dyn DeferredReply> = Box::new(Gated::new(reply, &background.gate));
        let mode_header = self.set.config.mode_header;
        let (hit, former, retention) = match unfinished {
            Some(Unfinished::Paused { tenant, call, step, mailbox, in_flight, permit }) => {
                let permit = Some(permit);
                let parked = Parked { tenant, call, reply, mailbox, in_flight, permit, may_block: false, mode_header };
                return background.overflow.settle(parked, step);
            }
            Some(Unfinished::Unserved { hit, former, retention }) => (Some(hit), former, retention),
            None => (None, None, Retention::Stay),
        };
        let Some(index) = self.index(hit, request) else {
            answer(Failure::NoRoute, NO_ROUTE, self.ids.next(), &mut *reply);
            return reply.send();
        };
        let tenant = Arc::clone(&self.set.tenants[index]);
        let limits = &self.set.config.tenants[index].limits;
        self.slots[index].last_used_ns = monotonic_ns();
        let share = self.slots[index].share(&tenant).clone();
        share.counters.count(Event::Request);
        // The sandbox checks this too, but the copy must be bounded before that.
        let most = limits.machine.request_bytes;
        let refusal = if size(request) > most {
            Some((
                Failure::RequestTooLarge,
                format!("the request is above the tenant's limit request_kib, {} KiB", most >> 10),
            ))
        } else {
            None
        };
        let in_flight = InFlight::enter(&tenant, limits.concurrent_requests);
        let (failure, reason) = match (refusal, in_flight) {
            (Some(refusal), _) => refusal,
            (None, None) => (Failure::TooManyRequests, TOO_MANY.to_owned()),
            (None, Some(in_flight)) => {
                share.counters.count(Event::Parked);
                let request = OwnedRequest::copy(request);
                let (id, mailbox) = (self.ids.next(), share.mailbox);
                let job = Job { tenant, request, id, mailbox, former, retention, reply, in_flight, mode_header };
                return self.server.boots().submit(job);
            }
        };
        share.counters.failed(failure);
        let id = self.ids.next();
        tenant.log.failed(id, failure, &reason);
        answer(failure, &reason, id, &mut *reply);
        for unused in former.into_iter().chain(retention.into_worker()) {
            background.orders.close(unused);
        }
        reply.send();
    }

    /// Answers and counts a request that the HTTP server in front rejects, so that it does not reach its tenant.
    pub fn refuse(
        &mut self,
        request: &Request<'_>,
        failure: Failure,
        reason: &str,
        sink: &mut (impl ResponseSink + ?Sized),
    ) {
        self.refresh();
        match self.set.router.find(host(request), request.path) {
            Some(index) => self.refuse_at(index, failure, reason, sink),
            None => {
                self.unrouted.store(self.unrouted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                answer(failure, reason, self.ids.next(), sink);
            }
        }
    }

    #[cold]
    fn refuse_at(
        &mut self,
        index: TenantIndex,
        failure: Failure,
        reason: &str,
        sink: &mut (impl ResponseSink + ?Sized),
    ) {
        let id = self.ids.next();
        let tenant = &self.set.tenants[index];
        let counters = &self.slots[index].share(tenant).counters;
        counters.count(Event::Request);
        counters.failed(failure);
        tenant.log.failed(id, failure, reason);
        answer(failure, reason, id, sink);
    }

    /// Why the tenant may not begin another request, if it may not.
    #[cold]
    fn too_much(&self, index: TenantIndex) -> Option<(Failure, &'static str)> {
        let tenant = &self.set.tenants[index];
        let parked = tenant.parked.load(Ordering::Relaxed);
        if parked >= self.set.config.tenants[index].limits.concurrent_requests {
            Some((Failure::TooManyRequests, TOO_MANY))
        } else if self.server.background().overflow.permits.has_share(PermitKind::Run, &tenant.permits) {
            Some((Failure::Overloaded, OVERLOADED))
        } else {
            None
        }
    }

    /// Takes over a new set of tenants, if there is one.
    fn refresh(&mut self) {
        let news = self.server.news();
        if self.seen != news {
            self.look(news);
        }
    }

    #[cold]
    fn look(&mut self, news: u64) {
        self.seen = news;
        let set = self.server.set();
        if set.epoch != self.set.epoch {
            self.take_over(set);
        }
        self.close_idle();
    }

    /// Sets the function that other threads call when this loop is to call [`Self::tend`] and may have no request that
    /// would do so. It must not block.
    pub fn set_waker(&mut self, wake: impl Fn() + Send + 'static) {
        self.server.set_waker(self.number, Some(Box::new(wake)));
    }

    /// Removes the waker.
    pub fn clear_waker(&mut self) {
        self.server.set_waker(self.number, None);
    }

    /// Does the work that is due besides requests: closes idle workers, if memory is short.
    pub fn tend(&mut self) {
        self.refresh();
    }

    /// Passes workers to the thread that closes them: those that have been idle for longer than memory allows, and
    /// those of stopped programs.
    fn close_idle(&mut self) {
        // `u64::MAX`: memory is not short.
        let idle_ns = Some(self.server.idle_ns()).filter(|idle_ns| *idle_ns != u64::MAX);
        let now = monotonic_ns();
        let mut closed = 0;
        for (tenant, slot) in self.set.tenants.iter().zip(&mut self.slots) {
            let Some(forked) = &slot.worker else { continue };
            let much = if tenant.account.holds_much() { MUCH_IDLE_NS } else { u64::MAX };
            let is_idle = idle_ns.is_some_and(|longest| now.saturating_sub(slot.last_used_ns) >= longest.min(much));
            let is_stopped = tenant.generation() == 0;
            if !forked.is_ephemeral() || !(is_idle || is_stopped) {
                continue;
            }
            if let Some(forked) = slot.worker.take() {
                self.held -= 1;
                closed += 1;
                self.server.background().orders.close(forked);
            }
        }
        self.server.memory().closed_workers.fetch_add(closed, Ordering::Relaxed);
    }

    #[cold]
    fn take_over(&mut self, set: Arc<TenantSet>) {
        // Positions still refer to the former set here.
        self.reset_answered();
        let mut former: std::collections::HashMap<*const Tenant, Slot> = std::mem::take(&mut self.slots)
            .into_iter()
            .zip(&self.set.tenants)
            .filter(|(slot, _)| slot.share.is_some())
            .map(|(slot, tenant)| (Arc::as_ptr(tenant), slot))
            .collect();
        self.slots = set.tenants.iter().map(|tenant| former.remove(&Arc::as_ptr(tenant)).unwrap_or_default()).collect();
        for gone in former.into_values().filter_map(|slot| slot.worker) {
            self.held -= 1;
            self.server.background().orders.close(gone);
        }
        self.set = set;
    }

    /// Ends a request for which the caller did not call [`Self::call_later`].
    #[cold]
    fn give_up(&mut self, unfinished: Unfinished) {
        let background = self.server.background();
        match unfinished {
            Unfinished::Paused { mut call, .. } => {
                call.abandon_store(&background.overflow);
                background.orders.close(call.forked);
            }
            Unfinished::Unserved { former, retention, .. } => {
                for unused in former.into_iter().chain(retention.into_worker()) {
                    background.orders.close(unused);
                }
            }
        }
    }
}

impl Drop for LoopPool {
    fn drop(&mut self) {
        self.server.pool_ended(self.number);
    }
}

impl Retention {
    fn into_worker(self) -> Option<Forked> {
        match self {
            Self::Replace(worker) => Some(worker),
            Self::Stay | Self::Go => None,
        }
    }
}

const NO_ROUTE: &str = "no tenant answers this host and path";
const TOO_MANY: &str = "the tenant has reached its limit on requests in progress (concurrent_requests)";

/// Generates the request ids of one pool.
#[derive(Debug)]
struct Ids {
    next: u64,
}

impl Ids {
    /// The finaliser of SplitMix64 is a bijection: different numbers stay different, and consecutive ones look
    /// unrelated.
    fn next(&mut self) -> RequestId {
        self.next = self.next.wrapping_add(1);
        let mut x = self.next;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId(x ^ (x >> 31))
    }
}
