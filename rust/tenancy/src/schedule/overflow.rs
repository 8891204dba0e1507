// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that have used up their slice on their loop, or sleep: a bounded number of threads runs them in turns.
//!
//! ```text
//!   turns, by tenant ── a thread ──> a slice ──> answered
//!     ^   ^                            │  │└───> asleep, until its time ─┐     or its descriptor is ready
//!     │   └────────────────────────────┘  └────> queued for a store ─────┤     until its ticket is called
//!     └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A request that sleeps or is queued for a store occupies no thread. Idle threads wait; only one of them waits for the
//! earliest sleeper's time. One more thread wakes the sleepers whose descriptors become ready: see [`DescriptorWatch`].
//!
//! A request that waits for one of its tenant's fixed number of workers has not begun: see [`mod@line`]. Programs that
//! keep their state run here between requests, too: see [`mod@legs`].
//!
//! A step that may block its thread, on a disk or a network file system that does not respond, runs here as well. At
//! any time at least one of several threads takes no such step, and at most half of the threads take one for the same
//! tenant. So such a file system delays only the tenants that use it.
//!
//! Turns are given by tenant and then by request, so that one tenant's endless loops take no more than its share from
//! another's request of five milliseconds. The threads have a low priority: a loop thread with work preempts them.

mod legs;
mod line;
mod parked;
mod prepare;
mod priority;
mod queue;
#[cfg(test)]
mod tests;
mod timetable;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_sandbox::{Slice, Worker};

use crate::host::clock::monotonic_ns;
use crate::host::workers::Workers;
use crate::model::failure::Failure;
use crate::model::permits::CallPermits;
use crate::model::store::{Claim, Store, Ticket};
use crate::run::call::{CallContext, CallStep, StoreKeeper, TrackedSink};
use crate::run::reply::{INTERNAL_ERROR, SHUTTING_DOWN, send};
use crate::schedule::descriptor_watch::DescriptorWatch;
use crate::schedule::orders::Orders;
use legs::LEG;
use line::expire;
use queue::{Blocked, Queue, Turn};
use timetable::Timetable;

pub(crate) use parked::Parked;

/// Length of a turn.
const SLICE: Duration = Duration::from_millis(5);
/// How long unfinished requests continue when the server shuts down.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(2);
/// Interval at which a sleeper runs whose descriptor cannot be watched.
const POLL_NS: u64 = 10_000_000;

/// The unfinished requests.
#[derive(Debug)]
pub(crate) struct Overflow {
    pub(crate) permits: CallPermits,
    workers: Workers,
    orders: Orders,
    queue: Mutex<Queue>,
    arrived: Condvar,
    descriptors: DescriptorWatch,
    /// When the programs of idle workers run.
    timetable: Arc<Timetable>,
}

impl Overflow {
    pub(crate) fn new(threads: u32, workers: Workers, orders: Orders) -> io::Result<Self> {
        let timetable = Arc::new(Timetable::default());
        let queue = Queue { blocked: Blocked::of(threads), timetable: Arc::clone(&timetable), ..Queue::default() };
        Ok(Self {
            permits: CallPermits::new(threads),
            workers,
            orders,
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            descriptors: DescriptorWatch::new()?,
            timetable,
        })
    }

    /// Queues a request that has a run permit for turns.
    pub(crate) fn push(&self, parked: Parked) {
        self.add(parked, Queue::push);
    }

    /// Queues a request that has a sleep permit for turns from `until_ns` on, or from when its descriptor is ready.
    fn sleep(&self, parked: Parked, until_ns: u64) {
        self.add(parked, |queue, parked| {
            // The thread that handles an event waits for the queue's lock, so the sleeper is in the queue by then.
            let watched =
                parked.call.waits_for().map(|outside| self.descriptors.watch(outside, queue.asleep.next_number()));
            let until_ns = match watched {
                Some(Err(_)) => until_ns.min(monotonic_ns().saturating_add(POLL_NS)),
                Some(Ok(())) | None => until_ns,
            };
            queue.asleep.push(until_ns, parked);
        });
    }

