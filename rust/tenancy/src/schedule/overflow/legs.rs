// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the programs of idle workers between requests: their timers, and their threads.
//!
//! ```text
//!   a request ends ── QUIET ──> due ── a thread takes the worker, if it is idle ──> a leg ──> all threads wait
//!                                ^ ^                                                │  │        until T ──> due at T
//!                                │ └──────────── the slice is over ─────────────────┘  │        its descriptor is ready
//!                                └── the tenant's share is used up: due when it is free ┘
//! ```
//!
//! A leg takes turns with the requests of the overflow, and is shorter than theirs. A request that finds its worker on
//! a leg waits in line, and gets the worker from the thread that ran the leg.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mayfly_sandbox::{BackgroundProgress, Slice};

use super::timetable::{DueLeg, LegPlace, UNTIL_READY};
use super::{Overflow, POLL_NS};
use crate::host::clock::monotonic_ns;
use crate::model::failure::{Failure, RequestId};
use crate::model::fixed_workers::FixedWorkers;
use crate::model::generation::Forked;
use crate::model::meter::Event;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::{Answer, CameBack, WorkerMailbox};
use crate::run::call::count_hits;
use crate::run::reply::INTERNAL_ERROR;
use crate::schedule::job::Job;

/// Length of a leg: a request may wait for its end.
const SLICE: Duration = Duration::from_millis(1);
/// A program runs this long after a request. While requests come close together, they run the program anyway, and a leg
/// behind each of them would only move its worker from one processor to another, and have a request wait.
const QUIET_NS: u64 = 10_000_000;
/// One of a fixed number of workers runs this long after its last leg, however close together requests come. A loop's
/// own does not: requests that came meanwhile would leave their loop.
const BUSY_NS: u64 = 100_000_000;
/// Set in the numbers that the descriptors of idle workers are watched with: those of sleepers do not get there.
pub(super) const LEG: u64 = 1 << 63;

/// A leg that is entered into the timetable, and not due before it is started.
#[derive(Debug)]
#[must_use]
pub(crate) struct NewLeg {
    number: u64,
    until_ns: u64,
    /// It has been started before, and is due at this time if that is not over.
    is_started: bool,
}

impl Overflow {
    /// Has the program of a worker that becomes idle after a request run, unless its program stands still between
    /// requests, or is to run soon anyway. The caller starts the leg when the worker is in its place.
    fn expect_leg(
        &self,
        tenant: &Arc<Tenant>,
        forked: &mut Forked,
        place: impl FnOnce() -> LegPlace,
    ) -> Option<NewLeg> {
        let legs = forked.legs.as_ref()?;
        if !forked.worker.runs_between_requests() {
            return None;
        }
        let now = monotonic_ns();
        let until_ns = now.saturating_add(QUIET_NS);
        // An entry of the past has been taken meanwhile, while the worker was busy.
        let is_soon = |entry_ns: u64| entry_ns > now && entry_ns <= until_ns;
        if let Some(entry) = legs.entry.as_ref().filter(|entry| is_soon(entry.until_ns)) {
            // It may come due meanwhile, before the worker is in its place.
            let is_started = !entry.is_watched;
            return Some(NewLeg { number: entry.number, until_ns: entry.until_ns, is_started });
        }
        self.set_leg(tenant, forked, until_ns, place())
    }

    /// As [`Self::expect_leg`], for one of a fixed number of workers.
    pub(super) fn expect_leg_in_slot(&self, tenant: &Arc<Tenant>, forked: &mut Forked) -> Option<NewLeg> {
        let number = FixedWorkers::slot_of(forked)?;
        self.expect_leg(tenant, forked, || LegPlace::Slot(number))
    }

    /// As [`Self::expect_leg`], for a worker of one loop.
    pub(crate) fn expect_leg_in_mailbox(
        &self,
        tenant: &Arc<Tenant>,
        forked: &mut Forked,
        mailbox: &Arc<WorkerMailbox>,
    ) -> Option<NewLeg> {
        self.expect_leg(tenant, forked, || LegPlace::Mailbox(Arc::downgrade(mailbox)))
    }

    /// Enters the worker's next leg into the timetable, in place of its former entry. It is not due before
    /// [`Self::start_leg`].
    fn set_leg(&self, tenant: &Arc<Tenant>, forked: &mut Forked, until_ns: u64, place: LegPlace) -> Option<NewLeg> {
        let legs = forked.legs.as_mut()?;
        legs.entry = None;
        let entry = self.timetable.add(until_ns, DueLeg { tenant: Arc::downgrade(tenant), place });
        let new = NewLeg { number: entry.number, until_ns, is_started: false };
        legs.entry = Some(entry);
        Some(new)
    }

