// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mailboxes in which other threads leave workers for a loop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crate::model::generation::Forked;
use crate::model::leg_timer::{AwayKeeper, AwayPermit};
use crate::model::store::Ticket;

/// Workers without state that a mailbox keeps or has prepared. They are enough that a tenant whose requests often leave
/// the loop does not fork for each of them.
const SPARE: usize = 4;
/// Workers of a mailbox that are prepared at a time. Beyond it, workers are prepared within their request.
const PREPARING: usize = 2;
/// How many answers are held back, and how long: see [`WorkerMailbox::come_back`].
const HELD: usize = 64;
const HELD_NS: u64 = 100_000_000;
/// A worker that was prepared longer ago than this is prepared again: what its hook has fetched ages.
const PREPARED: Duration = Duration::from_secs(60);

/// One loop's mailbox for workers of one tenant. The loop looks here only when it has no worker. Workers whose program
/// runs between requests wait here, so that other threads can take them for that.
pub(crate) struct WorkerMailbox {
    contents: Mutex<Contents>,
    /// A worker has been ordered and has not arrived, so that orders do not pile up.
    ordered: AtomicBool,
    /// Workers that other threads prepare for it.
    preparing: AtomicUsize,
    /// Has [`Self::take_left`] called.
    tell_due: TellDue,
}

/// Has a thread look for what is due.
pub(crate) type TellDue = Arc<dyn Fn() + Send + Sync>;

/// Sends a request's answer.
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Contents {
    workers: Vec<Forked>,
    /// Workers that have been taken for a leg between requests, and are expected back soon.
    away: usize,
    /// Requests that wait for one of them.
    line: VecDeque<Ticket>,
    /// Answers that are held back, and the time of the first of them.
    held: Vec<Answer>,
    held_ns: u64,
}

/// A worker that has come back.
#[must_use]
pub(crate) struct CameBack {
    /// The worker, for the first of the requests that wait. `None`: it is idle.
    pub(crate) next: Option<(Ticket, Forked)>,
    /// These are to be sent now.
    pub(crate) answers: Vec<Answer>,
}

/// What a request finds that asks for a worker.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is to wait, or waits, for a worker that is away.
    InLine,
    Worker(Forked),
    /// None is here, and none is expected.
    NoWorker,
}

/// A worker of a mailbox that is being prepared. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Preparing(Arc<WorkerMailbox>);

