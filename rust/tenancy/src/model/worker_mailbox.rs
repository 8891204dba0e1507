// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mailboxes in which other threads leave workers for a loop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::model::generation::Forked;

/// Workers without state that a mailbox keeps or has prepared. They are enough that a tenant whose requests often leave
/// the loop does not fork for each of them.
const SPARE: usize = 4;
/// Workers of a mailbox that are prepared at a time. Beyond it, workers are prepared within their request.
const PREPARING: usize = 2;
/// A worker that was prepared longer ago than this is prepared again: what its hook has fetched ages.
const PREPARED: Duration = Duration::from_secs(60);

/// One loop's mailbox for workers of one tenant. The loop looks here only when it has no worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerMailbox {
    workers: Mutex<Vec<Forked>>,
    /// A worker has been ordered and has not arrived, so that orders do not pile up.
    ordered: AtomicBool,
    /// Workers that other threads prepare for it.
    preparing: AtomicUsize,
}

/// A worker of a mailbox that is being prepared. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Preparing(Arc<WorkerMailbox>);

impl Preparing {
    /// Counts a worker, unless there are as many as may be, or the mailbox would not keep it. Never waits.
    pub(crate) fn enter(mailbox: &Arc<WorkerMailbox>) -> Option<Self> {
        // Under the lock, so that there are never more workers than may be.
        let workers = mailbox.try_workers()?;
        let preparing = mailbox.preparing();
        if preparing >= PREPARING || workers.len() + preparing >= SPARE {
            return None;
        }
        mailbox.preparing.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(mailbox)))
    }

    /// As [`WorkerMailbox::put`], for the worker that was counted.
    pub(crate) fn put(self, forked: Forked) {
        self.0.keep(forked, 1);
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.preparing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkerMailbox {
    /// Takes a worker of generation `number` if there is one, a prepared one before others; never waits.
    pub(crate) fn take(&self, number: u64) -> Option<Forked> {
        self.take_younger(number, PREPARED)
    }

    /// As [`Self::take`]. A worker that was prepared longer than `prepared` ago needs its hook again.
    pub(crate) fn take_younger(&self, number: u64, prepared: Duration) -> Option<Forked> {
        let is_wanted = |forked: &Forked| forked.number == number;
        let first = self.take_if(|forked| is_wanted(forked) && !forked.needs_hook());
        let mut forked = first.or_else(|| self.take_if(is_wanted))?;
        // If this fails, the worker is poisoned, and its request fails as it would after a reset that fails.
        let _ = forked.worker.renew_hook(prepared);
        Some(forked)
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
        let mut workers = self.try_workers()?;
        let at = workers.iter().rposition(wanted)?;
        Some(workers.swap_remove(at))
    }

    /// Keeps a worker, or closes it if there are enough. May block, so not for loop threads.
    pub(crate) fn put(&self, forked: Forked) {
        self.keep(forked, 0);
    }

    /// As [`Self::put`]. `own`: how many of the workers in preparation the worker is.
    fn keep(&self, forked: Forked, own: usize) {
        let mut workers = self.workers();
        let same = workers.iter().filter(|other| other.number == forked.number).count();
        let has_place = same + self.preparing().saturating_sub(own) < SPARE;
        if forked.permit.is_some() && forked.is_ready() && (!forked.is_ephemeral() || has_place) {
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

    /// Whether it has no worker, and none is being prepared for it.
    pub(crate) fn is_empty(&self) -> bool {
        self.workers().is_empty() && self.preparing() == 0
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

    #[cfg(test)]
    pub(crate) fn is_preparing(&self) -> bool {
        self.preparing() > 0
    }

    fn preparing(&self) -> usize {
        self.preparing.load(Ordering::Relaxed)
    }

    fn try_workers(&self) -> Option<MutexGuard<'_, Vec<Forked>>> {
        match self.workers.try_lock() {
            Ok(workers) => Some(workers),
            Err(TryLockError::Poisoned(workers)) => Some(workers.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Forked>> {
        // The list is consistent even if a thread panicked while it held the lock.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
