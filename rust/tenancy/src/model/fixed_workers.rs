// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers of a tenant that has a fixed number of them for the whole process, and the line of requests for them.
//!
//! Any thread may take a worker, and gives it back when the request has finished. No thread waits: a request that finds
//! no idle worker queues a ticket. The scheduler keeps the requests themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::model::generation::Forked;
use crate::model::slot_permit::{SlotKeeper, SlotPermit};
use crate::model::slots::{Due, GivenBack, SlotNumber, Slots, Take};
use crate::model::store::Ticket;

/// A tenant's workers. There are none while each of its loops has its own.
pub(crate) struct FixedWorkers {
    /// Number of slots, so that loops of other tenants take no lock.
    count: AtomicUsize,
    slots: Mutex<Slots<Forked>>,
    /// Has [`Self::next_due`] called soon, on another thread.
    tell_due: Box<dyn Fn() + Send + Sync>,
}

/// The result of asking for a worker.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The caller gives it back. It may be of a former generation.
    Worker(Forked),
    /// The worker is lost: the caller forks another one with this permit.
    Vacant(Box<SlotPermit>),
    /// The request has to wait.
    Busy,
    /// Each loop has its own worker.
    Closed,
}

/// What [`FixedWorkers::next_due`] has found.
#[derive(Debug)]
pub(crate) enum DueWorker {
    /// The request of this ticket has a worker.
    Serve(Ticket, Forked),
    /// A worker is to be forked with this permit, and for the request of the ticket, if one waits.
    Fork(Box<SlotPermit>, Option<Ticket>),
    /// Each loop has its own worker now. The request of this ticket still waits.
    Leave(Ticket),
}

