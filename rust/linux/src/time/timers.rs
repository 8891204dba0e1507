// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers that send signals: those of `setitimer` and `timer_create`.
//!
//! As on Linux, a timer whose signal is pending stops until the signal is taken; the intervals that have passed by then
//! are its overrun. So a timer wakes the machine once for each signal that the program takes, however short its
//! interval is. One whose signal is ignored wakes it every [`IGNORED_PERIOD_NS`] at most.

use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::signal::signals::{Signal, TimerId};

/// Most timers of a program; on Linux RLIMIT_SIGPENDING bounds them.
pub(crate) const TIMERS_MAX: usize = 64;
pub(crate) const IGNORED_PERIOD_NS: u64 = 10_000_000;

/// When a timer expires, by its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// `None`: disarmed.
    pub(crate) until_ns: Option<u64>,
    /// 0: it expires once.
    pub(crate) interval_ns: u64,
    /// Its signal is pending.
    pub(crate) is_sent: bool,
}

impl Schedule {
    pub(crate) fn new(until_ns: Option<u64>, interval_ns: u64) -> Self {
        Self { until_ns, interval_ns, is_sent: false }
    }

    fn next_ns(&self) -> Option<u64> {
        self.until_ns.filter(|_| !self.is_sent)
    }

    /// The remaining time, and the interval.
    pub(crate) fn left(&self, now_ns: u64) -> (u64, u64) {
        let Some(until) = self.until_ns else { return (0, self.interval_ns) };
        let mut copy = *self;
        if until <= now_ns && self.interval_ns > 0 {
            copy.advance(now_ns, self.interval_ns);
        }
        // An armed timer always has some time left.
        let least = if self.interval_ns > 0 || !self.is_sent { 1 } else { 0 };
        (copy.until_ns.unwrap_or(0).saturating_sub(now_ns).max(least), self.interval_ns)
    }

    /// Advances past `now_ns`; returns the number of missed intervals.
    pub(crate) fn advance(&mut self, now_ns: u64, period_ns: u64) -> u64 {
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

/// Notification of a timer of `timer_create`: SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Notify {
    None,
    Process { signal: Signal, value: u64 },
    Thread { signal: Signal, value: u64, tid: u32 },
}

/// The clock of a timer. Times of CPU clocks are CPU time; others are the monotonic clock's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TimerClock {
    /// CLOCK_REALTIME or the like.
    Realtime,
    Monotonic,
    Cpu,
    /// CPU time of one thread.
    ThreadCpu(u32),
}

impl TimerClock {
    fn is_cpu(self) -> bool {
        matches!(self, Self::Cpu | Self::ThreadCpu(_))
    }
}

/// A timer of `timer_create`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PosixTimer {
    pub(crate) id: u32,
    pub(crate) clock: TimerClock,
    pub(crate) notify: Notify,
    pub(crate) schedule: Schedule,
    /// The overrun of the signal that was taken last.
    pub(crate) overrun: u32,
}

/// A program's timers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Timers {
    /// `setitimer(ITIMER_REAL)` and `alarm`.
    pub(crate) alarm: Schedule,
    /// `setitimer(ITIMER_VIRTUAL)` and `setitimer(ITIMER_PROF)`: all CPU time is the program's own.
    pub(crate) virtual_time: Schedule,
    pub(crate) profile: Schedule,
    pub(crate) posix: Vec<PosixTimer>,
    pub(crate) next_id: u32,
}

