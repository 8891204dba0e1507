// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads that do for the loops what takes too long for them.
//!
//! ```text
//!   forker    1 thread               forks workers ahead, closes those that are done with
//!   boot      up to 4, on demand     boots programs
//!   deferred  2 threads              requests that found no worker: fork one, serve the first slice
//!   handover  1 thread               requests before which a worker's state is handed over to a new generation's
//!   memory    1 thread               looks after the bound on memory
//!   saver     1 thread               saves snapshots, where they are kept
//!   overflow  a configured number    requests whose slice on a loop was over, in turns
//!   outside   1 thread               wakes requests that wait for something outside
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mayfly_files::Unfinished;
use mayfly_sandbox::{Purpose, Worker};

use crate::berth::Berth;
use crate::deferred::{Deferred, HANDOVER_THREADS, Job, THREADS};
use crate::failure::Failure;
use crate::gate::Gate;
use crate::generation::Forked;
use crate::memory::Memory;
use crate::overflow::{self, Overflow};
use crate::resources;
use crate::storage::{Next, Store, Taken};
use crate::tenant::{Ground, Tenant};

/// Programs that boot side by side, besides those that wait for a file.
const BOOT_THREADS: usize = 4;
/// What a boot may take: more than two of the longest that can be configured. What a file holds up is noticed after a
/// second.
const BOOT_MOST: Duration = Duration::from_secs(1800);
/// How long [`Background::stop`] waits for threads that are at something: a boot, a fork, a snapshot that is being
/// saved.
const FAREWELL: Duration = Duration::from_secs(3);
/// A tenant's boot that could not begin is tried again after this.
const BOOT_PAUSE: Duration = Duration::from_secs(1);
/// How often it looks.
const FAREWELL_TICK: Duration = Duration::from_millis(2);

/// All background threads of a server.
#[derive(Debug)]
pub(crate) struct Background {
    orders: Sender<Order>,
    deferred: Deferred,
    handovers: Deferred,
    pub(crate) overflow: Overflow,
    /// Through which replies are sent.
    pub(crate) gate: Arc<Gate>,
    /// Why there is none is told to every client.
    ground: Result<Ground, String>,
    pub(crate) memory: Arc<Memory>,
    boots: Mutex<Boots>,
    booted: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    overflow_threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Boots {
    waiting: VecDeque<Arc<Tenant>>,
    /// Those that boot.
    threads: usize,
    /// Those that wait for a program which waits for a file; others boot in their place.
    slow: usize,
    is_closed: bool,
}

#[derive(Debug)]
enum Order {
    Fork { tenant: Arc<Tenant>, berth: Arc<Berth> },
    Close(Forked),
    ReplaceStore { store: Arc<Store>, lost: Option<Box<Worker>> },
    Stop,
}

/// One of a tenant's requests that have left their loop; no longer counted when dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    tenant: Arc<Tenant>,
}

impl InFlight {
    /// Counts a request, unless the tenant has as many as it may have.
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

impl Background {
    pub(crate) fn start(
        ground: Result<Ground, String>,
        memory: &Arc<Memory>,
        overflow_threads: u32,
    ) -> io::Result<Arc<Self>> {
        let (orders, receiver) = mpsc::channel();
        let background = Arc::new(Self {
            orders,
            deferred: Deferred::default(),
            handovers: Deferred::default(),
            overflow: Overflow::new(overflow_threads)?,
            gate: Arc::default(),
            ground,
            memory: Arc::clone(memory),
            boots: Mutex::default(),
            booted: Condvar::new(),
            threads: Mutex::default(),
            overflow_threads: Mutex::default(),
        });
        background.spawn("mayfly-forker", move |this| work(this, &receiver))?;
        for _ in 0..THREADS {
            background.spawn("mayfly-deferred", |this| this.deferred.work(this))?;
        }
        for _ in 0..HANDOVER_THREADS {
            background.spawn("mayfly-handover", |this| this.handovers.work(this))?;
        }
        for _ in 0..overflow_threads {
            background.spawn("mayfly-overflow", |this| this.overflow.work(this))?;
        }
        background.spawn("mayfly-outside", |this| this.overflow.watch())?;
        // The last to end: what the others are at may come to them.
        let ahead = 1 + THREADS + HANDOVER_THREADS;
        let overflow = background.threads().split_off(ahead);
        *background.overflow_threads.lock().unwrap_or_else(PoisonError::into_inner) = overflow;
        let kept = Arc::clone(memory);
        background.spawn("mayfly-memory", move |_| kept.keep())?;
        if let Ok(Ground { snapshots: Some(snapshots), .. }) = &background.ground {
            let snapshots = Arc::clone(snapshots);
            background.spawn("mayfly-saver", move |_| snapshots.save_all())?;
        }
        Ok(background)
    }