impl FixedWorkers {
    /// `tell_due` has [`Self::next_due`] called soon, on another thread.
    pub(crate) fn new(tell_due: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), slots: Mutex::default(), tell_due: Box::new(tell_due) })
    }

    /// Whether the tenant has a fixed number of workers.
    pub(crate) fn is_open(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Replaces all workers by these; empty: each loop has its own. What is `None` is forked when it is needed. Closes
    /// the former workers, which may take milliseconds; those that serve a request finish it first.
    pub(crate) fn open(self: &Arc<Self>, workers: Vec<Option<Forked>>) {
        let count = workers.len();
        let keeper = Arc::downgrade(self) as Weak<dyn SlotKeeper>;
        let mut slots = self.slots();
        let former = slots.open(workers, |worker, number| {
            worker.slot = Some(Box::new(SlotPermit { number, keeper: Weak::clone(&keeper) }));
        });
        self.opened(slots, count, former);
    }

    /// Changes the number of workers, and keeps those that there are.
    pub(crate) fn resize(&self, count: usize) {
        let mut slots = self.slots();
        let beyond = slots.resize(count);
        self.opened(slots, count, beyond);
    }

    fn opened(&self, slots: MutexGuard<'_, Slots<Forked>>, count: usize, closed: Vec<Forked>) {
        self.count.store(count, Ordering::Relaxed);
        // Closing a worker locks the slots.
        drop(slots);
        drop(closed);
    }

    /// Has new slots filled and waiting requests served, after a change. Called when the new generation is in force.
    pub(crate) fn fill(&self) {
        if self.is_open() || self.slots().waiting() > 0 {
            (self.tell_due)();
        }
    }

    /// Closes idle workers, and others when no request waits for them: the tenant is gone.
    pub(crate) fn close(&self) {
        let idle = self.slots().close();
        drop(idle);
    }

    /// Takes a worker: that of the key, or any, preferably number `first`. Waits for nothing but the lock, which others
    /// hold for a few instructions.
    pub(crate) fn take(self: &Arc<Self>, key: Option<u64>, first: usize) -> Claim {
        let take = self.slots().take(key, first);
        self.claim(take)
    }

    /// Queues a ticket, unless there is a worker for it now.
    pub(crate) fn enqueue(self: &Arc<Self>, ticket: Ticket, key: Option<u64>) -> Option<Claim> {
        let take = self.slots().enqueue(ticket, key, 0);
        take.map(|take| self.claim(take))
    }

    fn claim(self: &Arc<Self>, take: Take<Forked>) -> Claim {
        match take {
            Take::Worker(forked) => Claim::Worker(forked),
            Take::Vacant(number) => Claim::Vacant(self.permit(number)),
            Take::Busy => Claim::Busy,
            Take::Closed => Claim::Closed,
        }
    }

    fn permit(self: &Arc<Self>, number: SlotNumber) -> Box<SlotPermit> {
        Box::new(SlotPermit { number, keeper: Arc::downgrade(self) as Weak<dyn SlotKeeper> })
    }

    /// Removes a ticket whose request does not wait any more.
    pub(crate) fn forget(&self, ticket: Ticket, key: Option<u64>) {
        self.slots().forget(ticket, key);
    }

    /// Gives a worker back that is ready. The caller must not drop a worker that it gets in return on a loop thread.
    pub(crate) fn give_back(&self, forked: Forked) -> GivenBack<Forked> {
        match &forked.slot {
            Some(permit) => {
                let number = permit.number;
                self.slots().give_back(number, forked)
            }
            None => GivenBack::Close(forked),
        }
    }

    /// The slot of a worker that this tenant has a fixed number of.
    pub(crate) fn slot_of(forked: &Forked) -> Option<SlotNumber> {
        forked.slot.as_ref().map(|permit| permit.number)
    }

    /// Takes the worker of one slot, if it is idle and has this entry in the timetable.
    pub(crate) fn take_for_leg(&self, number: SlotNumber, leg: u64) -> Option<Forked> {
        let mut slots = self.slots();
        slots.idle_at(number).filter(|forked| forked.leg_number() == Some(leg))?;
        slots.take_idle(number)
    }

    /// Calls `look` with the worker of one slot, if it is idle and has this entry in the timetable.
    pub(crate) fn with_idle(&self, number: SlotNumber, leg: u64, look: impl FnOnce(&Forked)) {
        if let Some(forked) = self.slots().idle_at(number).filter(|forked| forked.leg_number() == Some(leg)) {
            look(forked);
        }
    }

    /// Finds what is to be done for a worker that is missing, or after [`Self::open`] and [`Self::resize`].
    pub(crate) fn next_due(self: &Arc<Self>) -> Option<DueWorker> {
        let due = self.slots().next_due()?;
        Some(match due {
            Due::Serve(ticket, forked) => DueWorker::Serve(ticket, forked),
            Due::Fork(number, ticket) => DueWorker::Fork(self.permit(number), ticket),
            Due::Leave(ticket) => DueWorker::Leave(ticket),
        })
    }

    /// Leaves a slot vacant until a request needs its worker.
    pub(crate) fn leave_vacant(&self, mut permit: SlotPermit) {
        // Dropping the permit would have a worker forked again at once.
        permit.keeper = Weak::<Self>::new();
        let is_waited_for = {
            let mut slots = self.slots();
            slots.vacate(permit.number) && slots.is_waited_for(permit.number)
        };
        if is_waited_for {
            (self.tell_due)();
        }
    }

    /// The numbers of workers, of idle ones, and of requests that wait. `None` if each loop has its own worker.
    pub(crate) fn counted(&self) -> Option<(usize, usize, usize)> {
        let slots = self.slots();
        (slots.count() > 0).then(|| (slots.count(), slots.idle(), slots.waiting()))
    }

    fn slots(&self) -> MutexGuard<'_, Slots<Forked>> {
        // Each change is one step, so the slots are consistent even if a thread panicked while it held the lock.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotKeeper for FixedWorkers {
    fn vacate(&self, number: SlotNumber) {
        let is_missing = self.slots().vacate(number);
        if is_missing {
            (self.tell_due)();
        }
    }
}

impl std::fmt::Debug for FixedWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FixedWorkers").field("slots", &self.slots).finish_non_exhaustive()
    }
}
