// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mailboxes in which other threads leave workers for a loop.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::model::generation::Forked;

/// Workers without state that a mailbox keeps. They are enough that a tenant whose requests often leave the loop does
/// not fork for each of them.
const SPARE: usize = 4;
/// Workers of a mailbox that are prepared at a time. Beyond it, workers are prepared within their request.
const PREPARING: u32 = 2;

/// One loop's mailbox for workers of one tenant. The loop looks here only when it has no worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerMailbox {
    workers: Mutex<Vec<Forked>>,
    /// A worker has been ordered and has not arrived, so that orders do not pile up.
    ordered: AtomicBool,
    /// Workers that other threads prepare for it.
    preparing: AtomicU32,
}

/// A worker of a mailbox that is being prepared. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Preparing(Arc<WorkerMailbox>);

impl Preparing {
    /// Counts a worker, unless there are as many as may be.
    pub(crate) fn enter(mailbox: &Arc<WorkerMailbox>) -> Option<Self> {
        let more = |count| (count < PREPARING).then_some(count + 1);
        let entered = mailbox.preparing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Self(Arc::clone(mailbox)))
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.preparing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkerMailbox {
    /// Takes a worker of generation `number` if there is one; never waits.
    pub(crate) fn take(&self, number: u64) -> Option<Forked> {
        self.take_if(|forked| forked.number == number)
    }

    /// Takes a worker of a generation other than `number` if there is one; never waits.
    pub(crate) fn take_other(&self, number: u64) -> Option<Forked> {
        self.take_if(|forked| forked.number != number)
    }

    /// Takes a worker that keeps no state if there is one; never waits.
    pub(crate) fn take_spare(&self) -> Option<Forked> {
        self.take_if(Forked::is_ephemeral)
    }

    /// Whether [`Self::take_spare`] would find one; never waits.
    pub(crate) fn has_spare(&self) -> bool {
        self.workers.try_lock().is_ok_and(|workers| workers.iter().any(Forked::is_ephemeral))
    }

    fn take_if(&self, wanted: impl Fn(&Forked) -> bool) -> Option<Forked> {
        let mut workers = match self.workers.try_lock() {
            Ok(workers) => workers,
            Err(TryLockError::Poisoned(workers)) => workers.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let at = workers.iter().rposition(wanted)?;
        Some(workers.swap_remove(at))
    }

    /// Keeps a worker, or closes it if there are enough. May block, so not for loop threads.
    pub(crate) fn put(&self, forked: Forked) {
        let mut workers = self.workers();
        let same = workers.iter().filter(|other| other.number == forked.number).count();
        if forked.permit.is_some() && forked.is_ready() && (!forked.is_ephemeral() || same < SPARE) {
            workers.push(forked);
        } else {
            drop(workers);
            drop(forked);
        }
    }

    /// Closes the workers of generations before `number`.
    pub(crate) fn drop_before(&self, number: u64) {
        let (keep, old) = std::mem::take(&mut *self.workers()).into_iter().partition(|forked| forked.number >= number);
        let old: Vec<Forked> = old;
        let mut workers = self.workers();
        let newer = std::mem::replace(&mut *workers, keep);
        workers.extend(newer);
        drop(workers);
        drop(old);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workers().is_empty()
    }

    /// Marks a worker as ordered; `false` if it was already.
    pub(crate) fn order(&self) -> bool {
        !self.ordered.swap(true, Ordering::AcqRel)
    }

    /// Ends an order, if there is one. Called by the thread that fills the order and by a thread that no longer needs
    /// it; only one of them gets `true`.
    pub(crate) fn end_order(&self) -> bool {
        self.ordered.swap(false, Ordering::AcqRel)
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Forked>> {
        // The list is consistent even if a thread panicked while it held the lock.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
