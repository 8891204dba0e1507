// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that found no worker: a few threads fork one, serve the first slice, and pass longer requests on. Tenants
//! take turns, so that a tenant whose every request costs a worker delays the others by only a request or two.
//!
//! Before a request that hands a worker's state over to a new generation, two hooks of the program run, each up to the
//! time limit of a request. Such requests have a queue and a thread of their own: they delay each other, in turns by
//! tenant, but no other requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mayfly_sandbox::Slice;

use crate::config::Mode;
use crate::host::workers::{WorkerPermit, Workers};
use crate::memory::Memory;
use crate::model::failure::{Failure, answer};
use crate::model::fixed_workers::Claim;
use crate::model::generation::Forked;
use crate::model::slot_permit::SlotPermit;
use crate::model::tenant::{NoFork, Tenant};
use crate::model::worker_mailbox::{Joined, WorkerMailbox};
use crate::run::call::{Call, CallContext, TrackedSink};
use crate::run::reply::{INTERNAL_ERROR, SHUTTING_DOWN, send};
use crate::schedule::fair::FairQueue;
use crate::schedule::job::{Job, Retention};
use crate::schedule::overflow::{Overflow, Parked};

/// Threads that serve deferred requests.
pub(crate) const THREADS: usize = 2;
/// Threads that serve requests with a handover: one at a time.
pub(crate) const HANDOVER_THREADS: usize = 1;
/// Requests that may wait for these threads.
const WAITING: usize = 256;
/// How often a fork waits for the memory thread to check, which takes up to 60 ms.
const MEMORY_CHECKS: u32 = 5;
/// How long a request may run here, while others wait behind it for a worker.
const SLICE: Duration = Duration::from_millis(5);

/// A bounded queue.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: FairQueue<Job>,
    is_closed: bool,
}

impl Deferred {
    /// Queues a request. If too many wait, the last request of the tenant with the most waiting requests is answered
    /// with 503.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.queue();
        if queue.is_closed {
            drop(queue);
            return job.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        let tenant = Arc::clone(&job.tenant);
        let refused = queue.jobs.push(job, WAITING, |other| Arc::ptr_eq(&other.tenant, &tenant));
        drop(queue);
        self.arrived.notify_one();
        if let Some(refused) = refused {
            refused.refuse(Failure::Overloaded, "too many requests are waiting for a worker");
        }
    }

    /// Serves until the queue is closed and empty.
    pub(crate) fn work(&self, overflow: &Overflow, workers: &Workers, memory: &Memory) {
        let forks = Forks { workers, memory };
        while let Some(job) = self.next() {
            run(overflow, forks, job);
        }
    }

