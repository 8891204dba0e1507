// SPDX-License-Identifier: MIT OR Apache-2.0
//! The background threads, which do what takes too long for loops.
//!
//! ```text
//!   forker    1 thread               forks workers ahead of requests, closes used ones
//!   boot      up to 4, on demand     boots programs: see `life::boots`
//!   deferred  2 threads              requests that found no worker: fork one, serve the first slice
//!   handover  1 thread               requests that first hand a worker's state over to a new generation
//!   memory    1 thread               enforces the bound on memory
//!   saver     1 thread               saves snapshots, where they are kept: see `life::boots`
//!   overflow  a configured number    requests that used up their slice on a loop, in turns
//!   outside   1 thread               wakes requests that wait for the network
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::host::workers::Workers;
use crate::memory::Memory;
use crate::run::gate::ReplyGate;
use crate::schedule::deferred::{Deferred, HANDOVER_THREADS, THREADS};
use crate::schedule::job::Job;
use crate::schedule::orders::{self, Order, Orders};
use crate::schedule::overflow::{self, Overflow};
use crate::schedule::threads::Threads;

/// How long [`Background::stop`] waits for threads at work: a boot, a fork, the saving of a snapshot.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// All background threads of a server.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) orders: Orders,
    deferred: Deferred,
    handovers: Deferred,
    pub(crate) overflow: Overflow,
    /// The gate through which replies are sent.
    pub(crate) gate: Arc<ReplyGate>,
    pub(crate) memory: Arc<Memory>,
    workers: Workers,
    is_ending: AtomicBool,
    pub(crate) threads: Threads,
    /// These end last, because the other threads may pass work to them.
    overflow_threads: Threads,
}

impl Background {
    pub(crate) fn start(workers: &Workers, memory: &Arc<Memory>, overflow_threads: u32) -> io::Result<Arc<Self>> {
        let (orders, receiver) = Orders::new();
        let background = Arc::new(Self {
            overflow: Overflow::new(overflow_threads, workers.clone(), orders.clone())?,
            orders,
            deferred: Deferred::default(),
            handovers: Deferred::default(),
            gate: Arc::default(),
            memory: Arc::clone(memory),
            workers: workers.clone(),
            is_ending: AtomicBool::new(false),
            threads: Threads::default(),
            overflow_threads: Threads::default(),
        });
        let (ahead, last) = (&background.threads, &background.overflow_threads);
        background.spawn(ahead, "mayfly-forker", move |this| this.fork_ahead(&receiver))?;
        for _ in 0..THREADS {
            background.spawn(ahead, "mayfly-deferred", |this| this.serve(&this.deferred))?;
        }
        for _ in 0..HANDOVER_THREADS {
            background.spawn(ahead, "mayfly-handover", |this| this.serve(&this.handovers))?;
        }
        background.spawn(ahead, "mayfly-memory", |this| this.memory.keep())?;
        for _ in 0..overflow_threads {
            background.spawn(last, "mayfly-overflow", |this| this.overflow.work())?;
        }
        background.spawn(last, "mayfly-outside", |this| this.overflow.watch())?;
        Ok(background)
    }

    fn spawn(
        self: &Arc<Self>,
        threads: &Threads,
        name: &str,
        work: impl FnOnce(&Self) + Send + 'static,
    ) -> io::Result<()> {
        let this = Arc::clone(self);
        threads.spawn(name, move || work(&this))
    }

    fn serve(&self, queue: &Deferred) {
        queue.work(&self.overflow, &self.workers, &self.memory);
    }

    fn fork_ahead(&self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Stop => return,
                Order::Close(worker) => drop(worker),
                Order::Fork { tenant, mailbox } => {
                    orders::fork_prepared(&self.workers, &self.overflow, &tenant, &mailbox)
                }
                Order::FillSlots(tenant) => {
                    orders::fill_slots(&self.workers, &self.overflow, &tenant, |job| self.submit(job));
                }
                Order::Serve(job) => self.submit(*job),
                Order::ReplaceStore { store, lost } => {
                    drop(lost);
                    self.overflow.send_on(&store, store.replace_lost());
                }
            }
        }
    }

    /// Queues a request for which there is no worker.
    pub(crate) fn submit(&self, job: Job) {
        let queue = if job.former.is_some() { &self.handovers } else { &self.deferred };
        queue.submit(job);
    }

    /// Whether [`Self::stop`] has been called.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Ends all threads and answers the waiting requests. No reply is sent after this returns. A thread that is blocked
    /// on a file is abandoned; it has no client to answer.
    pub(crate) fn stop(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.deferred.close();
        self.handovers.close();
        self.memory.close();
        self.orders.stop();
        self.threads.join(STOP_WAIT);
        self.overflow.close();
        self.overflow_threads.join(overflow::STOP_WAIT + Duration::from_secs(1));
    }
}