    /// Starts a leg that was entered: its worker is in its place.
    pub(crate) fn start_leg(&self, new: Option<NewLeg>) {
        let Some(NewLeg { number, until_ns, is_started }) = new else { return };
        // All loops share the timetable's lock.
        if is_started && monotonic_ns() < until_ns {
            return;
        }
        if self.timetable.start(number, until_ns) {
            self.tell_news();
        }
    }

    /// Runs the leg with this number, if its worker is idle.
    pub(super) fn run_leg(&self, number: u64, leg: DueLeg) {
        let Some(tenant) = leg.tenant.upgrade() else { return };
        if let Some(until_ns) = quiet_from(&leg.place, &tenant, number) {
            // This thread looks for what is due next.
            self.timetable.start(number, until_ns);
            return;
        }
        // While the worker has a request, its end enters the next leg.
        let Some(mut forked) = leg.place.take(&tenant, number) else { return };
        if forked.number != tenant.generation() || !forked.worker.runs_between_requests() {
            self.end_leg(&tenant, &leg.place, forked, None);
            return;
        }
        let free_at_ns = tenant.background_budget.free_at_ns();
        if free_at_ns.is_none_or(|free_at_ns| free_at_ns > monotonic_ns()) {
            let share = forked.generation.config.background_cpu();
            let next_ns = free_at_ns.map(|free_at_ns| tenant.background_budget.try_again_ns(share, free_at_ns));
            self.end_leg(&tenant, &leg.place, forked, next_ns);
            return;
        }
        let may_block = forked.legs.as_ref().is_some_and(|legs| legs.may_block);
        if may_block && !self.enter_blocked(&tenant) {
            self.end_leg(&tenant, &leg.place, forked, Some(monotonic_ns().saturating_add(POLL_NS)));
            return;
        }
        let slice = Slice { time: SLICE, may_block };
        let ran = catch_unwind(AssertUnwindSafe(|| forked.worker.run_in_background(slice)));
        if may_block {
            self.queue().blocked.leave(Arc::as_ptr(&tenant).addr());
        }
        self.account(&tenant, &mut forked);
        match ran {
            Ok(Ok(progress)) => self.after_leg(&tenant, leg.place, forked, progress),
            Ok(Err(error)) => self.lose(&tenant, &leg.place, forked, Failure::from(&error), &error.to_string()),
            // The panic hook has logged the panic; the thread continues with other work.
            Err(_) => self.lose(&tenant, &leg.place, forked, Failure::Internal, INTERNAL_ERROR),
        }
    }

    /// Whether this thread may take a step that may block.
    fn enter_blocked(&self, tenant: &Arc<Tenant>) -> bool {
        let key = Arc::as_ptr(tenant).addr();
        let mut queue = self.queue();
        let has_room = queue.blocked.has_room(key);
        if has_room {
            queue.blocked.enter(key);
        }
        has_room
    }

    /// Counts what a leg has cost, and what the program was refused meanwhile.
    fn account(&self, tenant: &Tenant, forked: &mut Forked) {
        tenant.log.end_partial_lines();
        let cpu_ns = forked.worker.take_cpu_ns();
        tenant.background.spent_between_requests(cpu_ns);
        tenant.background_budget.charge(forked.generation.config.background_cpu(), monotonic_ns(), cpu_ns);
        count_hits(&mut forked.worker, RequestId::NONE, tenant, &tenant.background);
    }

    /// Enters the program's next leg, and gives the worker back.
    fn after_leg(&self, tenant: &Arc<Tenant>, place: LegPlace, mut forked: Forked, progress: BackgroundProgress) {
        let now = monotonic_ns();
        let has_outside = forked.worker.waits_for().is_some();
        let until_ns = match progress {
            BackgroundProgress::Paused => Some(now),
            BackgroundProgress::Waits { until_ns } => until_ns.or(has_outside.then_some(UNTIL_READY)),
        };
        if let Some(legs) = &mut forked.legs {
            legs.entry = None;
            legs.last_ns = now;
            // A deadline of *now* means that the next step may block.
            legs.may_block = matches!(progress, BackgroundProgress::Waits { until_ns: Some(until) } if until <= now);
        }
        let mut new = until_ns.and_then(|until_ns| self.set_leg(tenant, &mut forked, until_ns, place.clone()));
        if let Some(new) = &mut new {
            self.watch_outside(&mut forked, new);
        }
        self.give_back_to(tenant, &place, forked);
        self.start_leg(new);
    }

