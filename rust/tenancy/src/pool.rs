// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers of one loop thread: one for each tenant that it serves, forked ahead of requests.

mod ids;
mod resets;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mayfly_sandbox::{Request, ResponseSink, Slice, WorkerState};

use crate::config::TenantConfig;
use crate::host::affinity;
use crate::host::clock::monotonic_ns;
use crate::model::failure::{Failure, RequestId, answer};
use crate::model::generation::Forked;
use crate::model::meter::{Counters, Event};
use crate::model::permits::{CallPermit, PermitKind};
use crate::model::route::TenantIndex;
use crate::model::slot_permit::SlotPermit;
use crate::model::tenant::{State, Tenant};
use crate::model::worker_mailbox::WorkerMailbox;
use crate::run::call::{Call, CallContext, CallStep, TrackedSink};
use crate::run::client_fields::with_client;
use crate::run::client_key::client_key;
use crate::run::gate::Gated;
use crate::run::in_flight::InFlight;
use crate::run::reply::DeferredReply;
use crate::run::request::{OwnedRequest, host, size};
use crate::schedule::job::{Job, Retention};
use crate::schedule::orders::Orders;
use crate::schedule::overflow::{OVERLOADED, Parked};
use crate::server::{Server, TenantSet};
use ids::Ids;

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
/// A call takes no lock and allocates nothing while the tenant answers within its inline budget, if its workers are the
/// loop's own and stand still between requests. Others are where further threads find them, behind locks that are held
/// for a few instructions. Only other threads fork workers and close poisoned ones. To have a worker prepared for its
/// next request, by its program's hook, takes a lock and allocates: that follows the response, in
/// [`Self::reset_answered`], if the caller defers resets.
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
    /// Tenants whose worker may be one of these, or one that is to be prepared, each once, with the request that it has
    /// answered. Not in the slots: a request reads its slot, and each cache line of that is a miss after a world switch.
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
    Unserved {
        hit: RouteHit,
        former: Option<Forked>,
        retention: Retention,
        /// The right to one of a fixed number of workers.
        slot: Option<Box<SlotPermit>>,
        /// It waits for one of a fixed number of workers.
        is_in_line: bool,
    },
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
        let news = server.news();
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
            // Not what it is: the first request looks, on the loop's own thread.
            seen: !news,
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

    /// Counts a request that an HTTP server with routes of its own has answered with 404, since neither they nor a
    /// tenant take it.
    pub fn count_unrouted(&mut self) {
        self.unrouted.store(self.unrouted.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
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
            self.count_unrouted();
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
            None => match self.find_worker(index, current, request) {
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
        let client = &self.set.config.tenants[index].client;
        let step = with_client(client, request, |request| call.begin(context, request, &mut TrackedSink::new(sink)));
        if step == CallStep::Done && call.forked.is_ready() {
            slot.last_used_ns = call.forked.worker.last_started_ns();
            if call.forked.slot.is_some() {
                self.server.background().overflow.give_back(&self.set.tenants[index], call.forked);
            } else if call.forked.legs.is_some() {
                self.lend(index, call.forked);
            } else {
                let needs_hook = call.forked.needs_hook();
                slot.worker = Some(call.forked);
                if needs_hook {
                    self.prepare_answered(index, call.id);
                }
            }
            return Outcome::Done;
        }
        if step == CallStep::Done && call.forked.worker.state() == WorkerState::Answered {
            self.defer_reset(index, call);
            return Outcome::Done;
        }
        self.leave(index, call, step, sink)
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
        let is_fixed = call.forked.slot.is_some();
        self.held -= usize::from(!is_fixed);
        let slot = &mut self.slots[index];
        slot.last_used_ns = call.forked.worker.last_started_ns();
        let share = slot.share(tenant).clone();
        // A worker that keeps state comes back with it; a second one would start from scratch. One whose request ends
        // here or in `give_up` does not: see `close_interrupted`. One of a fixed number is replaced when it is dropped.
        if !is_fixed && (step == CallStep::Done || call.forked.is_ephemeral()) {
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
        close_interrupted(&background.orders, call.forked, tenant, &share.mailbox);
        Outcome::Done
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
        let (hit, former, retention, slot, is_in_line) = match unfinished {
            Some(Unfinished::Paused { tenant, call, step, mailbox, in_flight, permit }) => {
                let parked = Parked::of_request(tenant, call, reply, mailbox, in_flight, Some(permit), mode_header);
                return background.overflow.settle(parked, step);
            }
            Some(Unfinished::Unserved { hit, former, retention, slot, is_in_line }) => {
                (Some(hit), former, retention, slot, is_in_line)
            }
            None => (None, None, Retention::Stay, None, false),
        };
        let Some(index) = self.index(hit, request) else {
            answer(Failure::NoRoute, NO_ROUTE, self.ids.next(), &mut *reply);
            return reply.send();
        };
        let tenant = Arc::clone(&self.set.tenants[index]);
        let TenantConfig { limits, client, affinity, .. } = &self.set.config.tenants[index];
        self.slots[index].last_used_ns = monotonic_ns();
        let share = self.slots[index].share(&tenant).clone();
        share.counters.count(Event::Request);
        // The sandbox checks this too, but the copy must be bounded before that.
        let most = limits.machine.request_bytes;
        let refusal = if with_client(client, request, size) > most {
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
                let key = affinity.as_ref().and_then(|by| client_key(by, request));
                let job = Job {
                    tenant,
                    request: with_client(client, request, OwnedRequest::copy),
                    id: self.ids.next(),
                    mailbox: share.mailbox,
                    former,
                    retention,
                    reply,
                    in_flight,
                    mode_header,
                    slot,
                    key,
                    permit: None,
                    ticket: None,
                    since_ns: None,
                };
                return if is_in_line {
                    background.overflow.wait_in_line(job)
                } else {
                    self.server.boots().submit(job)
                };
            }
        };
        share.counters.failed(failure);
        let id = self.ids.next();
        tenant.log.failed(id, failure, &reason);
        answer(failure, &reason, id, &mut *reply);
        for unused in former.into_iter().chain(retention.into_worker()) {
            background.overflow.give_up_worker(&tenant, unused);
        }
        drop(slot);
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
                self.count_unrouted();
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
        self.bind_thread();
        self.close_idle();
    }

    /// Binds the loop's thread to a processor, if the operator or an engine wants it.
    fn bind_thread(&self) {
        if self.set.config.pin_loops.unwrap_or_else(|| self.server.prefers_bound_loops()) {
            affinity::bind(self.number);
        }
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

    /// Does the work that is due besides requests: closes the workers of tenants that are gone, and idle workers, if
    /// memory is short.
    pub fn tend(&mut self) {
        self.refresh();
    }

    /// Ends a request for which the caller did not call [`Self::call_later`]. If it has begun, its worker is replaced.
    #[cold]
    fn give_up(&mut self, unfinished: Unfinished) {
        let background = self.server.background();
        match unfinished {
            Unfinished::Paused { mut call, tenant, mailbox, .. } => {
                call.abandon_store(&background.overflow);
                close_interrupted(&background.orders, call.forked, &tenant, &mailbox);
            }
            Unfinished::Unserved { hit, former, retention, .. } => {
                for unused in former.into_iter().chain(retention.into_worker()) {
                    // The hit is of the current set: a new one is taken over only before the next call.
                    match self.set.tenants.get(hit.index).filter(|_| hit.epoch == self.set.epoch) {
                        Some(tenant) => background.overflow.give_up_worker(tenant, unused),
                        None => background.orders.close(unused),
                    }
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

/// Closes the worker of a request that has begun and does not continue. One that keeps state is replaced; one of a fixed
/// number replaces itself, and instead of another, `LoopPool::leave` has ordered one already.
#[cold]
fn close_interrupted(orders: &Orders, forked: Forked, tenant: &Arc<Tenant>, mailbox: &Arc<WorkerMailbox>) {
    let is_replaced = forked.is_ephemeral() || forked.slot.is_some();
    // First, so that the bound on workers has room for the next.
    orders.close(forked);
    if !is_replaced {
        orders.fork(tenant, mailbox);
    }
}

const NO_ROUTE: &str = "no tenant answers this host and path";
const TOO_MANY: &str = "the tenant has reached its limit on requests in progress (concurrent_requests)";
