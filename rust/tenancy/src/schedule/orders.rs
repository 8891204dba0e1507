// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders for the forker: work that takes too long for a loop and that no request waits for.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use mayfly_sandbox::{Purpose, Worker};

use crate::host::workers::Workers;
use crate::model::generation::Forked;
use crate::model::store::Store;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::WorkerMailbox;
use crate::schedule::overflow::Overflow;

#[derive(Debug)]
pub(crate) enum Order {
    Fork { tenant: Arc<Tenant>, mailbox: Arc<WorkerMailbox> },
    Close(Forked),
    ReplaceStore { store: Arc<Store>, lost: Option<Box<Worker>> },
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