    /// Has the leg begin early when the worker's descriptor is ready. While this thread has the worker: no other one
    /// watches the descriptor for another leg.
    fn watch_outside(&self, forked: &mut Forked, new: &mut NewLeg) {
        let Some(outside) = forked.worker.waits_for() else { return };
        let watched = self.descriptors.watch(outside, LEG | new.number);
        if let Err(error) = watched {
            tracing::debug!(target: "mayfly::server", %error, "a worker's connections are not watched");
            new.until_ns = new.until_ns.min(monotonic_ns().saturating_add(POLL_NS));
        }
        if let Some(entry) = forked.legs.as_mut().and_then(|legs| legs.entry.as_mut()) {
            (entry.until_ns, entry.is_watched) = (new.until_ns, true);
        }
    }

    /// Gives a worker back to its place, or passes it to the request that has waited for it, and has its program run at
    /// `next_ns`, if there is such a time.
    fn end_leg(&self, tenant: &Arc<Tenant>, place: &LegPlace, mut forked: Forked, next_ns: Option<u64>) {
        let new = next_ns.and_then(|until_ns| self.set_leg(tenant, &mut forked, until_ns, place.clone()));
        self.give_back_to(tenant, place, forked);
        self.start_leg(new);
    }

    fn give_back_to(&self, tenant: &Arc<Tenant>, place: &LegPlace, forked: Forked) {
        match place {
            LegPlace::Slot(_) => self.return_to_slot(tenant, forked),
            LegPlace::Mailbox(mailbox) => match mailbox.upgrade() {
                Some(mailbox) if forked.number == tenant.generation() => self.return_to_mailbox(&mailbox, forked, None),
                _ => self.orders.close(forked),
            },
        }
    }

    /// Takes a loop's worker back that was away, or passes it to the request that has waited for it. Sends the answer
    /// of the request that it has served, at once or later.
    pub(super) fn return_to_mailbox(
        &self,
        mailbox: &Arc<WorkerMailbox>,
        mut forked: Forked,
        mut answer: Option<Answer>,
    ) {
        loop {
            let CameBack { next, answers } = mailbox.come_back(forked, answer.take(), monotonic_ns());
            let next = next.and_then(|(ticket, worker)| match self.leave_line(ticket) {
                Some(job) => {
                    self.serve_with(job, worker);
                    None
                }
                // Its time was over.
                None => Some(worker),
            });
            // Behind the return, so that the clients' next requests find the worker.
            answers.into_iter().for_each(|answer| answer());
            match next {
                Some(worker) => forked = worker,
                None => return,
            }
        }
    }

    /// Closes a worker that its program has lost between requests, and has it replaced.
    fn lose(&self, tenant: &Arc<Tenant>, place: &LegPlace, forked: Forked, failure: Failure, reason: &str) {
        tenant.background.count(Event::BackgroundFailure);
        tenant.log.lost_between_requests(failure, reason);
        // One of a fixed number replaces itself when it is dropped.
        self.orders.close(forked);
        if let LegPlace::Mailbox(mailbox) = place
            && let Some(mailbox) = mailbox.upgrade()
        {
            self.orders.fork(tenant, &mailbox);
        }
    }

    /// Has requests served that wait for a loop's worker which does not come back.
    pub(crate) fn serve_left(&self, tenant: &Tenant, submit: impl Fn(Job)) {
        for mailbox in tenant.live_mailboxes() {
            for ticket in mailbox.take_left() {
                if let Some(job) = self.leave_line(ticket) {
                    submit(job);
                }
            }
        }
    }
}

/// When a worker that is idle between requests that come close together is to be looked at again. `None`: it runs now.
fn quiet_from(place: &LegPlace, tenant: &Tenant, number: u64) -> Option<u64> {
    let mut until_ns = None;
    place.with(tenant, number, |forked| {
        let now = monotonic_ns();
        let quiet_ns = forked.worker.last_started_ns().saturating_add(QUIET_NS);
        let is_recent = matches!(place, LegPlace::Mailbox(_))
            || forked.legs.as_ref().is_some_and(|legs| now < legs.last_ns.saturating_add(BUSY_NS));
        until_ns = Some(quiet_ns).filter(|quiet_ns| is_recent && *quiet_ns > now);
    });
    until_ns
}
