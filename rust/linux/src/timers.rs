// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers that send signals: `setitimer`'s and those of `timer_create`.
//!
//! A timer whose signal is pending stands still until the signal is taken, as on Linux; the periods that have passed by then are its
//! overrun. So a timer wakes the machine once for each signal that the program takes, however short its period is. One whose signal is
//! ignored wakes it [`IGNORED_PERIOD_NS`] apart at most.

use mayfly_kvm::Machine;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::delivery::{Sent, Target};
use crate::process::{Process, Step};
use crate::signals::{Info, SI_KERNEL, SI_TIMER, Signal, TimerId};

/// Most timers of a program: RLIMIT_SIGPENDING bounds them on Linux.
pub(crate) const TIMERS_MAX: usize = 64;
const IGNORED_PERIOD_NS: u64 = 10_000_000;

/// When a timer is over; times are the monotonic clock's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// `None`: it is not armed.
    pub(crate) until_ns: Option<u64>,
    /// 0: once.
    pub(crate) interval_ns: u64,
    /// Its signal is pending.
    is_sent: bool,
}

impl Schedule {
    pub(crate) fn new(until_ns: Option<u64>, interval_ns: u64) -> Self {
        Self { until_ns, interval_ns, is_sent: false }
    }

    fn next_ns(&self) -> Option<u64> {
        self.until_ns.filter(|_| !self.is_sent)
    }

    /// Time that is left, and the period.
    pub(crate) fn left(&self, now_ns: u64) -> (u64, u64) {
        let Some(until) = self.until_ns else { return (0, self.interval_ns) };
        let mut copy = *self;
        if until <= now_ns && self.interval_ns > 0 {
            copy.advance(now_ns, self.interval_ns);
        }
        // One that is armed never has nothing left.
        let least = if self.interval_ns > 0 || !self.is_sent { 1 } else { 0 };
        (copy.until_ns.unwrap_or(0).saturating_sub(now_ns).max(least), self.interval_ns)
    }

    /// Goes on behind `now_ns`; the periods that were missed.
    fn advance(&mut self, now_ns: u64, period_ns: u64) -> u64 {
        self.is_sent = false;
        match self.until_ns {
            Some(until) if self.interval_ns > 0 => {
                let late = now_ns.saturating_sub(until);
                let missed = late.checked_div(period_ns).unwrap_or(0);
                self.until_ns = Some(until.saturating_add(missed.saturating_add(1).saturating_mul(period_ns)));
                missed
            }
            _ => {
                self.until_ns = None;
                0
            }
        }
    }
}

/// Whom a timer of `timer_create` tells: SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Notify {
    Nobody,
    Process { signal: Signal, value: u64 },
    Thread { signal: Signal, value: u64, tid: u32 },
}

/// A timer of `timer_create`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PosixTimer {
    pub(crate) id: u32,
    /// Its clock is CLOCK_REALTIME or the like.
    pub(crate) is_realtime: bool,
    pub(crate) notify: Notify,
    pub(crate) schedule: Schedule,
    /// Of the signal that was taken last.
    pub(crate) overrun: u32,
}

/// A program's timers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Timers {
    /// `setitimer(ITIMER_REAL)` and `alarm`.
    pub(crate) alarm: Schedule,
    pub(crate) posix: Vec<PosixTimer>,
    pub(crate) next_id: u32,
}

impl Timers {
    /// When one of them is over, at the earliest.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let posix = self.posix.iter().filter_map(|timer| timer.schedule.next_ns());
        posix.chain(self.alarm.next_ns()).min()
    }

    /// All that are armed are over so much later; those of the realtime clock are not.
    pub(crate) fn postpone(&mut self, by_ns: u64) {
        let posix = self.posix.iter_mut().filter(|timer| !timer.is_realtime).map(|timer| &mut timer.schedule);
        for schedule in posix.chain([&mut self.alarm]) {
            schedule.until_ns = schedule.until_ns.map(|until| clock::postponed(until, by_ns));
        }
    }

    pub(crate) fn by_id(&mut self, id: u32) -> Option<&mut PosixTimer> {
        self.posix.iter_mut().find(|timer| timer.id == id)
    }

    fn schedule(&mut self, id: TimerId) -> Option<&mut Schedule> {
        match id {
            TimerId::Alarm => Some(&mut self.alarm),
            TimerId::Posix(id) => self.by_id(id).map(|timer| &mut timer.schedule),
        }
    }

    /// The timer's signal has been taken, or forgotten: it goes on. The overrun.
    pub(crate) fn signal_taken(&mut self, id: TimerId, now_ns: u64) -> u32 {
        let Some(schedule) = self.schedule(id) else { return 0 };
        let period = schedule.interval_ns;
        let missed = schedule.advance(now_ns, period);
        let overrun = u32::try_from(missed).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
        if let TimerId::Posix(id) = id
            && let Some(timer) = self.by_id(id)
        {
            timer.overrun = overrun;
        }
        overrun
    }

    /// Timers that are over, and what they send to whom.
    fn over(&self, now_ns: u64) -> Vec<(TimerId, Notify)> {
        let is_over = |schedule: &Schedule| schedule.next_ns().is_some_and(|until| until <= now_ns);
        let alarm =
            is_over(&self.alarm).then_some((TimerId::Alarm, Notify::Process { signal: Signal::ALRM, value: 0 }));
        let posix = self.posix.iter().filter(|timer| is_over(&timer.schedule));
        alarm.into_iter().chain(posix.map(|timer| (TimerId::Posix(timer.id), timer.notify))).collect()
    }
}