    fn add(&self, parked: Parked, add: impl FnOnce(&mut Queue, Parked)) {
        let mut queue = self.queue();
        if queue.is_over() {
            drop(queue);
            return parked.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        add(&mut queue, parked);
        let is_news = queue.has_news();
        drop(queue);
        if is_news {
            self.arrived.notify_one();
        }
    }

    /// Has a waiting thread look at what has been added, if none waits for it yet.
    fn tell_news(&self) {
        if self.queue().has_news() {
            self.arrived.notify_one();
        }
    }

    /// Queues a request for a storage program.
    fn enqueue(&self, store: &Arc<Store>, parked: Parked) {
        let mut queue = self.queue();
        if queue.is_over() {
            drop(queue);
            return parked.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        queue.last_ticket += 1;
        let ticket = Ticket(queue.last_ticket);
        // Before the ticket is queued, since another thread may call it at once.
        queue.queued.insert(ticket, parked);
        drop(queue);
        if let Some(claim) = store.enqueue(ticket) {
            self.call_ticket(store, ticket, claim);
        }
    }

    /// Continues the request of a ticket with the result that it waited for. If the request has been answered
    /// meanwhile, as happens at shutdown, the next ticket is called.
    fn call_ticket(&self, store: &Arc<Store>, mut ticket: Ticket, mut claim: Claim) {
        loop {
            let called = self.queue().queued.remove(&ticket);
            if let Some(mut parked) = called {
                parked.call.hold_store(claim);
                return self.push(parked);
            }
            match claim {
                Claim::Held(worker) => match store.give_back(worker) {
                    Some((next, worker)) => (ticket, claim) = (next, Claim::Held(worker)),
                    None => return,
                },
                Claim::Lost => return self.orders.replace_store(store, None),
                Claim::Busy => return,
            }
        }
    }

    /// Continues a storage program's queue, if its worker is idle. For a thread that has reloaded the program.
    pub(crate) fn serve_queue(&self, store: &Arc<Store>) {
        if let Some((ticket, claim)) = store.next_in_queue() {
            self.call_ticket(store, ticket, claim);
        }
    }

    /// Hands a storage program's worker to the request of a ticket, if there is one.
    pub(crate) fn send_on(&self, store: &Arc<Store>, next: Option<(Ticket, Box<Worker>)>) {
        if let Some((ticket, worker)) = next {
            self.call_ticket(store, ticket, Claim::Held(worker));
        }
    }

    /// Serves until the queue is closed.
    pub(crate) fn work(&self) {
        priority::lower_thread();
        while let Some(turn) = self.next() {
            let parked = match turn {
                Turn::Request(parked) => parked,
                Turn::Leg(number, leg) => {
                    self.run_leg(number, leg);
                    continue;
                }
            };
            let blocked = parked.may_block.then(|| Arc::as_ptr(&parked.tenant).addr());
            self.take_turn(parked);
            if let Some(tenant) = blocked {
                // No notification is necessary: this thread looks for the next request itself.
                self.queue().blocked.leave(tenant);
            }
        }
    }

    /// Wakes sleepers whose descriptors are ready, until the queue is closed.
    pub(crate) fn watch(&self) {
        let mut is_closing = false;
        loop {
            let ready = self.descriptors.wait(is_closing.then_some(SLICE));
            if is_closing {
                // The bell stays readable, so `wait` returns at once.
                std::thread::sleep(SLICE);
            }
            let mut queue = self.queue();
            is_closing = queue.closes_at.is_some();
            if queue.is_over() || (is_closing && self.permits.in_use() == 0) {
                return;
            }
            let (legs, sleepers): (Vec<u64>, Vec<u64>) = ready.into_iter().partition(|number| number & LEG != 0);
            let legs = legs.into_iter().filter(|number| self.timetable.tell_ready(number & !LEG)).count();
            let woken: Vec<Parked> = sleepers.into_iter().filter_map(|number| queue.asleep.remove(number)).collect();
            let count = woken.len() + legs;
            woken.into_iter().for_each(|parked| queue.push(parked));
            drop(queue);
            (0..count).for_each(|_| self.arrived.notify_one());
        }
    }

    /// Lets these requests continue for [`STOP_WAIT`]. The threads end when all have finished or been refused.
    pub(crate) fn close(&self) {
        self.queue().closes_at = Some(Instant::now() + STOP_WAIT);
        self.arrived.notify_all();
        self.descriptors.ring();
    }

    fn next(&self) -> Option<Turn> {
        let mut queue = self.queue();
        loop {
            if queue.is_over() {
                let (waiting, in_line) = (queue.clear(), queue.clear_line());
                drop(queue);
                in_line.for_each(|job| job.refuse(Failure::Unavailable, SHUTTING_DOWN));
                waiting.for_each(|parked| parked.refuse(Failure::Unavailable, SHUTTING_DOWN));
                return None;
            }
            let now = monotonic_ns();
            queue.wake(now);
            if let Some(job) = queue.in_line.pop_due(now) {
                drop(queue);
                expire(job);
                queue = self.queue();
                continue;
            }
            if let Some(turn) = queue.next_turn(now) {
                // This thread was responsible for the rest of the queue, and is about to be busy.
                if queue.has_news() {
                    self.arrived.notify_one();
                }
                return Some(turn);
            }
            if queue.closes_at.is_some() && self.permits.in_use() == 0 {
                return None;
            }
            let alarm = queue.unwatched_ns();
            // At shutdown, other threads may requeue or finish requests without notifying this one.
            let at_most = match (alarm, queue.closes_at) {
                (_, Some(_)) => Some(SLICE),
                (Some(alarm), None) => Some(Duration::from_nanos(alarm.saturating_sub(now))),
                (None, None) => None,
            };
            queue.watched_ns = alarm.or(queue.watched_ns);
            queue = match at_most {
                None => self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(time) => self.arrived.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner).0,
            };
            // Unless another thread meanwhile waits for an earlier time.
            queue.watched_ns = queue.watched_ns.filter(|watched| alarm != Some(*watched));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change is atomic with respect to panics, unless memory runs out during it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overflow {
    fn take_turn(&self, mut parked: Parked) {
        priority::lower(&mut parked.call, parked.has_used_turn && parked.preparation.is_none());
        let context = CallContext {
            tenant: &parked.tenant,
            counters: &parked.tenant.background,
            stores: self,
            slice: Slice { time: SLICE, may_block: parked.may_block },
            mode_header: parked.mode_header,
            may_defer_reset: false,
        };
        let mut sink = TrackedSink::new(&mut *parked.reply);
        let result = catch_unwind(AssertUnwindSafe(|| parked.call.go_on(context, &mut sink)));
        let answered = sink.answered;
        match result {
            Ok(step) => {
                parked.has_used_turn |= step == CallStep::Paused;
                self.settle(parked, step);
            }
            Err(_) if answered => self.finish(parked),
            // The panic hook has logged the panic; the thread continues with other requests.
            Err(_) => {
                parked.call.abandon_store(self);
                parked.refuse(Failure::Internal, INTERNAL_ERROR);
            }
        }
    }

    /// Acts on the result of a request's step.
    pub(crate) fn settle(&self, mut parked: Parked, step: CallStep) {
        // A deadline of *now* means that the next step may block.
        parked.may_block = matches!(step, CallStep::Sleeps { until_ns } if until_ns <= monotonic_ns());
        if step == CallStep::Done {
            return self.finish(parked);
        }
        if let Some(legs) = &mut parked.call.forked.legs {
            // The request takes longer: others do not wait for its worker.
            legs.away = None;
        }
        if !self.has_permit(&mut parked, step) {
            return self.give_up(parked);
        }
        match step {
            CallStep::Done | CallStep::Paused => self.push(parked),
            CallStep::Waits => match parked.call.forked.generation.store.clone() {
                Some(store) => self.enqueue(&store, parked),
                None => self.give_up(parked),
            },
            CallStep::Sleeps { until_ns } => self.sleep(parked, until_ns),
        }
    }

    /// Exchanges the request's permit for the kind that its step needs. A sleeper that wakes keeps its sleep permit for
    /// its first turn; only then is it known whether it needs a run permit.
    fn has_permit(&self, parked: &mut Parked, step: CallStep) -> bool {
        if parked.preparation.is_some() {
            return true;
        }
        let kind = step.permit();
        if parked.permit.as_ref().is_none_or(|permit| permit.kind() != kind) {
            parked.permit = self.permits.take(kind, &parked.tenant.permits);
        }
        parked.permit.is_some()
    }

    /// Ends a request for which there is no permit.
    fn give_up(&self, mut parked: Parked) {
        parked.call.abandon_store(self);
        parked.refuse(Failure::Overloaded, OVERLOADED);
    }

    /// Sends the answer, and keeps the worker if it is still usable.
    fn finish(&self, mut parked: Parked) {
        if let Some(preparation) = parked.preparation.take() {
            return self.keep_prepared(parked, preparation);
        }
        let Parked { tenant, call, reply, mailbox, in_flight, permit, .. } = parked;
        // Released before the answer: the client may send its next request as soon as it has the answer.
        drop((in_flight, permit));
        let mut forked = call.forked;
        if forked.is_ready() && forked.slot.is_some() {
            priority::raise(&mut forked.worker);
            self.give_back(&tenant, forked);
            return send(reply);
        }
        if forked.is_ready() && priority::is_kept(&mut forked) {
            let leg = self.expect_leg_in_mailbox(&tenant, &mut forked, &mailbox);
            if forked.legs.as_ref().is_some_and(|legs| legs.away.is_some()) && forked.number == tenant.generation() {
                self.return_to_mailbox(&mailbox, forked, Some(Box::new(move || send(reply))));
                return self.start_leg(leg);
            }
            if let Some(legs) = &mut forked.legs {
                // It does not come back as it was.
                legs.away = None;
            }
            if forked.permit.is_none() {
                forked.permit = self.workers.permit();
            }
            if tenant.generation() == forked.generation.number
                || tenant.ready().is_some_and(|current| current.succeeds(Some(&forked.generation)))
            {
                match self.prepare(&tenant, forked, &mailbox, false) {
                    Ok(()) => {}
                    Err(forked) => mailbox.put(forked),
                }
                self.start_leg(leg);
            }
        }
        send(reply);
    }
}

impl StoreKeeper for Overflow {
    fn give_back(&self, store: &Arc<Store>, mut worker: Box<Worker>) {
        priority::raise(&mut worker);
        self.send_on(store, store.give_back(worker));
    }

    fn replace(&self, store: &Arc<Store>, lost: Option<Box<Worker>>) {
        self.orders.replace_store(store, lost);
    }
}

pub(crate) const OVERLOADED: &str =
    "the request has used up its inline budget, and too many such requests are in progress";

const OVERLOADED_LINE: &str = "too many requests are waiting for a worker";