impl Preparing {
    /// Counts a worker, unless there are as many as may be, or the mailbox would not keep it. Never waits.
    pub(crate) fn enter(mailbox: &Arc<WorkerMailbox>) -> Option<Self> {
        // Under the lock, so that there are never more workers than may be.
        let contents = mailbox.try_contents()?;
        let preparing = mailbox.preparing();
        if preparing >= PREPARING || contents.workers.len() + preparing >= SPARE {
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
    /// `tell_due` has [`Self::take_left`] called soon, on another thread.
    pub(crate) fn new(tell_due: TellDue) -> Self {
        let (ordered, preparing) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { contents: Mutex::default(), ordered, preparing, tell_due }
    }

    /// Takes a worker of generation `number` if there is one, a prepared one before others; never waits.
    pub(crate) fn take(&self, number: u64) -> Option<Forked> {
        self.take_younger(number, PREPARED)
    }

    /// As [`Self::take`]. A worker that was prepared longer than `prepared` ago needs its hook again.
    pub(crate) fn take_younger(&self, number: u64, prepared: Duration) -> Option<Forked> {
        let forked = self.try_contents()?.take_of(number)?;
        Some(renewed(forked, prepared))
    }

    /// As [`Self::take`], and says whether a worker is expected back. Waits for the lock, which others hold for a few
    /// instructions: a request must not get another worker, with another state, because one of them has it.
    pub(crate) fn claim(&self, number: u64) -> Joined {
        let mut contents = self.contents();
        match contents.take_of(number) {
            Some(forked) => {
                drop(contents);
                Joined::Worker(renewed(forked, PREPARED))
            }
            None if contents.away > 0 => Joined::InLine,
            None => Joined::NoWorker,
        }
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
        self.contents.try_lock().is_ok_and(|contents| contents.workers.iter().any(Forked::is_ephemeral))
    }

    fn take_if(&self, wanted: impl Fn(&Forked) -> bool) -> Option<Forked> {
        let mut contents = self.try_contents()?;
        contents.take_if(wanted)
    }

    /// Keeps a worker, or closes it if there are enough. May block, so not for loop threads.
    pub(crate) fn put(&self, forked: Forked) {
        self.keep(forked, 0);
    }

    /// As [`Self::put`]. `own`: how many of the workers in preparation the worker is.
    fn keep(&self, forked: Forked, own: usize) {
        let mut contents = self.contents();
        let workers = &mut contents.workers;
        let same = workers.iter().filter(|other| other.number == forked.number).count();
        let has_place = same + self.preparing().saturating_sub(own) < SPARE;
        if forked.permit.is_some() && forked.is_ready() && (!forked.is_ephemeral() || has_place) {
            workers.push(forked);
        } else {
            drop(contents);
            drop(forked);
        }
    }

    /// Closes the workers of generations before `number`.
    pub(crate) fn drop_before(&self, number: u64) {
        let old: Vec<Forked> = {
            let mut contents = self.contents();
            let (keep, old) =
                std::mem::take(&mut contents.workers).into_iter().partition(|forked| forked.number >= number);
            contents.workers = keep;
            old
        };
        drop(old);
    }

    /// Whether it has no worker, and none is being prepared for it or expected back.
    pub(crate) fn is_empty(&self) -> bool {
        let contents = self.contents();
        contents.workers.is_empty() && contents.away == 0 && self.preparing() == 0
    }

    /// Takes all workers, for the thread that closes them; never waits.
    pub(crate) fn take_all(&self) -> Vec<Forked> {
        self.try_contents().map(|mut contents| std::mem::take(&mut contents.workers)).unwrap_or_default()
    }

    /// Keeps a worker of this loop between its requests. Waits for the lock, which others hold for a few instructions.
    pub(crate) fn lend(&self, forked: Forked) {
        self.contents().workers.push(forked);
    }

    /// Takes the worker with this entry in the timetable, for a leg between requests. It is expected back.
    pub(crate) fn take_for_leg(self: &Arc<Self>, number: u64) -> Option<Forked> {
        let mut contents = self.contents();
        let mut forked = contents.take_if(|forked| forked.leg_number() == Some(number))?;
        let keeper = Arc::downgrade(self) as Weak<dyn AwayKeeper>;
        if let Some(legs) = &mut forked.legs {
            legs.away = Some(AwayPermit::new(keeper));
            contents.away += 1;
        }
        Some(forked)
    }

    /// Calls `look` with the worker with this entry in the timetable, if it is here.
    pub(crate) fn with(&self, number: u64, look: impl FnOnce(&Forked)) {
        let contents = self.contents();
        if let Some(forked) = contents.workers.iter().find(|forked| forked.leg_number() == Some(number)) {
            look(forked);
        }
    }

    /// Takes a worker back that was away, or returns it for the first of the requests that wait. `answer` is that of
    /// the request that it has served meanwhile.
    ///
    /// While others wait, the answer is held back, with [`HELD`] at most and for [`HELD_NS`]. Otherwise its client's
    /// next request would wait in line before the line ends: with several clients that always have a request, the
    /// worker would never get back to its loop.
    pub(crate) fn come_back(&self, mut forked: Forked, answer: Option<Answer>, now_ns: u64) -> CameBack {
        let mut contents = self.contents();
        if contents.held.is_empty() {
            contents.held_ns = now_ns;
        }
        contents.held.extend(answer);
        if let Some(ticket) = contents.line.pop_front() {
            let is_over = contents.held.len() >= HELD || now_ns.saturating_sub(contents.held_ns) >= HELD_NS;
            let answers = if is_over { std::mem::take(&mut contents.held) } else { Vec::new() };
            return CameBack { next: Some((ticket, forked)), answers };
        }
        if let Some(away) = forked.legs.as_mut().and_then(|legs| legs.away.take()) {
            away.end();
            contents.away -= 1;
        }
        contents.workers.push(forked);
        CameBack { next: None, answers: std::mem::take(&mut contents.held) }
    }

    /// Queues a ticket for a worker that is away, unless there is a worker of generation `number`, or none is expected.
    pub(crate) fn join(&self, ticket: Ticket, number: u64) -> Joined {
        let mut contents = self.contents();
        if contents.away > 0 {
            contents.line.push_back(ticket);
            return Joined::InLine;
        }
        contents.take_of(number).map_or(Joined::NoWorker, Joined::Worker)
    }

    /// Takes the requests that wait although no worker is expected back.
    pub(crate) fn take_left(&self) -> VecDeque<Ticket> {
        let mut contents = self.contents();
        if contents.away > 0 { VecDeque::new() } else { std::mem::take(&mut contents.line) }
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

    /// Whether the worker with this entry in the timetable is here.
    #[cfg(test)]
    pub(crate) fn has_leg(&self, number: u64) -> bool {
        self.contents().workers.iter().any(|forked| forked.leg_number() == Some(number))
    }

    #[cfg(test)]
    pub(crate) fn is_preparing(&self) -> bool {
        self.preparing() > 0
    }

    fn preparing(&self) -> usize {
        self.preparing.load(Ordering::Relaxed)
    }

    fn try_contents(&self) -> Option<MutexGuard<'_, Contents>> {
        match self.contents.try_lock() {
            Ok(contents) => Some(contents),
            Err(TryLockError::Poisoned(contents)) => Some(contents.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Each change is one step, so the contents are consistent even if a thread panicked while it held the lock.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    /// Takes a worker of generation `number`, a prepared one before others.
    fn take_of(&mut self, number: u64) -> Option<Forked> {
        let is_wanted = |forked: &Forked| forked.number == number;
        let first = self.take_if(|forked| is_wanted(forked) && !forked.needs_hook());
        first.or_else(|| self.take_if(is_wanted))
    }

    fn take_if(&mut self, wanted: impl Fn(&Forked) -> bool) -> Option<Forked> {
        let at = self.workers.iter().rposition(wanted)?;
        Some(self.workers.swap_remove(at))
    }
}

fn renewed(mut forked: Forked, prepared: Duration) -> Forked {
    // If this fails, the worker is poisoned, and its request fails as it would after a reset that fails.
    let _ = forked.worker.renew_hook(prepared);
    forked
}

impl AwayKeeper for WorkerMailbox {
    fn left(&self) {
        let (waits_in_vain, answers) = {
            let mut contents = self.contents();
            contents.away -= 1;
            (contents.away == 0 && !contents.line.is_empty(), std::mem::take(&mut contents.held))
        };
        answers.into_iter().for_each(|answer| answer());
        if waits_in_vain {
            (self.tell_due)();
        }
    }
}

impl Drop for WorkerMailbox {
    fn drop(&mut self) {
        // Its worker has been lost behind it.
        let answers = std::mem::take(&mut self.contents().held);
        answers.into_iter().for_each(|answer| answer());
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("workers", &self.workers)
            .field("away", &self.away)
            .field("line", &self.line)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WorkerMailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerMailbox").field("contents", &self.contents).finish_non_exhaustive()
    }
}
