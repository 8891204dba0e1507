// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders for the forker: work that takes too long for a loop and that no request waits for.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SendError, Sender};

use mayfly_sandbox::{Purpose, Worker};

use crate::host::workers::Workers;
use crate::model::failure::Failure;
use crate::model::fixed_workers::DueWorker;
use crate::model::generation::Forked;
use crate::model::store::Store;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::WorkerMailbox;
use crate::run::reply::SHUTTING_DOWN;
use crate::schedule::job::Job;
use crate::schedule::overflow::Overflow;

#[derive(Debug)]
pub(crate) enum Order {
    Fork {
        tenant: Arc<Tenant>,
        mailbox: Arc<WorkerMailbox>,
    },
    Close(Forked),
    /// Fork those of a fixed number of workers that are missing, and serve requests that wait in vain.
    FillSlots(Arc<Tenant>),
    /// Serve a request on a background thread.
    Serve(Box<Job>),
    ReplaceStore {
        store: Arc<Store>,
        lost: Option<Box<Worker>>,
    },
    Stop,
}

/// Sends orders. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Orders(Sender<Order>);

impl Orders {
    pub(crate) fn new() -> (Self, Receiver<Order>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Orders a worker for `mailbox`, unless one has been ordered already.
    pub(crate) fn fork(&self, tenant: &Arc<Tenant>, mailbox: &Arc<WorkerMailbox>) {
        if mailbox.order() {
            self.send(Order::Fork { tenant: Arc::clone(tenant), mailbox: Arc::clone(mailbox) });
        }
    }

    /// Closes a worker that is poisoned, of an old generation, or not needed.
    pub(crate) fn close(&self, worker: Forked) {
        self.send(Order::Close(worker));
    }

    /// Has those of a tenant's fixed number of workers forked that are missing.
    pub(crate) fn fill_slots(&self, tenant: Arc<Tenant>) {
        self.send(Order::FillSlots(tenant));
    }

    /// Has a request served that first has its worker forked.
    pub(crate) fn serve(&self, job: Job) {
        if let Err(SendError(Order::Serve(job))) = self.0.send(Order::Serve(Box::new(job))) {
            job.refuse(Failure::Unavailable, SHUTTING_DOWN);
        }
    }

    /// Closes a storage program's lost worker, and has a new one forked.
    pub(crate) fn replace_store(&self, store: &Arc<Store>, lost: Option<Box<Worker>>) {
        self.send(Order::ReplaceStore { store: Arc::clone(store), lost });
    }

    /// Ends the forker after the orders given so far.
    pub(crate) fn stop(&self) {
        self.send(Order::Stop);
    }

    fn send(&self, order: Order) {
        // Sending fails only if the forker has panicked. The deferred threads then fork workers for requests.
        let _ = self.0.send(order);
    }
}

/// Forks a worker for a mailbox, if it is still needed.
pub(crate) fn fork(workers: &Workers, tenant: &Tenant, mailbox: &Arc<WorkerMailbox>) {
    fill(mailbox, fork_if_needed(workers, tenant, mailbox));
}

/// Forks those of a fixed number of workers that are missing, or passes their slots to the requests that wait for them.
pub(crate) fn fill_slots(workers: &Workers, overflow: &Overflow, tenant: &Arc<Tenant>, submit: impl Fn(Job)) {
    overflow.serve_left(tenant, &submit);
    while let Some(due) = tenant.fixed.next_due() {
        match due {
            DueWorker::Serve(ticket, forked) => overflow.call_in_line(tenant, ticket, forked),
            DueWorker::Leave(ticket) => {
                if let Some(job) = overflow.leave_line(ticket) {
                    submit(job);
                }
            }
            DueWorker::Fork(slot, Some(ticket)) => match overflow.leave_line(ticket) {
                Some(job) => submit(Job { slot: Some(slot), ..job }),
                None => tenant.fixed.leave_vacant(*slot),
            },
            DueWorker::Fork(slot, None) => {
                // Close to the bound on memory, workers are forked only for waiting requests.
                let has_room = tenant.account.has_room(1, Purpose::Boot);
                let forked = has_room.then(|| tenant.fork(Some(workers.permit_of_fixed())).ok()).flatten();
                match forked {
                    Some(forked) => overflow.give_back(tenant, Forked { slot: Some(slot), ..forked }),
                    None => return tenant.fixed.leave_vacant(*slot),
                }
            }
        }
    }
}

/// As [`fork`], and has the worker prepared if its program has a hook.
pub(crate) fn fork_prepared(
    workers: &Workers,
    overflow: &Overflow,
    tenant: &Arc<Tenant>,
    mailbox: &Arc<WorkerMailbox>,
) {
    let mut forked = fork_if_needed(workers, tenant, mailbox);
    if let Some(fork) = forked.take() {
        match overflow.prepare(tenant, fork, mailbox, true) {
            Ok(()) => return,
            Err(fork) => forked = Some(fork),
        }
    }
    fill(mailbox, forked);
}

fn fork_if_needed(workers: &Workers, tenant: &Tenant, mailbox: &Arc<WorkerMailbox>) -> Option<Forked> {
    // The pool that gave the order holds the mailbox, too.
    let is_needed = Arc::strong_count(mailbox) > 1
        && mailbox.is_empty()
        && !tenant.fixed.is_open()
        // Close to the bound on memory, workers are forked only for waiting requests.
        && tenant.account.has_room(1, Purpose::Boot);
    let permit = if is_needed { workers.permit() } else { None };
    permit.and_then(|permit| tenant.fork(Some(permit)).ok())
}

/// Ends the order. The worker is dropped if it is no longer needed.
fn fill(mailbox: &WorkerMailbox, forked: Option<Forked>) {
    if mailbox.end_order()
        && let Some(forked) = forked
    {
        mailbox.put(forked);
    }
}
