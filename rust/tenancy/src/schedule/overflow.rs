// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests whose slice on their loop was over, or that wait for a time: a bounded number of threads runs them in
//! turns.
//!
//! ```text
//!   turns, by tenant ── a thread ──> a slice ──> answered
//!     ^   ^                            │  │└───> asleep, until its time ─┐     or something happens outside
//!     │   └────────────────────────────┘  └────> in line for a store ────┤     until its ticket is called
//!     └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A request that sleeps or stands in line holds no thread. Threads without a turn to give wait; one of them, and not
//! all, waits for the earliest sleeper's time. One thread more wakes those that wait for something outside: see
//! [`Readiness`].
//!
//! A step that may hold its thread up, by a disk or a network file system that does not answer, is taken here as well:
//! not by all threads at a time, and not for one tenant by more than half of them, so that such a file system holds up
//! only the tenants that use it.
//!
//! Turns go by tenant and then by request, so that one tenant's endless loops take no more than its share from
//! another's request of five milliseconds. The threads have a low priority: a loop with something to do goes first.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mayfly_sandbox::{Slice, Worker};

use crate::host::clock::monotonic_ns;
use crate::host::workers::Workers;
use crate::model::failure::{Failure, answer};
use crate::model::permits::{CallPermit, CallPermits};
use crate::model::store::{Claim, Store, Ticket};
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::WorkerMailbox;
use crate::run::call::{Call, CallContext, CallStep, StoreKeeper, TrackedSink};
use crate::run::in_flight::InFlight;
use crate::run::reply::{DeferredReply, INTERNAL_ERROR, SHUTTING_DOWN, send};
use crate::schedule::orders::Orders;
use crate::schedule::readiness::Readiness;
use crate::schedule::sleepers::Sleepers;

/// The threads' nice value: low enough that a loop with something to do preempts them, and not so low that they starve
/// on a full machine.
const NICE: i32 = 10;
/// One turn.
const SLICE: Duration = Duration::from_millis(5);
/// How long unfinished requests go on when the server shuts down.
pub(crate) const FAREWELL: Duration = Duration::from_secs(2);
/// How often a sleeper looks that cannot be watched.
const LOOK_NS: u64 = 10_000_000;

/// A request that has a worker, and is not on its loop any more.
pub(crate) struct Parked {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) call: Call,
    pub(crate) reply: Box<dyn DeferredReply>,
    pub(crate) mailbox: Arc<WorkerMailbox>,
    pub(crate) in_flight: InFlight,
    /// None while it is on a deferred thread.
    pub(crate) permit: Option<CallPermit>,
    /// Its next step may hold its thread up.
    pub(crate) may_block: bool,
    pub(crate) mode_header: bool,
}

/// The unfinished requests.
#[derive(Debug)]
pub(crate) struct Overflow {
    pub(crate) permits: CallPermits,
    workers: Workers,
    orders: Orders,
    queue: Mutex<Queue>,
    arrived: Condvar,
    readiness: Readiness,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whose turn it is, by the address of the tenant, which its requests keep alive.
    turns: VecDeque<usize>,
    by_tenant: HashMap<usize, VecDeque<Parked>>,
    asleep: Sleepers<Parked>,
    /// Those that stand in line for a storage program, by their tickets.
    in_line: HashMap<Ticket, Parked>,
    last_ticket: u64,
    held_up: HeldUp,
    /// The time for which a thread waits, if one does.
    watched_ns: Option<u64>,
    /// When the server shuts down: until when what is here goes on.
    closes_at: Option<Instant>,
}

/// Threads that a step may hold up.
#[derive(Debug, Default)]
struct HeldUp {
    most: u32,
    most_of_one: u32,
    all: u32,
    by_tenant: HashMap<usize, u32>,
}

impl HeldUp {
    fn of(threads: u32) -> Self {
        let most = threads.saturating_sub(1).max(1);
        Self { most, most_of_one: (threads / 2).max(1), ..Self::default() }
    }

    fn has_room(&self, tenant: usize) -> bool {
        self.all < self.most && self.by_tenant.get(&tenant).is_none_or(|own| *own < self.most_of_one)
    }