    fn spawn(self: &Arc<Self>, name: &str, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> io::Result<()> {
        let this = Arc::clone(self);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&this))?;
        self.threads().push(thread);
        Ok(())
    }

    /// What it takes to boot and fork.
    pub(crate) fn ground(&self) -> Result<&Ground, &str> {
        self.ground.as_ref().map_err(String::as_str)
    }

    /// Has a worker put down at `berth`.
    pub(crate) fn order(&self, tenant: &Arc<Tenant>, berth: &Arc<Berth>) {
        if berth.order() {
            self.send(Order::Fork { tenant: Arc::clone(tenant), berth: Arc::clone(berth) });
        }
    }

    /// Closes a worker that is poisoned or of an old generation.
    pub(crate) fn close(&self, worker: Forked) {
        self.send(Order::Close(worker));
    }

    /// Has a request served for which there is no worker.
    pub(crate) fn submit(&self, job: Job) {
        let queue = if job.former.is_some() { &self.handovers } else { &self.deferred };
        queue.submit(job);
    }

    /// Gives a storage program's worker back, and sends on whoever stands in line for it.
    pub(crate) fn give_back(&self, store: &Store, worker: Box<Worker>) {
        self.send_on(store.give_back(worker));
    }

    /// Has a new worker made for a storage program that lost its own.
    pub(crate) fn replace_store(&self, store: Option<&Arc<Store>>, lost: Option<Box<Worker>>) {
        if let Some(store) = store {
            self.send(Order::ReplaceStore { store: Arc::clone(store), lost });
        }
    }

    /// Sends on the first of the line for a storage program, if its worker is idle: for whoever has reloaded it.
    pub(crate) fn serve_line(&self, store: &Store) {
        if let Some((parked, taken)) = store.next_in_line() {
            self.overflow.push_with_store(parked, taken);
        }
    }

    pub(crate) fn send_on(&self, next: Option<Next>) {
        if let Some((parked, worker)) = next {
            self.overflow.push_with_store(parked, Taken::Held(worker));
        }
    }

    fn send(&self, order: Order) {
        // It fails only if the thread panicked; requests are then served by the deferred threads' own forks.
        let _ = self.orders.send(order);
    }

    /// Boots a tenant that the caller has claimed.
    pub(crate) fn boot(self: &Arc<Self>, tenant: Arc<Tenant>) {
        let mut boots = self.boots();
        if boots.is_closed {
            return tenant.fail_for_ever(crate::deferred::SHUTTING_DOWN);
        }
        self.threads().retain(|thread| !thread.is_finished());
        if boots.threads < BOOT_THREADS {
            match self.spawn("mayfly-boot", Self::boot_all) {
                Ok(()) => boots.threads += 1,
                // Another thread gets to it.
                Err(_) if boots.threads > 0 => {}
                Err(error) => {
                    return tenant
                        .fail(format!("no thread to boot on: {}", resources::with_advice(&error)), Instant::now());
                }
            }
        }
        boots.waiting.push_back(tenant);
    }

    /// Waits until no program boots, or for a time.
    pub(crate) fn wait_for_boots(&self, at_most: Duration) {
        let is_booting = |boots: &mut Boots| boots.threads + boots.slow > 0;
        drop(self.booted.wait_timeout_while(self.boots(), at_most, is_booting));
    }

    fn boot_all(self: &Arc<Self>) {
        let mut has_place = true;
        loop {
            let mut boots = self.boots();
            let next = if has_place { boots.waiting.pop_front() } else { None };
            let Some(tenant) = next else {
                *(if has_place { &mut boots.threads } else { &mut boots.slow }) -= 1;
                self.booted.notify_all();
                return;
            };
            drop(boots);
            has_place = self.boot_one(&tenant);
            // Whether it booted or not: the deferred threads find out, and say so.
            for job in tenant.take_waiting() {
                self.submit(job);
            }
        }
    }