impl Timers {
    /// The earliest expiration. Timers of CPU time expire only while the program runs, so it need not be woken for
    /// them.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let posix = self.posix.iter().filter(|timer| !timer.clock.is_cpu());
        posix.filter_map(|timer| timer.schedule.next_ns()).chain(self.alarm.next_ns()).min()
    }

    /// Whether timers of CPU time are armed.
    pub(crate) fn has_cpu_timers(&self) -> bool {
        let posix = self.posix.iter().filter(|timer| timer.clock.is_cpu()).map(|timer| &timer.schedule);
        posix.chain([&self.virtual_time, &self.profile]).any(|schedule| schedule.next_ns().is_some())
    }

    /// Postpones all armed timers, except those of the realtime clock and of CPU time.
    pub(crate) fn postpone(&mut self, by_ns: u64) {
        let posix = self.posix.iter_mut().filter(|timer| timer.clock == TimerClock::Monotonic);
        let posix = posix.map(|timer| &mut timer.schedule);
        for schedule in posix.chain([&mut self.alarm]) {
            schedule.until_ns = schedule.until_ns.map(|until| clock::postponed(until, by_ns));
        }
    }

    /// A timer of `setitimer`.
    pub(crate) fn interval(&self, id: TimerId) -> &Schedule {
        match id {
            TimerId::Alarm | TimerId::Posix(_) => &self.alarm,
            TimerId::Virtual => &self.virtual_time,
            TimerId::Profile => &self.profile,
        }
    }

    pub(crate) fn set_interval(&mut self, id: TimerId, new: Schedule) {
        if let Some(schedule) = self.schedule(id) {
            *schedule = new;
        }
    }

    pub(crate) fn by_id(&mut self, id: u32) -> Option<&mut PosixTimer> {
        self.posix.iter_mut().find(|timer| timer.id == id)
    }

    pub(crate) fn schedule(&mut self, id: TimerId) -> Option<&mut Schedule> {
        match id {
            TimerId::Alarm => Some(&mut self.alarm),
            TimerId::Virtual => Some(&mut self.virtual_time),
            TimerId::Profile => Some(&mut self.profile),
            TimerId::Posix(id) => self.by_id(id).map(|timer| &mut timer.schedule),
        }
    }

    /// Restarts a timer whose signal was taken or discarded; returns the overrun.
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

    /// The clock of a timer.
    pub(crate) fn clock(&self, id: TimerId) -> TimerClock {
        match id {
            TimerId::Alarm => TimerClock::Monotonic,
            TimerId::Virtual | TimerId::Profile => TimerClock::Cpu,
            TimerId::Posix(id) => {
                self.posix.iter().find(|timer| timer.id == id).map_or(TimerClock::Monotonic, |timer| timer.clock)
            }
        }
    }

    /// The timers that have expired, and their notifications. `now_ns` returns a clock's time, unless the clock has
    /// ended.
    pub(crate) fn expired(&self, now_ns: impl Fn(TimerClock) -> Option<u64>) -> Vec<(TimerId, Notify)> {
        let is_over = |schedule: &Schedule, clock| {
            schedule.next_ns().is_some_and(|until| now_ns(clock).is_some_and(|now| until <= now))
        };
        let sent = |signal| Notify::Process { signal, value: 0 };
        let interval = [
            (TimerId::Alarm, &self.alarm, TimerClock::Monotonic, Signal::ALRM),
            (TimerId::Virtual, &self.virtual_time, TimerClock::Cpu, Signal::VTALRM),
            (TimerId::Profile, &self.profile, TimerClock::Cpu, Signal::PROF),
        ];
        let interval = interval.into_iter().filter(|(_, schedule, clock, _)| is_over(schedule, *clock));
        let posix = self.posix.iter().filter(|timer| is_over(&timer.schedule, timer.clock));
        interval
            .map(|(id, _, _, signal)| (id, sent(signal)))
            .chain(posix.map(|timer| (TimerId::Posix(timer.id), timer.notify)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_intervals_are_counted() {
        let mut timers = Timers { alarm: Schedule::new(Some(100), 10), ..Timers::default() };
        assert_eq!(timers.next_ns(), Some(100));
        assert_eq!(timers.expired(|_| Some(99)), []);
        assert_eq!(timers.expired(|_| Some(100)).len(), 1);
        timers.alarm.is_sent = true;
        assert_eq!(timers.next_ns(), None, "its signal is still pending");
        assert_eq!(timers.signal_taken(TimerId::Alarm, 135), 3);
        assert_eq!(timers.next_ns(), Some(140));
    }

    #[test]
    fn a_timer_without_an_interval_expires_once() {
        let mut timers = Timers { alarm: Schedule::new(Some(100), 0), ..Timers::default() };
        assert_eq!(timers.alarm.left(40), (60, 0));
        assert_eq!(timers.signal_taken(TimerId::Alarm, 1_000_000), 0);
        assert_eq!(timers.next_ns(), None);
        assert_eq!(timers.alarm.left(40), (0, 0));
    }
}
