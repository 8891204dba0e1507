// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests whose slice on their loop was over: a bounded number of threads runs them in turns.
//!
//! Turns go by tenant and then by request, so that one tenant's endless loops take no more than its share from another's request of
//! five milliseconds. The threads have a low priority: a loop with something to do goes first.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::background::{Background, InFlight};
use crate::berth::Berth;
use crate::call::{Call, Scene, Step, Watched};
use crate::deferred::{DeferredReply, SHUTTING_DOWN, send};
use crate::failure::{Failure, answer};
use crate::storage::Taken;
use crate::tenant::Tenant;

/// The threads' nice value: low enough that a loop with something to do preempts them, and not so low that they starve on a full
/// machine.
const NICE: i32 = 10;
/// One turn.
const SLICE: Duration = Duration::from_millis(5);
/// How long unfinished requests go on when the server shuts down.
const FAREWELL: Duration = Duration::from_secs(2);
/// Unfinished requests for each thread.
const ROOMS_PER_THREAD: usize = 16;

/// A request that has a worker, and is not on its loop any more.
pub(crate) struct Parked {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) call: Call,
    pub(crate) reply: Box<dyn DeferredReply>,
    pub(crate) berth: Arc<Berth>,
    pub(crate) in_flight: InFlight,
    /// None while it is on a deferred thread.
    pub(crate) room: Option<Room>,
    pub(crate) mode_header: bool,
}

/// A place in the overflow; free again when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    taken: Arc<AtomicUsize>,
    tenant: Arc<Tenant>,
}

/// The queue of unfinished requests.
#[derive(Debug)]
pub(crate) struct Overflow {
    rooms: usize,
    taken: Arc<AtomicUsize>,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whose turn it is, by the address of the tenant, which its requests keep alive.
    turns: VecDeque<usize>,
    by_tenant: HashMap<usize, VecDeque<Parked>>,
    /// When the server shuts down: until when what is here goes on.
    closes_at: Option<Instant>,
}

