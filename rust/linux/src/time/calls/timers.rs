// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls for timers that send signals: of real time, and of CPU time.

use crate::base::arguments::{flag, int};
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::kernel::call::Call;
use crate::signal::signals::{Signal, TimerId};
use crate::time::calls::clocks::CpuClock;
use crate::time::timers::{Notify, PosixTimer, Schedule, TIMERS_MAX, TimerClock};

const MICROSECOND_NS: u64 = 1000;
const SECOND_NS: u64 = 1_000_000_000;
const ITIMER_REAL: i32 = 0;
const ITIMER_VIRTUAL: i32 = 1;
const ITIMER_PROF: i32 = 2;

/// `alarm(2)`.
pub(crate) fn alarm(call: &mut Call<'_, '_>) -> CallResult {
    let [seconds, ..] = call.args;
    let seconds = u64::from(int(seconds).cast_unsigned());
    let duration = seconds.saturating_mul(SECOND_NS);
    let (left, _) = set_interval(call, TimerId::Alarm, duration, 0)?;
    // Rounded to the nearest second, but at least one.
    let rounded = left.saturating_add(SECOND_NS / 2) / SECOND_NS;
    Ok(if left > 0 { rounded.max(1) } else { 0 })
}

/// `setitimer(2)`.
pub(crate) fn setitimer(call: &mut Call<'_, '_>) -> CallResult {
    let [which, new, old, ..] = call.args;
    let id = kind(which)?;
    let (duration, interval) = match new {
        0 => (0, 0),
        new => {
            let [interval, interval_us, first, first_us] = call.user().read_words(new)?;
            (from_timeval(first, first_us)?, from_timeval(interval, interval_us)?)
        }
    };
    let before = set_interval(call, id, duration, interval)?;
    write_old(call, old, before)
}

/// `getitimer(2)`.
pub(crate) fn getitimer(call: &mut Call<'_, '_>) -> CallResult {
    let [which, buffer, ..] = call.args;
    let id = kind(which)?;
    fire(call)?;
    let left = call.process.timers.interval(id).left(call.process.timer_now_ns(id));
    write_timevals(call, buffer, left)?;
    Ok(0)
}

fn kind(which: u64) -> Result<TimerId, Errno> {
    match int(which) {
        ITIMER_REAL => Ok(TimerId::Alarm),
        ITIMER_VIRTUAL => Ok(TimerId::Virtual),
        ITIMER_PROF => Ok(TimerId::Profile),
        _ => Err(Errno::EINVAL),
    }
}

/// Sets one of the timers of `setitimer`; a duration of 0 disarms it. Returns its previous remaining time and interval.
fn set_interval(call: &mut Call<'_, '_>, id: TimerId, duration: u64, interval: u64) -> Result<(u64, u64), Halt> {
    fire(call)?;
    let now = call.process.timer_now_ns(id);
    let schedule = call.process.timers.interval(id);
    let before = schedule.left(now);
    if duration == 0 && *schedule == Schedule::default() {
        return Ok(before);
    }
    let until = (duration > 0).then(|| now.saturating_add(duration));
    call.process.timers.edit().set_interval(id, Schedule::new(until, if duration > 0 { interval } else { 0 }));
    call.process.detach_timer_signal(id);
    Ok(before)
}

/// Expired timers send their signals before a call reads or sets timers.
fn fire(call: &mut Call<'_, '_>) -> Result<(), Halt> {
    call.process.fire_timers(call.machine, clock::now_ns()).map_err(Halt::End)
}

fn from_timeval(seconds: u64, microseconds: u64) -> Result<u64, Errno> {
    if seconds.cast_signed() < 0 || microseconds >= SECOND_NS / MICROSECOND_NS {
        return Err(Errno::EINVAL);
    }
    Ok(clock::total_ns(seconds, microseconds.saturating_mul(MICROSECOND_NS)))
}

fn write_old(call: &mut Call<'_, '_>, old: u64, before: (u64, u64)) -> CallResult {
    if old != 0 {
        write_timevals(call, old, before)?;
    }
    Ok(0)
}

fn write_timevals(call: &mut Call<'_, '_>, buffer: u64, (left, interval): (u64, u64)) -> Result<(), Halt> {
    let timeval = |ns: u64| [ns / SECOND_NS, ns % SECOND_NS / MICROSECOND_NS];
    let ([interval, interval_us], [left, left_us]) = (timeval(interval), timeval(left));
    call.user().write_words(buffer, &[interval, interval_us, left, left_us])
}