    fn enter(&mut self, tenant: usize) {
        self.all += 1;
        *self.by_tenant.entry(tenant).or_default() += 1;
    }

    fn leave(&mut self, tenant: usize) {
        self.all -= 1;
        if let Some(own) = self.by_tenant.get_mut(&tenant) {
            *own -= 1;
            if *own == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }
}

impl Overflow {
    pub(crate) fn new(threads: u32, workers: Workers, orders: Orders) -> io::Result<Self> {
        Ok(Self {
            permits: CallPermits::new(threads),
            workers,
            orders,
            queue: Mutex::new(Queue { held_up: HeldUp::of(threads), ..Queue::default() }),
            arrived: Condvar::new(),
            readiness: Readiness::new()?,
        })
    }

    /// Gives turns to a request that has a run permit.
    pub(crate) fn push(&self, parked: Parked) {
        self.add(parked, Queue::push);
    }

    /// Gives turns to a request that has a sleep permit from `until_ns` on, or from when something has happened that it
    /// waits for.
    fn sleep(&self, parked: Parked, until_ns: u64) {
        self.add(parked, |queue, parked| {
            // An event that comes before it is in the queue waits for the queue's lock.
            let watched =
                parked.call.waits_for().map(|outside| self.readiness.watch(outside, queue.asleep.next_number()));
            let until_ns = match watched {
                Some(Err(_)) => until_ns.min(monotonic_ns().saturating_add(LOOK_NS)),
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

    /// Has a request stand in line for a storage program.
    fn stand_in_line(&self, store: &Arc<Store>, parked: Parked) {
        let mut queue = self.queue();
        if queue.is_over() {
            drop(queue);
            return parked.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        queue.last_ticket += 1;
        let ticket = Ticket(queue.last_ticket);
        // Before the ticket is in line, since another thread may call it at once.
        queue.in_line.insert(ticket, parked);
        drop(queue);
        if let Some(claim) = store.stand_in_line(ticket) {
            self.call_ticket(store, ticket, claim);
        }
    }

    /// Lets the request of a ticket go on with what it stood in line for. If it has been answered meanwhile, as at the
    /// end of the server, the next one's turn comes.
    fn call_ticket(&self, store: &Arc<Store>, mut ticket: Ticket, mut claim: Claim) {
        loop {
            let called = self.queue().in_line.remove(&ticket);
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

    /// Goes on with a storage program's line, if its worker is idle: for a thread that has reloaded the program.
    pub(crate) fn serve_line(&self, store: &Arc<Store>) {
        if let Some((ticket, claim)) = store.next_in_line() {
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
        lower_priority();
        while let Some(parked) = self.next() {
            let held_up = parked.may_block.then(|| Arc::as_ptr(&parked.tenant).addr());
            self.take_turn(parked);
            if let Some(tenant) = held_up {
                // A request that waits for this thread gets it: the thread looks next.
                self.queue().held_up.leave(tenant);
            }
        }
    }

    /// Wakes sleepers for which something has happened, until the queue is closed.
    pub(crate) fn watch(&self) {
        let mut is_closing = false;
        loop {
            let told = self.readiness.wait(is_closing.then_some(SLICE));
            if is_closing {
                // The bell goes on ringing.
                std::thread::sleep(SLICE);
            }
            let mut queue = self.queue();
            is_closing = queue.closes_at.is_some();
            if queue.is_over() || (is_closing && self.permits.in_use() == 0) {
                return;
            }
            let woken: Vec<Parked> = told.into_iter().filter_map(|number| queue.asleep.remove(number)).collect();
            let count = woken.len();
            woken.into_iter().for_each(|parked| queue.push(parked));
            drop(queue);
            (0..count).for_each(|_| self.arrived.notify_one());
        }
    }

    /// Lets what is here go on for a little while; the threads end when it is done, or answered.
    pub(crate) fn close(&self) {
        self.queue().closes_at = Some(Instant::now() + FAREWELL);
        self.arrived.notify_all();
        self.readiness.ring();
    }

    fn next(&self) -> Option<Parked> {
        let mut queue = self.queue();
        loop {
            if queue.is_over() {
                let waiting = queue.clear();
                drop(queue);
                waiting.for_each(|parked| parked.refuse(Failure::Unavailable, SHUTTING_DOWN));
                return None;
            }
            let now = monotonic_ns();
            queue.wake(now);
            if let Some(parked) = queue.pop() {
                // This thread looked after the rest, and is away now.
                if queue.has_news() {
                    self.arrived.notify_one();
                }
                return Some(parked);
            }
            if queue.closes_at.is_some() && self.permits.in_use() == 0 {
                return None;
            }
            let alarm = queue.unwatched_ns();
            // While it closes, requests that other threads are at may come back, or be over, without a word.
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
            // Unless another thread waits for an earlier one by now.
            queue.watched_ns = queue.watched_ns.filter(|watched| alarm != Some(*watched));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change is whole, unless memory ran out in the middle of it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_over(&self) -> bool {
        self.closes_at.is_some_and(|end| Instant::now() >= end)
    }

    fn clear(&mut self) -> impl Iterator<Item = Parked> + use<> {
        self.turns.clear();
        let in_line = std::mem::take(&mut self.in_line).into_values();
        std::mem::take(&mut self.by_tenant).into_values().flatten().chain(self.asleep.take_all()).chain(in_line)
    }

    /// Whether there is something that a waiting thread does not know of.
    fn has_news(&self) -> bool {
        !self.turns.is_empty() || self.unwatched_ns().is_some()
    }

    /// The earliest sleeper's time, unless a thread waits for it.
    fn unwatched_ns(&self) -> Option<u64> {
        self.asleep.earliest_ns().filter(|earliest| self.watched_ns.is_none_or(|watched| watched > *earliest))
    }

    /// Gives turns to those whose time has come.
    fn wake(&mut self, now_ns: u64) {
        while let Some(parked) = self.asleep.pop_due(now_ns) {
            self.push(parked);
        }
    }

    fn push(&mut self, parked: Parked) {
        let key = Arc::as_ptr(&parked.tenant).addr();
        let requests = self.by_tenant.entry(key).or_default();
        if requests.is_empty() {
            self.turns.push_back(key);
        }
        requests.push_back(parked);
    }

    /// The next request whose turn it is. One that may hold its thread up waits until another thread may be held up.
    fn pop(&mut self) -> Option<Parked> {
        let can_go = |key: &usize| match self.by_tenant.get(key).and_then(VecDeque::front) {
            Some(parked) => !parked.may_block || self.held_up.has_room(*key),
            None => true,
        };
        let at = self.turns.iter().position(can_go)?;
        let key = self.turns.remove(at)?;
        let requests = self.by_tenant.get_mut(&key)?;
        let parked = requests.pop_front();
        if parked.as_ref().is_some_and(|parked| parked.may_block) {
            self.held_up.enter(key);
        }
        if requests.is_empty() {
            self.by_tenant.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        parked
    }
}

impl Overflow {
    fn take_turn(&self, mut parked: Parked) {
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
            Ok(step) => self.settle(parked, step),
            Err(_) if answered => self.finish(parked),
            // The panic hook has told the log; the thread goes on for other requests.
            Err(_) => {
                parked.call.abandon_store(self);
                parked.refuse(Failure::Internal, INTERNAL_ERROR);
            }
        }
    }

    /// Does what follows from a request's step.
    pub(crate) fn settle(&self, mut parked: Parked, step: CallStep) {
        // A deadline of *now* means that the next step may block.
        parked.may_block = matches!(step, CallStep::Sleeps { until_ns } if until_ns <= monotonic_ns());
        if step == CallStep::Done {
            return self.finish(parked);
        }
        if !self.has_permit(&mut parked, step) {
            return self.give_up(parked);
        }
        match step {
            CallStep::Done | CallStep::Paused => self.push(parked),
            CallStep::Waits => match parked.call.forked.generation.store.clone() {
                Some(store) => self.stand_in_line(&store, parked),
                None => self.give_up(parked),
            },
            CallStep::Sleeps { until_ns } => self.sleep(parked, until_ns),
        }
    }

    /// Changes to the permit that a step needs. A sleeper that wakes keeps its own for its first turn: whether it needs
    /// a run permit shows then.
    fn has_permit(&self, parked: &mut Parked, step: CallStep) -> bool {
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

    /// Sends the answer, and keeps the worker if it is worth it.
    fn finish(&self, parked: Parked) {
        let Parked { tenant, call, reply, mailbox, in_flight, permit, .. } = parked;
        // Before the answer: the client that gets it may send its next request at once.
        drop((in_flight, permit));
        let mut forked = call.forked;
        if forked.is_ready() {
            if forked.permit.is_none() {
                forked.permit = self.workers.permit();
            }
            if tenant.generation() == forked.generation.number
                || tenant.ready().is_some_and(|current| current.succeeds(Some(&forked.generation)))
            {
                mailbox.put(forked);
            }
        }
        send(reply);
    }
}

impl StoreKeeper for Overflow {
    fn give_back(&self, store: &Arc<Store>, worker: Box<Worker>) {
        self.send_on(store, store.give_back(worker));
    }

    fn replace(&self, store: &Arc<Store>, lost: Option<Box<Worker>>) {
        self.orders.replace_store(store, lost);
    }
}

impl Parked {
    /// Answers for the request, and closes its worker.
    fn refuse(self, failure: Failure, reason: &str) {
        let Self { tenant, call, mut reply, in_flight, permit, .. } = self;
        tenant.background.failed(failure);
        tenant.log.failed(call.id, failure, reason);
        answer(failure, reason, call.id, &mut *reply);
        drop((in_flight, permit));
        send(reply);
    }
}

pub(crate) const OVERLOADED: &str = "the request takes longer than its share of a loop, and too many such requests run";

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("tenant", &self.tenant.name).field("call", &self.call).finish_non_exhaustive()
    }
}

/// Lets every other thread go first.
fn lower_priority() {
    // On Linux setpriority(2) changes the calling thread alone. Should it fail, requests take longer beside busy
    // tenants.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(target: "mayfly::server", %error, "an overflow thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{self, Receiver, Sender};

    use mayfly_sandbox::{BufferedResponse, Request, ResponseSink};
    use serde_json::json;

    use super::*;
    use crate::model::failure::RequestId;
    use crate::model::permits::PermitKind;
    use crate::{Config, Server};

    struct Reply {
        response: BufferedResponse,
        sender: Sender<(u64, BufferedResponse)>,
    }

    impl ResponseSink for Reply {
        fn body(&mut self, len: usize) -> &mut [u8] {
            self.response.body(len)
        }

        fn status(&mut self, status: u16) {
            self.response.status(status);
        }

        fn header(&mut self, name: &[u8], value: &[u8]) {
            self.response.header(name, value);
        }
    }

    impl DeferredReply for Reply {
        fn send(self: Box<Self>) {
            let _ = self.sender.send((monotonic_ns(), self.response));
        }
    }

    const TIME: Duration = Duration::from_secs(20);

    fn server() -> Server {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
        assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
        let limits = json!({"cpu_ms": 60_000, "wall_ms": 60_000});
        let tenant = json!({"name": "a", "path": "/", "program": program, "limits": limits});
        let config = json!({"overflow_threads": 1, "tenants": [tenant]});
        Server::start(Config::from_value(&config).unwrap()).unwrap()
    }

    /// Starts on a request that spins for so many milliseconds, and stops after the first of them.
    fn begun(server: &Server, query: &str) -> (Parked, Receiver<(u64, BufferedResponse)>) {
        let tenant = Arc::clone(&server.set().tenants[0]);
        let mut call = Call::new(tenant.fork(None).unwrap(), RequestId(1));
        let request = Request { method: b"GET", path: b"/spin", query: query.as_bytes(), headers: &[], body: b"" };
        let (sender, receiver) = mpsc::channel();
        let mut reply = Box::new(Reply { response: BufferedResponse::default(), sender });
        let slice = Slice::non_blocking(Duration::from_millis(1));
        let context = CallContext {
            tenant: &tenant,
            counters: &tenant.background,
            stores: &server.background().overflow,
            slice,
            mode_header: false,
            may_defer_reset: false,
        };
        assert_eq!(call.begin(context, &request, &mut TrackedSink::new(&mut *reply)), CallStep::Paused);
        let in_flight = InFlight::enter(&tenant, 10_000).unwrap();
        let mailbox = tenant.new_mailbox();
        (
            Parked { tenant, call, reply, mailbox, in_flight, permit: None, may_block: false, mode_header: false },
            receiver,
        )
    }

    #[test]
    fn a_sleeper_goes_on_at_its_time_and_holds_no_thread_meanwhile() {
        let server = server();
        let overflow = &server.background().overflow;
        let now = monotonic_ns();
        // All on one thread, and in another order than that of their times.
        let ends: Vec<_> = [600, 300, 450]
            .into_iter()
            .map(|after_ms| {
                let (parked, receiver) = begun(&server, "30");
                let until_ns = now + after_ms * 1_000_000;
                overflow.settle(parked, CallStep::Sleeps { until_ns });
                (until_ns, receiver)
            })
            .collect();
        assert_eq!(server.report().overflow, 3);
        let (awake, receiver) = begun(&server, "30");
        overflow.settle(awake, CallStep::Paused);
        let (_, response) = receiver.recv_timeout(TIME).unwrap();
        assert_eq!(response.status, 200);
        for (until_ns, receiver) in ends {
            let (end_ns, response) = receiver.recv_timeout(TIME).unwrap();
            assert_eq!(response.status, 200);
            assert!(end_ns >= until_ns, "{} ns early", until_ns - end_ns);
        }
        assert_eq!((server.report().overflow, server.report().tenants[0].in_flight), (0, 0));
    }

    #[test]
    fn steps_that_hold_threads_up_leave_some_for_the_rest() {
        let server = server();
        let parked = |may_block| Parked { may_block, ..begun(&server, "30").0 };
        let mut queue = Queue { held_up: HeldUp::of(4), ..Queue::default() };
        for may_block in [true, true, true, false] {
            queue.push(parked(may_block));
        }
        let key = *queue.turns.front().unwrap();
        assert!(queue.pop().is_some() && queue.pop().is_some());
        assert!(queue.pop().is_none(), "half of the threads are held up for this tenant");
        queue.held_up.leave(key);
        assert!(queue.pop().is_some());
        assert!(queue.pop().is_some_and(|parked| !parked.may_block), "that one holds no thread up");
        // Of all threads but one, whichever tenants they work for.
        assert!(queue.held_up.has_room(key + 1));
        queue.held_up.enter(key + 1);
        assert!(!queue.held_up.has_room(key + 2));
        (0..2).for_each(|_| queue.held_up.leave(key));
        queue.held_up.leave(key + 1);
        assert!(queue.held_up.by_tenant.is_empty() && queue.held_up.has_room(key));
        // Where there is one thread it does everything.
        assert!(HeldUp::of(1).has_room(key));
    }

    #[test]
    fn sleepers_are_bounded_and_answered_at_the_end() {
        let server = server();
        let overflow = &server.background().overflow;
        let tenant = Arc::clone(&server.set().tenants[0]);
        let share = std::iter::from_fn(|| overflow.permits.take(PermitKind::Sleep, &tenant.permits));
        let mut taken: Vec<_> = share.collect();
        assert_eq!(taken.len(), 64, "half of one thread's");
        let (parked, receiver) = begun(&server, "30");
        overflow.settle(parked, CallStep::Sleeps { until_ns: 0 });
        assert_eq!(receiver.recv_timeout(TIME).unwrap().1.status, 503);
        taken.pop();
        let (parked, receiver) = begun(&server, "30");
        overflow.settle(parked, CallStep::Sleeps { until_ns: u64::MAX });
        drop(taken);
        assert_eq!(server.report().overflow, 1);
        server.shutdown();
        assert_eq!(receiver.recv_timeout(TIME).unwrap().1.status, 503);
        assert_eq!(server.report().overflow, 0);
    }
}