impl Process {
    /// Sends the signals of the timers that are over at `now`.
    pub(crate) fn fire_timers(&mut self, machine: &mut Machine, now: u64) -> Result<(), Step> {
        if self.timers.next_ns().is_none_or(|until| until > now) {
            return Ok(());
        }
        for (id, notify) in self.timers.over(now) {
            let sent = match notify {
                Notify::Nobody => Sent::Ignored,
                Notify::Process { signal, value } => {
                    self.send_signal(machine, Target::Process, info(id, signal, value))?
                }
                Notify::Thread { signal, value, tid } => match self.threads.by_tid(tid) {
                    Some(index) => self.send_signal(machine, Target::Thread(index), info(id, signal, value))?,
                    None => Sent::Ignored,
                },
            };
            let pending = self.threads.iter().any(|thread| thread.signals.pending.has_timer(id))
                || self.signals.pending.has_timer(id);
            let Some(schedule) = self.timers.edit().schedule(id) else { continue };
            if sent != Sent::Ignored && pending {
                schedule.is_sent = true;
            } else {
                // Nobody will take it: it goes on by itself.
                let period = schedule.interval_ns;
                schedule.advance(now, period.max(IGNORED_PERIOD_NS));
            }
        }
        Ok(())
    }

    /// Signals have been forgotten; the timers that had sent them go on.
    pub(crate) fn restart_timers(&mut self) {
        let sent: Vec<TimerId> = std::iter::once((TimerId::Alarm, self.timers.alarm))
            .chain(self.timers.posix.iter().map(|timer| (TimerId::Posix(timer.id), timer.schedule)))
            .filter(|(_, schedule)| schedule.is_sent)
            .map(|(id, _)| id)
            .collect();
        for id in sent {
            let pending = self.threads.iter().any(|thread| thread.signals.pending.has_timer(id))
                || self.signals.pending.has_timer(id);
            if !pending {
                self.timers.edit().signal_taken(id, clock::now_ns());
            }
        }
    }

    /// The alarm is set anew: what it has sent stays, as on Linux.
    pub(crate) fn detach_timer_signal(&mut self, id: TimerId) {
        self.signals.edit().pending.detach_timer(id);
        for pending in self.threads.edit().pending_mut() {
            pending.detach_timer(id);
        }
    }

    /// Forgets what a timer has sent: it is set anew, or gone.
    pub(crate) fn forget_timer_signal(&mut self, id: TimerId) {
        self.signals.edit().pending.forget_timer(id);
        for pending in self.threads.edit().pending_mut() {
            pending.forget_timer(id);
        }
    }
}

fn info(timer: TimerId, signal: Signal, value: u64) -> Info {
    match timer {
        TimerId::Alarm => Info { timer: Some(timer), ..Info::kernel(signal, SI_KERNEL, 0) },
        // The upper half is the overrun, which is known when the signal is taken.
        TimerId::Posix(id) => Info { signal, code: SI_TIMER, fields: [id.into(), value, 0, 0], timer: Some(timer) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_that_were_missed_are_counted() {
        let mut timers = Timers { alarm: Schedule::new(Some(100), 10), ..Timers::default() };
        assert_eq!(timers.next_ns(), Some(100));
        assert_eq!(timers.over(99), []);
        assert_eq!(timers.over(100).len(), 1);
        timers.alarm.is_sent = true;
        assert_eq!(timers.next_ns(), None, "its signal has not been taken");
        assert_eq!(timers.signal_taken(TimerId::Alarm, 135), 3);
        assert_eq!(timers.next_ns(), Some(140));
    }

    #[test]
    fn a_timer_without_a_period_is_over_once() {
        let mut timers = Timers { alarm: Schedule::new(Some(100), 0), ..Timers::default() };
        assert_eq!(timers.alarm.left(40), (60, 0));
        assert_eq!(timers.signal_taken(TimerId::Alarm, 1_000_000), 0);
        assert_eq!(timers.next_ns(), None);
        assert_eq!(timers.alarm.left(40), (0, 0));
    }
}