/// `timer_create(2)`.
pub(crate) fn timer_create(call: &mut Call<'_, '_>) -> CallResult {
    let [clock, event, id_buffer, ..] = call.args;
    let clock = match (int(clock), CpuClock::new(call, clock)?) {
        (_, Some(CpuClock::Process)) => TimerClock::Cpu,
        (_, Some(CpuClock::Thread(tid))) => TimerClock::ThreadCpu(tid),
        (libc::CLOCK_REALTIME | libc::CLOCK_TAI, None) => TimerClock::Realtime,
        (libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME, None) => TimerClock::Monotonic,
        _ => return Err(Errno::EINVAL.into()),
    };
    let id = call.process.timers.next_id;
    let notify = match event {
        0 => Notify::Process { signal: Signal::ALRM, value: id.into() },
        event => {
            let [value, signal_and_kind, tid] = call.user().read_words(event)?;
            let (signal, kind) = (int(signal_and_kind), int(signal_and_kind >> 32));
            notify(call, value, signal, kind, int(tid).cast_unsigned())?
        }
    };
    if call.process.timers.posix.len() >= TIMERS_MAX {
        return Err(Errno::EAGAIN.into());
    }
    call.user().write(id_buffer, &id.to_le_bytes())?;
    let timers = call.process.timers.edit();
    timers.next_id = timers.next_id.wrapping_add(1) & i32::MAX.unsigned_abs();
    timers.posix.retain(|timer| timer.id != id);
    timers.posix.push(PosixTimer { id, clock, notify, schedule: Schedule::default(), overrun: 0 });
    Ok(0)
}

fn notify(call: &Call<'_, '_>, value: u64, signal: i32, kind: i32, tid: u32) -> Result<Notify, Errno> {
    let signal = Signal::new(signal).ok_or(Errno::EINVAL);
    match kind {
        libc::SIGEV_NONE => Ok(Notify::None),
        // The C library creates threads for timers; it uses SIGEV_THREAD_ID.
        libc::SIGEV_SIGNAL | libc::SIGEV_THREAD => Ok(Notify::Process { signal: signal?, value }),
        libc::SIGEV_THREAD_ID => {
            call.process.threads.by_tid(tid).ok_or(Errno::EINVAL)?;
            Ok(Notify::Thread { signal: signal?, value, tid })
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `timer_settime(2)`.
pub(crate) fn timer_settime(call: &mut Call<'_, '_>) -> CallResult {
    let [id, flags, new, old, ..] = call.args;
    if new == 0 {
        return Err(Errno::EINVAL.into());
    }
    let [interval, interval_ns, first, first_ns] = call.user().read_words(new)?;
    for (seconds, nanoseconds) in [(interval, interval_ns), (first, first_ns)] {
        if seconds.cast_signed() < 0 || nanoseconds >= SECOND_NS {
            return Err(Errno::EINVAL.into());
        }
    }
    let (interval, first) = (clock::total_ns(interval, interval_ns), clock::total_ns(first, first_ns));
    fire(call)?;
    let id = find(call, id)?;
    let now = call.process.timer_now_ns(TimerId::Posix(id));
    let absolute = call.process.to_host_ns(first);
    let timer = call.process.timers.edit().by_id(id).ok_or(Errno::EINVAL)?;
    let before = timer.schedule.left(now);
    let until = match (flags & flag(libc::TIMER_ABSTIME) != 0, timer.clock) {
        _ if first == 0 => None,
        (false, _) => Some(now.saturating_add(first)),
        (true, TimerClock::Monotonic) => Some(absolute),
        (true, TimerClock::Realtime) => Some(clock::from_unix_ns(first)),
        (true, TimerClock::Cpu | TimerClock::ThreadCpu(_)) => Some(first),
    };
    timer.schedule = Schedule::new(until, interval);
    timer.overrun = 0;
    call.process.forget_timer_signal(TimerId::Posix(id));
    // A time that has passed expires at once.
    fire(call)?;
    if old != 0 {
        write_times(call, old, before)?;
    }
    Ok(0)
}

/// `timer_gettime(2)`.
pub(crate) fn timer_gettime(call: &mut Call<'_, '_>) -> CallResult {
    let [id, buffer, ..] = call.args;
    let id = find(call, id)?;
    fire(call)?;
    let now = call.process.timer_now_ns(TimerId::Posix(id));
    let timer = call.process.timers.posix.iter().find(|timer| timer.id == id).ok_or(Errno::EINVAL)?;
    let left = timer.schedule.left(now);
    write_times(call, buffer, left)?;
    Ok(0)
}

/// `timer_getoverrun(2)`.
pub(crate) fn timer_getoverrun(call: &mut Call<'_, '_>) -> CallResult {
    let [id, ..] = call.args;
    let id = find(call, id)?;
    let timer = call.process.timers.posix.iter().find(|timer| timer.id == id).ok_or(Errno::EINVAL)?;
    Ok(timer.overrun.into())
}

/// `timer_delete(2)`.
pub(crate) fn timer_delete(call: &mut Call<'_, '_>) -> CallResult {
    let [id, ..] = call.args;
    let id = find(call, id)?;
    call.process.timers.edit().posix.retain(|timer| timer.id != id);
    call.process.forget_timer_signal(TimerId::Posix(id));
    Ok(0)
}

fn find(call: &Call<'_, '_>, id: u64) -> Result<u32, Errno> {
    let id = int(id).cast_unsigned();
    let exists = call.process.timers.posix.iter().any(|timer| timer.id == id);
    if exists { Ok(id) } else { Err(Errno::EINVAL) }
}

fn write_times(call: &mut Call<'_, '_>, buffer: u64, (left, interval): (u64, u64)) -> Result<(), Halt> {
    let ([interval, interval_ns], [left, left_ns]) = (clock::timespec(interval), clock::timespec(left));
    call.user().write_words(buffer, &[interval, interval_ns, left, left_ns])
}
