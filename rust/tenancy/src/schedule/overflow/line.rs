// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that wait for one of their tenant's fixed number of workers.
//!
//! ```text
//!   wait in line ── its ticket is called, with a worker ──> turns
//!        │   └───── its ticket is called, with a vacant slot or a former generation's worker ──> a fork
//!        └───────── the end of its time ──> 504
//! ```
//!
//! A waiting request occupies no thread. It has a line permit, so the number of those that wait is bounded like that of
//! sleepers: for all tenants together, and half as many for one tenant.
//!
//! A request whose loop has a worker of its own waits here while that worker is away, on a leg between requests.

use std::sync::Arc;

use mayfly_sandbox::WorkerState;

use super::{OVERLOADED_LINE, Overflow, Parked};
use crate::host::clock::monotonic_ns;
use crate::model::failure::Failure;
use crate::model::fixed_workers::Claim;
use crate::model::generation::Forked;
use crate::model::permits::PermitKind;
use crate::model::slots::GivenBack;
use crate::model::store::Ticket;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::Joined;
use crate::run::call::Call;
use crate::run::reply::SHUTTING_DOWN;
use crate::schedule::job::Job;

impl Overflow {
    /// Has a request wait for a worker: one of a fixed number, or its loop's, which is away.
    pub(crate) fn wait_in_line(&self, mut job: Job) {
        if job.permit.is_none() {
            job.permit = self.permits.take(PermitKind::Line, &job.tenant.permits);
        }
        if job.permit.is_none() {
            return job.refuse(Failure::Overloaded, OVERLOADED_LINE);
        }
        let (tenant, key, mailbox) = (Arc::clone(&job.tenant), job.key, Arc::clone(&job.mailbox));
        job.since_ns.get_or_insert_with(monotonic_ns);
        let until_ns = end_ns(&job);
        let mut queue = self.queue();
        if queue.is_over() {
            drop(queue);
            return job.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
        let ticket = Ticket(queue.in_line.next_number());
        job.ticket = Some(ticket);
        // Before the ticket is queued, since another thread may call it at once.
        queue.in_line.push(until_ns, job);
        let is_news = queue.has_news();
        drop(queue);
        if is_news {
            self.arrived.notify_one();
        }
        let claim = match tenant.fixed.enqueue(ticket, key) {
            None => return,
            Some(Claim::Closed) => match mailbox.join(ticket, tenant.generation()) {
                Joined::InLine => return,
                Joined::Worker(forked) => Claim::Worker(forked),
                Joined::NoWorker => Claim::Closed,
            },
            Some(claim) => claim,
        };
        match (self.leave_line(ticket), claim) {
            (Some(job), claim) => self.serve(job, claim),
            // Its time was over.
            (None, Claim::Worker(forked)) if forked.slot.is_some() => self.give_back(&tenant, forked),
            (None, Claim::Worker(forked)) => mailbox.put(forked),
            (None, Claim::Vacant(_) | Claim::Busy | Claim::Closed) => {}
        }
    }

    /// Takes the request of a ticket out of the line, unless its time is over.
    pub(crate) fn leave_line(&self, ticket: Ticket) -> Option<Job> {
        self.queue().in_line.remove(ticket.0)
    }

    /// Serves a request with the worker that it has claimed.
    fn serve(&self, job: Job, claim: Claim) {
        match claim {
            Claim::Worker(forked) => self.serve_with(job, forked),
            Claim::Vacant(slot) => self.orders.serve(Job { slot: Some(slot), ..job }),
            // Another thread claims for it.
            Claim::Busy | Claim::Closed => self.orders.serve(job),
        }
    }

    /// Serves a request with a worker, which may be of a former generation.
    pub(crate) fn serve_with(&self, job: Job, mut forked: Forked) {
        if forked.number < job.tenant.generation() {
            if let Some(legs) = &mut forked.legs {
                legs.away = None;
            }
            // Its state is handed over first.
            return self.orders.serve(Job { former: Some(forked), ..job });
        }
        let Job { tenant, request, id, mailbox, reply, in_flight, mode_header, permit, since_ns, .. } = job;
        let call = Call::after_wait(forked, id, request, since_ns.unwrap_or_else(monotonic_ns));
        self.push(Parked::of_request(tenant, call, reply, mailbox, in_flight, permit, mode_header));
    }

    /// Gives up a worker that was found for a request, and has not begun it.
    pub(crate) fn give_up_worker(&self, tenant: &Arc<Tenant>, forked: Forked) {
        if forked.slot.is_some() && forked.is_ready() {
            self.give_back(tenant, forked);
        } else {
            self.orders.close(forked);
        }
    }

    /// Gives one of a fixed number of workers back after a request, or passes it to the request that has waited longest
    /// for it. Closes nothing on this thread.
    pub(crate) fn give_back(&self, tenant: &Arc<Tenant>, mut forked: Forked) {
        let leg = self.expect_leg_in_slot(tenant, &mut forked);
        self.return_to_slot(tenant, forked);
        self.start_leg(leg);
    }

    pub(super) fn return_to_slot(&self, tenant: &Arc<Tenant>, mut forked: Forked) {
        debug_assert!(forked.worker.state() == WorkerState::Ready, "only ready workers are given back");
        loop {
            match tenant.fixed.give_back(forked) {
                GivenBack::Kept => return,
                GivenBack::Close(worker) => return self.orders.close(worker),
                GivenBack::Next(ticket, worker) => match self.leave_line(ticket) {
                    Some(job) => return self.serve_with(job, worker),
                    // Its time was over.
                    None => forked = worker,
                },
            }
        }
    }

    /// Serves the request of a ticket.
    pub(crate) fn call_in_line(&self, tenant: &Arc<Tenant>, ticket: Ticket, forked: Forked) {
        match self.leave_line(ticket) {
            Some(job) => self.serve_with(job, forked),
            None => self.give_back(tenant, forked),
        }
    }
}

/// Answers a request whose time is over.
pub(super) fn expire(job: Job) {
    if let Some(ticket) = job.ticket {
        job.tenant.fixed.forget(ticket, job.key);
    }
    let limit = job.tenant.ready().map(|generation| generation.config.limits.machine.wall_time);
    let ms = limit.unwrap_or_default().as_millis();
    let reason = format!("the request has waited for a worker until its limit on wall-clock time (wall_ms), {ms} ms");
    job.tenant.log.failed(job.id, Failure::WallLimit, &reason);
    job.refuse(Failure::WallLimit, &reason);
}

/// When the request's time is over.
fn end_ns(job: &Job) -> u64 {
    let limit = job.tenant.ready().map(|generation| generation.config.limits.machine.wall_time);
    let limit = limit.and_then(|limit| u64::try_from(limit.as_nanos()).ok());
    job.since_ns.unwrap_or_default().saturating_add(limit.unwrap_or(u64::MAX))
}
