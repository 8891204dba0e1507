// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that found no worker: a few threads fork one, call it and send the answer.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mayfly_sandbox::ResponseSink;

use crate::failure::{Failure, RequestId, answer};
use crate::forker::Berth;
use crate::meter::{Meter, Meters};
use crate::request::OwnedRequest;
use crate::route::TenantIndex;
use crate::serve::{Watched, serve};
use crate::tenant::Tenant;

/// Threads that serve deferred requests.
const THREADS: usize = 2;
/// Requests that may wait for them, of all tenants and of one: the rest keeps a place for others when one tenant crashes on
/// every request.
const WAITING: usize = 64;
const WAITING_PER_TENANT: usize = 16;

/// An answer that is sent later, from another thread.
pub trait DeferredReply: ResponseSink + Send {
    /// Sends what has been written. Called exactly once, after the body.
    fn send(self: Box<Self>);
}

/// A request on its way to a background thread.
pub(crate) struct Job {
    pub(crate) tenant: TenantIndex,
    pub(crate) request: OwnedRequest,
    pub(crate) id: RequestId,
    /// Where the worker may stay when the request is done.
    pub(crate) berth: Arc<Berth>,
    pub(crate) reply: Box<dyn DeferredReply>,
}

/// A bounded queue and its threads.
#[derive(Debug)]
pub(crate) struct Deferred {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    tenants: Arc<[Tenant]>,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("waiting", &self.queue().jobs.len()).finish_non_exhaustive()
    }
}

impl Deferred {
    pub(crate) fn start(tenants: Arc<[Tenant]>, meters: &Meters) -> io::Result<Self> {
        let shared = Arc::new(Shared { tenants, queue: Mutex::default(), arrived: Condvar::new() });
        let deferred = Self { shared, threads: Mutex::default() };
        for _ in 0..THREADS {
            let shared = Arc::clone(&deferred.shared);
            let meter = meters.add();
            let work = move || {
                while let Some(job) = shared.next() {
                    let tenant = &shared.tenants[job.tenant];
                    tenant.deferred.fetch_sub(1, Ordering::Relaxed);
                    run(tenant, &meter, job);
                }
            };
            let thread = thread::Builder::new().name("mayfly-deferred".to_owned()).spawn(work)?;
            deferred.threads().push(thread);
        }
        Ok(deferred)
    }

    /// Queues a request, or answers it with 503 if too many wait.
    pub(crate) fn submit(&self, job: Job, meter: &Meter) {
        let waiting = &self.shared.tenants[job.tenant].deferred;
        let mut queue = self.shared.queue();
        let reason = if queue.closed {
            "the server is shutting down"
        } else if queue.jobs.len() >= WAITING || waiting.load(Ordering::Relaxed) >= WAITING_PER_TENANT {
            "too many requests wait for a worker"
        } else {
            waiting.fetch_add(1, Ordering::Relaxed);
            queue.jobs.push_back(job);
            self.shared.arrived.notify_one();
            return;
        };
        drop(queue);
        meter.tenant(job.tenant).failed(Failure::Unavailable);
        let mut reply = job.reply;
        answer(Failure::Unavailable, reason, job.id, &mut *reply);
        reply.send();
    }

    /// Answers what waits, then ends the threads. No reply is sent after this returns.
    pub(crate) fn stop(&self) {
        self.shared.queue().closed = true;
        self.shared.arrived.notify_all();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            // A thread of this pool catches what a request does to it.
            let _ = thread.join();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole even if a thread panicked while it held the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request; `None` when the pool is closed and all are served.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Serves one request on a worker of its own.
fn run(tenant: &Tenant, meter: &Meter, job: Job) {
    let Job { tenant: index, request, id, berth, mut reply } = job;
    let counters = meter.tenant(index);
    let mut sink = Watched::new(&mut *reply);
    let served = catch_unwind(AssertUnwindSafe(|| {
        let generation = tenant.generation();
        // The forker may have been faster.
        let forked = match berth.take().filter(|forked| forked.generation == generation) {
            Some(forked) => Ok(forked),
            None => tenant.fork().inspect(|_| counters.forks.increase()),
        };
        match forked {
            Ok(mut forked) => {
                request.view(|request| serve(tenant, counters, &mut forked.worker, request, id, &mut sink));
                if forked.is_ready() {
                    // What the berth does not want is closed here: this thread may take its time.
                    let _unwanted = berth.put(forked);
                }
            }
            Err(reason) => {
                counters.failed(Failure::Unavailable);
                answer(Failure::Unavailable, &reason, id, &mut sink);
            }
        }
    }));
    if served.is_err() && !sink.answered {
        counters.failed(Failure::Internal);
        answer(Failure::Internal, "the server made a mistake", id, &mut sink);
    }
    // The panic hook has told the log; the thread goes on for other requests.
    let _ = catch_unwind(AssertUnwindSafe(|| reply.send()));
}