    /// Boots a tenant, and waits for that while it makes progress. Returns whether this thread still has its place: it
    /// gives it away when a file is slow to answer.
    fn boot_one(self: &Arc<Self>, tenant: &Arc<Tenant>) -> bool {
        let (this, booting) = (Arc::clone(self), Arc::clone(tenant));
        let boot = move || match this.ground() {
            Ok(ground) => booting.boot(ground, &this),
            Err(reason) => booting.fail_for_ever(reason),
        };
        let mut has_place = true;
        let begun = match tenant.errands.begin(BOOT_MOST, boot) {
            Ok(begun) => begun,
            Err(unfinished) => {
                tenant.fail(unfinished.to_string(), Instant::now() + BOOT_PAUSE);
                return has_place;
            }
        };
        match begun.wait_or_tell(|| has_place = !self.give_place_away()) {
            Ok(()) => {}
            Err(Unfinished::Lost) => tenant.fail_for_ever("the server made a mistake"),
            Err(hang) => tenant.leave_boot(&hang),
        }
        has_place
    }

    /// Lets another thread boot in the place of this one; returns whether it does.
    fn give_place_away(self: &Arc<Self>) -> bool {
        let mut boots = self.boots();
        let given = boots.waiting.is_empty() || self.spawn("mayfly-boot", Self::boot_all).is_ok();
        if given {
            boots.slow += 1;
            if boots.waiting.is_empty() {
                boots.threads -= 1;
            }
        }
        given
    }

    /// Whether it has been told to stop.
    pub(crate) fn is_ending(&self) -> bool {
        self.boots().is_closed
    }

    /// Ends all threads; answers what waits. No reply is sent after this returns, but by what stands in line for a
    /// store. A thread that a file holds up is left behind, and has nobody to answer.
    pub(crate) fn stop(&self) {
        let waiting = {
            let mut boots = self.boots();
            boots.is_closed = true;
            std::mem::take(&mut boots.waiting)
        };
        for job in waiting.iter().flat_map(|tenant| tenant.take_waiting()) {
            job.refuse(Failure::Unavailable, crate::deferred::SHUTTING_DOWN);
        }
        self.deferred.close();
        self.handovers.close();
        self.memory.close();
        self.send(Order::Stop);
        if let Ok(Ground { snapshots: Some(snapshots), .. }) = &self.ground {
            snapshots.close();
        }
        join(std::mem::take(&mut *self.threads()), FAREWELL);
        self.overflow.close();
        let overflow = std::mem::take(&mut *self.overflow_threads.lock().unwrap_or_else(PoisonError::into_inner));
        join(overflow, overflow::FAREWELL + Duration::from_secs(1));
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn boots(&self) -> MutexGuard<'_, Boots> {
        // A queue is whole even if a thread panicked while it held the lock.
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for threads to end, for so long; those that a file holds up are left behind.
fn join(mut threads: Vec<JoinHandle<()>>, at_most: Duration) {
    let end = Instant::now() + at_most;
    // One of them may be the last to hold the server.
    threads.retain(|thread| thread.thread().id() != thread::current().id());
    loop {
        let (done, left): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
        for thread in done {
            // The threads catch what a request does to them.
            let _ = thread.join();
        }
        if left.is_empty() {
            return;
        }
        if Instant::now() >= end {
            let names: Vec<_> = left.iter().filter_map(|thread| thread.thread().name()).collect();
            return tracing::warn!(
                target: "mayfly::server", threads = ?names, "threads are left behind: what they wait for does not answer"
            );
        }
        threads = left;
        thread::sleep(FAREWELL_TICK);
    }
}

fn work(background: &Background, orders: &Receiver<Order>) {
    for order in orders {
        match order {
            Order::Stop => return,
            Order::Close(worker) => drop(worker),
            Order::Fork { tenant, berth } => {
                // Whoever holds the berth besides this order is the pool that asked.
                let is_wanted = Arc::strong_count(&berth) > 1
                    && berth.is_empty()
                    // As memory nears its bound, workers are forked for requests alone.
                    && tenant.account.has_room(1, Purpose::Boot);
                let forked = if is_wanted
                    && let Ok(ground) = background.ground()
                    && let Some(permit) = ground.workers.permit()
                {
                    tenant.fork(Some(permit)).ok()
                } else {
                    None
                };
                // Dropped if it is not wanted any more.
                if berth.end_order()
                    && let Some(forked) = forked
                {
                    berth.put(forked);
                }
            }
            Order::ReplaceStore { store, lost } => {
                drop(lost);
                background.send_on(store.replace_lost());
            }
        }
    }
}