impl Overflow {
    pub(crate) fn new(threads: u32) -> Self {
        Self {
            rooms: threads as usize * ROOMS_PER_THREAD,
            taken: Arc::default(),
            queue: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Whether a tenant has all the rooms that it may take.
    pub(crate) fn has_share(&self, tenant: &Tenant) -> bool {
        tenant.rooms.load(Ordering::Relaxed) >= self.share()
    }

    /// Most rooms that one tenant may take.
    fn share(&self) -> usize {
        self.rooms.div_ceil(2)
    }

    /// Unfinished requests now.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A room for a request of this tenant, if one is free for it.
    pub(crate) fn reserve(&self, tenant: &Arc<Tenant>) -> Option<Room> {
        if !take(&tenant.rooms, self.share()) {
            return None;
        }
        if !take(&self.taken, self.rooms) {
            tenant.rooms.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Room { taken: Arc::clone(&self.taken), tenant: Arc::clone(tenant) })
    }

    /// Lets a request that has a room have its turns.
    pub(crate) fn push(&self, parked: Parked) {
        let mut queue = self.queue();
        if queue.is_over() {
            drop(queue);
            return parked.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        queue.push(parked);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Lets a request go on that stood in line for a store.
    pub(crate) fn push_with_store(&self, mut parked: Parked, taken: Taken) {
        parked.call.hold_store(taken);
        self.push(parked);
    }

    /// Serves until the queue is closed.
    pub(crate) fn work(&self, background: &Background) {
        lower_priority();
        while let Some(parked) = self.next() {
            parked.take_turn(background);
        }
    }

    /// Lets what is here go on for a little while; the threads end when it is done, or answered.
    pub(crate) fn close(&self) {
        self.queue().closes_at = Some(Instant::now() + FAREWELL);
        self.arrived.notify_all();
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
            if let Some(parked) = queue.pop() {
                return Some(parked);
            }
            if queue.closes_at.is_some() && self.taken() == 0 {
                return None;
            }
            // While it closes, requests that other threads are at may come back, or be over, without a word.
            queue = match queue.closes_at {
                None => self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(_) => self.arrived.wait_timeout(queue, SLICE).unwrap_or_else(PoisonError::into_inner).0,
            };
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
        std::mem::take(&mut self.by_tenant).into_values().flatten()
    }

    fn push(&mut self, parked: Parked) {
        let key = Arc::as_ptr(&parked.tenant).addr();
        let requests = self.by_tenant.entry(key).or_default();
        if requests.is_empty() {
            self.turns.push_back(key);
        }
        requests.push_back(parked);
    }

    fn pop(&mut self) -> Option<Parked> {
        let key = self.turns.pop_front()?;
        let requests = self.by_tenant.get_mut(&key)?;
        let parked = requests.pop_front();
        if requests.is_empty() {
            self.by_tenant.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        parked
    }
}

impl Parked {
    fn take_turn(mut self, background: &Background) {
        let scene = Scene {
            tenant: &self.tenant,
            counters: &self.tenant.background,
            background,
            slice: SLICE,
            mode_header: self.mode_header,
        };
        let mut sink = Watched::new(&mut *self.reply);
        let result = catch_unwind(AssertUnwindSafe(|| self.call.go_on(scene, &mut sink)));
        let answered = sink.answered;
        match result {
            Ok(step) => self.settle(background, step),
            Err(_) if answered => self.finish(background),
            // The panic hook has told the log; the thread goes on for other requests.
            Err(_) => {
                self.call.abandon_store(background);
                self.refuse(Failure::Internal, "the server made a mistake");
            }
        }
    }

    /// Does what follows from a step.
    pub(crate) fn settle(mut self, background: &Background, step: Step) {
        match step {
            Step::Done => self.finish(background),
            Step::Paused => {
                if self.take_room(background) {
                    background.overflow.push(self);
                } else {
                    self.give_up(background);
                }
            }
            Step::Waits => {
                let Some(store) = self.call.forked.generation.store.clone() else { return self.give_up(background) };
                if !self.take_room(background) {
                    return self.give_up(background);
                }
                if let Some((parked, taken)) = store.stand_in_line(self) {
                    background.overflow.push_with_store(parked, taken);
                }
            }
        }
    }

    fn take_room(&mut self, background: &Background) -> bool {
        if self.room.is_none() {
            self.room = background.overflow.reserve(&self.tenant);
        }
        self.room.is_some()
    }

    /// Ends a request for which there is no room.
    fn give_up(mut self, background: &Background) {
        self.call.abandon_store(background);
        self.refuse(Failure::Overloaded, OVERLOADED);
    }

    /// Sends the answer, and keeps the worker if it is worth it.
    fn finish(self, background: &Background) {
        let Self { tenant, call, reply, berth, in_flight, room, .. } = self;
        // Before the answer: whoever gets it may send the next request at once.
        drop((in_flight, room));
        let mut forked = call.forked;
        if forked.is_ready() {
            if forked.permit.is_none() {
                forked.permit = background.ground().ok().and_then(|ground| ground.workers.permit());
            }
            if tenant.generation() == forked.generation.number
                || tenant.ready().is_some_and(|current| current.succeeds(Some(&forked.generation)))
            {
                berth.put(forked);
            }
        }
        send(reply);
    }

    /// Answers for the request, whose worker goes.
    pub(crate) fn refuse(self, failure: Failure, reason: &str) {
        let Self { tenant, call, mut reply, in_flight, room, .. } = self;
        tenant.background.failed(failure);
        tenant.log.failed(call.id, failure, reason);
        answer(failure, reason, call.id, &mut *reply);
        drop((in_flight, room));
        send(reply);
    }
}

pub(crate) const OVERLOADED: &str = "the request takes longer than its share of a loop, and too many such requests run";

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("tenant", &self.tenant.name).field("call", &self.call).finish_non_exhaustive()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.tenant.rooms.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, unless there are `most`.
fn take(counter: &AtomicUsize, most: usize) -> bool {
    let more = |count| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Lets every other thread go first.
fn lower_priority() {
    // By setpriority(2) it is the calling thread's own on Linux. Should it fail, requests take longer beside busy tenants.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(target: "mayfly::server", %error, "an overflow thread keeps its priority");
    }
}
