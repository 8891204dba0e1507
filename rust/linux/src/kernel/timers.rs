// SPDX-License-Identifier: MIT OR Apache-2.0
//! The timers of a process: they send signals to the process or to a thread.

use mayfly_engine::Machine;

use crate::base::clock;
use crate::base::step::Step;
use crate::kernel::delivery::{Sent, SignalTarget};
use crate::kernel::process::Process;
use crate::signal::signals::{Info, SI_KERNEL, SI_TIMER, Signal, TimerId};
use crate::time::timers::{IGNORED_PERIOD_NS, Notify, TimerClock};

impl Process {
    /// The time of a timer's clock when the host's monotonic clock is at `now`; `None` for the clock of a thread that
    /// has ended.
    pub(crate) fn timer_clock_ns(&self, clock: TimerClock, now: u64) -> Option<u64> {
        match clock {
            TimerClock::Realtime | TimerClock::Monotonic => Some(now),
            TimerClock::Cpu => Some(self.cpu_ns()),
            TimerClock::ThreadCpu(tid) => self.threads.by_tid(tid).and_then(|index| self.thread_cpu_ns(index)),
        }
    }

    /// The present time of a timer's clock.
    pub(crate) fn timer_now_ns(&self, id: TimerId) -> u64 {
        self.timer_clock_ns(self.timers.clock(id), clock::now_ns()).unwrap_or(0)
    }

    /// Sends the signals of the timers that have expired at `now`.
    pub(crate) fn fire_timers(&mut self, machine: &mut Machine, now: u64) -> Result<(), Step> {
        if self.timers.next_ns().is_none_or(|until| until > now) && !self.timers.has_cpu_timers() {
            return Ok(());
        }
        for (id, notify) in self.timers.expired(|clock| self.timer_clock_ns(clock, now)) {
            let sent = match notify {
                Notify::None => Sent::Ignored,
                Notify::Process { signal, value } => {
                    self.send_signal(machine, SignalTarget::Process, info(id, signal, value))?
                }
                Notify::Thread { signal, value, tid } => match self.threads.by_tid(tid) {
                    Some(index) => self.send_signal(machine, SignalTarget::Thread(index), info(id, signal, value))?,
                    None => Sent::Ignored,
                },
            };
            let pending = self.threads.iter().any(|thread| thread.signals.pending.has_timer(id))
                || self.signals.pending.has_timer(id);
            let now = self.timer_now_ns(id);
            let Some(schedule) = self.timers.edit().schedule(id) else { continue };
            if sent != Sent::Ignored && pending {
                schedule.is_sent = true;
            } else {
                // The signal is ignored, so no thread will take it: the timer restarts itself.
                let period = schedule.interval_ns;
                schedule.advance(now, period.max(IGNORED_PERIOD_NS));
            }
        }
        Ok(())
    }

    /// Restarts the timers whose pending signals were discarded.
    pub(crate) fn restart_timers(&mut self) {
        let interval = [
            (TimerId::Alarm, self.timers.alarm),
            (TimerId::Virtual, self.timers.virtual_time),
            (TimerId::Profile, self.timers.profile),
        ];
        let sent: Vec<TimerId> = interval
            .into_iter()
            .chain(self.timers.posix.iter().map(|timer| (TimerId::Posix(timer.id), timer.schedule)))
            .filter(|(_, schedule)| schedule.is_sent)
            .map(|(id, _)| id)
            .collect();
        for id in sent {
            let pending = self.threads.iter().any(|thread| thread.signals.pending.has_timer(id))
                || self.signals.pending.has_timer(id);
            if !pending {
                let now = self.timer_now_ns(id);
                self.timers.edit().signal_taken(id, now);
            }
        }
    }

    /// A pending signal of an alarm that is set anew stays, as on Linux.
    pub(crate) fn detach_timer_signal(&mut self, id: TimerId) {
        self.signals.edit().pending.detach_timer(id);
        for pending in self.threads.edit().pending_mut() {
            pending.detach_timer(id);
        }
    }

    /// Discards the pending signal of a timer that is set anew, or deleted.
    pub(crate) fn forget_timer_signal(&mut self, id: TimerId) {
        self.signals.edit().pending.forget_timer(id);
        for pending in self.threads.edit().pending_mut() {
            pending.forget_timer(id);
        }
    }
}

fn info(timer: TimerId, signal: Signal, value: u64) -> Info {
    match timer {
        TimerId::Alarm | TimerId::Virtual | TimerId::Profile => {
            Info { timer: Some(timer), ..Info::kernel(signal, SI_KERNEL, 0) }
        }
        // The upper half of the first field is the overrun, which is known when the signal is taken.
        TimerId::Posix(id) => Info { signal, code: SI_TIMER, fields: [id.into(), value, 0, 0], timer: Some(timer) },
    }
}