    /// Accepts no more requests. The threads end when they have served the waiting ones.
    pub(crate) fn close(&self) {
        self.queue().is_closed = true;
        self.arrived.notify_all();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent even if a thread panicked while it held the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request; `None` when the queue is closed and empty.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The process-wide resources that a fork uses.
#[derive(Debug, Clone, Copy)]
struct Forks<'a> {
    workers: &'a Workers,
    memory: &'a Memory,
}

/// Has a request of a tenant with a fixed number of workers claim one of them, and one whose loop's worker is away wait
/// for that. Returns the request if a worker is to be forked for it.
fn claim_worker(overflow: &Overflow, mut job: Job) -> Option<Job> {
    if job.slot.is_some() || job.former.is_some() {
        return Some(job);
    }
    if !job.tenant.fixed.is_open() {
        return match job.mailbox.claim(job.tenant.generation()) {
            Joined::InLine => {
                overflow.wait_in_line(job);
                None
            }
            // It is not put back: another thread could take it, and the request would get a worker with another state.
            Joined::Worker(forked) => {
                job.former = Some(forked);
                Some(job)
            }
            Joined::NoWorker => Some(job),
        };
    }
    match job.tenant.fixed.take(job.key, 0) {
        Claim::Worker(forked) => {
            overflow.serve_with(job, forked);
            return None;
        }
        Claim::Busy => {
            overflow.wait_in_line(job);
            return None;
        }
        Claim::Vacant(slot) => job.slot = Some(slot),
        Claim::Closed => {}
    }
    Some(job)
}

/// Serves the first slice of a request on a worker of its own.
fn run(overflow: &Overflow, forks: Forks<'_>, job: Job) {
    let Some(job) = claim_worker(overflow, job) else { return };
    let Job { tenant, request, id, mailbox, former, retention, mut reply, in_flight, mode_header, .. } = job;
    let (slot, permit, since_ns) = (job.slot, job.permit, job.since_ns);
    // A request that waits for a disk does so on an overflow thread, where no fork is queued behind it.
    let slice = Slice::non_blocking(SLICE);
    let context = CallContext {
        tenant: &tenant,
        counters: &tenant.background,
        stores: overflow,
        slice,
        mode_header,
        may_defer_reset: false,
    };
    let mut sink = TrackedSink::new(&mut *reply);
    let served = catch_unwind(AssertUnwindSafe(|| match worker(forks, &tenant, &mailbox, former, retention, slot) {
        Ok(forked) => {
            let mut call = Call::new(forked, id);
            let step = request.view(|request| call.begin(context, request, &mut sink));
            if let Some(since_ns) = since_ns {
                call.forked.worker.count_wait_since(since_ns);
            }
            Some((call, step))
        }
        Err(NoFork { failure, reason }) => {
            tenant.background.failed(failure);
            answer(failure, &reason, id, &mut sink);
            None
        }
    }));
    let answered = sink.answered;
    match served {
        Ok(Some((call, step))) => {
            let parked = Parked::of_request(tenant, call, reply, mailbox, in_flight, permit, mode_header);
            overflow.settle(parked, step);
        }
        Ok(None) | Err(_) => {
            // The panic hook has logged the panic; the thread continues with other requests.
            if !answered {
                tenant.background.failed(Failure::Internal);
                answer(Failure::Internal, INTERNAL_ERROR, id, &mut *reply);
            }
            drop((in_flight, permit));
            send(reply);
        }
    }
}

/// Forks a worker, if necessary after others have freed memory. When a request is refused memory, its machine's memory
/// is freed once the machine is closed, in the background. A tenant that holds no more than its share waits for that.
fn fork(forks: Forks<'_>, tenant: &Tenant, permit: Option<WorkerPermit>) -> Result<Forked, NoFork> {
    let is_kept = permit.is_some();
    let checks = if tenant.account.holds_much() { 1 } else { MEMORY_CHECKS };
    let mut forked = tenant.fork(permit);
    for _ in 0..checks {
        if !matches!(forked, Err(NoFork { failure: Failure::ServerMemory, .. })) {
            break;
        }
        forks.memory.wait_for_measurement();
        forked = tenant.fork(forks.workers.permit().filter(|_| is_kept));
    }
    forked
}

/// A worker of the current generation.
fn worker(
    forks: Forks<'_>,
    tenant: &Tenant,
    mailbox: &WorkerMailbox,
    former: Option<Forked>,
    retention: Retention,
    slot: Option<Box<SlotPermit>>,
) -> Result<Forked, NoFork> {
    let current = tenant.ready().ok_or_else(|| NoFork::unavailable(tenant.excuse()))?;
    if current.config.mode != Mode::Ephemeral {
        // This must be the loop's only worker: requests would alternate between its state and a second worker's.
        mailbox.end_order();
    }
    let (former, slot) = match former {
        // Its state has been handed over meanwhile, or it is of a generation that begins now.
        Some(former) if former.number >= current.number => return Ok(former),
        Some(mut former) => {
            let slot = slot.or_else(|| former.slot.take());
            (Some(former).filter(|former| current.succeeds(Some(&former.generation))), slot)
        }
        None => (None, slot),
    };
    if let Some(slot) = slot {
        return fixed_worker(forks, tenant, former, slot);
    }
    // The forker may have been faster.
    let mut forked = match mailbox.claim(current.number) {
        Joined::Worker(forked) => forked,
        Joined::InLine | Joined::NoWorker => {
            let permit = match retention {
                Retention::Stay => forks.workers.permit(),
                // Closed first, to make room.
                Retention::Replace(victim) => {
                    drop(victim);
                    forks.workers.permit()
                }
                Retention::Go => None,
            };
            fork(forks, tenant, permit)?
        }
    };
    if let Some(mut former) = former {
        forked = hand_over(tenant, &mut former, forked)?;
    }
    Ok(forked)
}

/// One of a fixed number of workers. It counts, and stays, even beyond the bound on all workers: others are closed then.
fn fixed_worker(
    forks: Forks<'_>,
    tenant: &Tenant,
    former: Option<Forked>,
    slot: Box<SlotPermit>,
) -> Result<Forked, NoFork> {
    let mut forked = fork(forks, tenant, Some(forks.workers.permit_of_fixed()))?;
    if let Some(mut former) = former {
        forked = hand_over(tenant, &mut former, forked)?;
    }
    forked.permit.get_or_insert_with(|| forks.workers.permit_of_fixed());
    forked.slot = Some(slot);
    Ok(forked)
}

/// Has the new worker take over the state of the former one. If that fails, it begins without.
fn hand_over(tenant: &Tenant, former: &mut Forked, mut forked: Forked) -> Result<Forked, NoFork> {
    let handed_over = former.worker.save().and_then(|state| forked.worker.restore(&state));
    if let Err(error) = handed_over {
        tracing::error!(
            target: "mayfly::server", tenant = %tenant.name, %error,
            "a worker's state was not handed over to the new generation"
        );
        if !forked.is_ready() {
            forked = tenant.fork(forked.permit.take())?;
        }
    }
    Ok(forked)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mayfly_sandbox::{BufferedResponse, Request, ResponseSink};
    use serde_json::json;

    use super::*;
    use crate::model::failure::RequestId;
    use crate::run::in_flight::InFlight;
    use crate::run::reply::DeferredReply;
    use crate::run::request::OwnedRequest;
    use crate::{Config, Server};

    struct Reply(BufferedResponse);

    impl ResponseSink for Reply {
        fn body(&mut self, len: usize) -> &mut [u8] {
            self.0.body(len)
        }

        fn status(&mut self, status: u16) {
            self.0.status(status);
        }

        fn header(&mut self, name: &[u8], value: &[u8]) {
            self.0.header(name, value);
        }
    }

    impl DeferredReply for Reply {
        fn send(self: Box<Self>) {}
    }

    #[test]
    fn a_kept_worker_that_a_request_has_claimed_is_not_left_to_others() {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
        let config = json!({"tenants": [{"name": "a", "path": "/", "program": program, "ephemeral": false}]});
        let server = Server::start(Config::from_value(&config).unwrap()).unwrap();
        server.boots().wait(Duration::from_secs(120));
        let (tenant, background) = (Arc::clone(&server.set().tenants[0]), server.background());
        let mailbox = tenant.new_mailbox();
        let workers = Workers::new(Some(8));
        mailbox.put(tenant.fork(workers.permit()).unwrap());
        let request = Request { method: b"GET", path: b"/ok", query: b"", headers: &[], body: b"", client: None };
        let job = Job {
            tenant: Arc::clone(&tenant),
            request: OwnedRequest::copy(&request),
            id: RequestId(1),
            mailbox: Arc::clone(&mailbox),
            former: None,
            retention: Retention::Stay,
            reply: Box::new(Reply(BufferedResponse::default())),
            in_flight: InFlight::enter(&tenant, 1).unwrap(),
            mode_header: false,
            slot: None,
            key: None,
            permit: None,
            ticket: None,
            since_ns: None,
        };
        let job = claim_worker(&background.overflow, job).unwrap();
        assert!(mailbox.is_empty() && job.former.is_some());
        // Even if an order for another one is pending, which then ends.
        assert!(mailbox.order());
        let forks = Forks { workers: &workers, memory: &background.memory };
        let forked = worker(forks, &tenant, &mailbox, job.former, Retention::Stay, None).unwrap();
        assert!(forked.is_ready() && !mailbox.end_order());
        assert_eq!(workers.count(), 1);
    }
}
