// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks and sleeps.
//!
//! Programs read most clocks in the vDSO, and call the rest, or when the vDSO does not know the time. Clocks are the
//! host's, which run between requests and over resets. But while a program is frozen, its monotonic clocks stand still,
//! as on a suspended machine. `kernel/cpu_time.rs` defines CPU time.
//!
//! A sleeping thread waits, and the others run. If all wait, the embedder uses its thread for other work meanwhile.

use std::time::Duration;

use rustix::time::{ClockId, Timespec};

use crate::base::arguments::int;
use crate::base::clock::{self, is_over};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt, Wait};
use crate::base::identity::{CLOCK_TICKS, PID};
use crate::kernel::call::Call;
use crate::kernel::process::Process;

/// A clock by its number.
#[derive(Clone, Copy)]
enum Clock {
    Host(ClockId),
    /// CPU time.
    Cpu(CpuClock),
}

/// A clock of CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CpuClock {
    Process,
    /// The thread with this number.
    Thread(u32),
}

impl CpuClock {
    /// The clock with this number, if it is one of CPU time: a named one, or one made from the number of a thread or
    /// process (`clock_getcpuclockid(3)`).
    pub(crate) fn new(call: &Call<'_, '_>, id: u64) -> Result<Option<Self>, Errno> {
        /// Linux's CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_CLOCK_MASK: user and system time, user time, the scheduler's
        /// count; 3 is a device's clock.
        const THREAD: i32 = 4;
        const KIND: i32 = 3;
        let id = int(id);
        let current = call.process.threads.current().tid;
        match id {
            libc::CLOCK_PROCESS_CPUTIME_ID => return Ok(Some(Self::Process)),
            libc::CLOCK_THREAD_CPUTIME_ID => return Ok(Some(Self::Thread(current))),
            0.. => return Ok(None),
            _ if id & KIND == KIND => return Err(Errno::EINVAL),
            _ => {}
        }
        let number = (!(id >> 3)).cast_unsigned();
        let exists = number == 0 || call.process.threads.by_tid(number).is_some();
        match id & THREAD != 0 {
            true if exists => Ok(Some(Self::Thread(if number == 0 { current } else { number }))),
            false if number == 0 || number == PID => Ok(Some(Self::Process)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Its time in nanoseconds; `None` for a thread that has ended.
    pub(crate) fn now_ns(self, process: &Process) -> Option<u64> {
        match self {
            Self::Process => Some(process.cpu_ns()),
            Self::Thread(tid) => process.threads.by_tid(tid).and_then(|index| process.thread_cpu_ns(index)),
        }
    }
}

impl Clock {
    fn new(call: &Call<'_, '_>, id: u64) -> Result<Self, Errno> {
        if let Some(clock) = CpuClock::new(call, id)? {
            return Ok(Self::Cpu(clock));
        }
        Ok(Self::Host(match int(id) {
            // TAI equals UTC until a time daemon sets the offset (adjtimex, ADJ_TAI).
            libc::CLOCK_REALTIME | libc::CLOCK_TAI => ClockId::Realtime,
            libc::CLOCK_MONOTONIC => ClockId::Monotonic,
            libc::CLOCK_MONOTONIC_RAW => ClockId::MonotonicRaw,
            libc::CLOCK_REALTIME_COARSE => ClockId::RealtimeCoarse,
            libc::CLOCK_MONOTONIC_COARSE => ClockId::MonotonicCoarse,
            libc::CLOCK_BOOTTIME => ClockId::Boottime,
            _ => return Err(Errno::EINVAL),
        }))
    }

    fn now(self, call: &Call<'_, '_>) -> [u64; 2] {
        match self {
            // As in the vDSO, without ticks: the coarse clocks are as exact as the others.
            Self::Host(ClockId::RealtimeCoarse) => words(rustix::time::clock_gettime(ClockId::Realtime)),
            Self::Host(ClockId::Monotonic | ClockId::MonotonicCoarse) => suspended_clock(call, ClockId::Monotonic),
            Self::Host(ClockId::MonotonicRaw) => suspended_clock(call, ClockId::MonotonicRaw),
            Self::Host(id) => words(rustix::time::clock_gettime(id)),
            Self::Cpu(clock) => clock::timespec(clock.now_ns(call.process).unwrap_or(0)),
        }
    }
}

/// The time of a clock that stands still while the program is frozen.
fn suspended_clock(call: &Call<'_, '_>, id: ClockId) -> [u64; 2] {
    let [seconds, nanoseconds] = words(rustix::time::clock_gettime(id));
    clock::timespec(clock::total_ns(seconds, nanoseconds).wrapping_sub(call.process.suspended_ns))
}

fn words(time: Timespec) -> [u64; 2] {
    [time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned()]
}

/// `clock_gettime(2)`.
pub(crate) fn clock_gettime(call: &mut Call<'_, '_>) -> CallResult {
    let [id, buffer, ..] = call.args;
    let clock = Clock::new(call, id)?;
    let now = clock.now(call);
    call.user().write_words(buffer, &now)?;
    if matches!(clock, Clock::Cpu(_)) && call.process.timers.has_cpu_timers() {
        // A program that reads the time must see the signals of timers that have expired by then.
        call.process.fire_timers(call.machine, clock::now_ns()).map_err(Halt::End)?;
    }
    Ok(0)
}

/// `clock_getres(2)`.
pub(crate) fn clock_getres(call: &mut Call<'_, '_>) -> CallResult {
    let [id, buffer, ..] = call.args;
    let resolution = match Clock::new(call, id)? {
        Clock::Host(id) => words(rustix::time::clock_getres(id)),
        Clock::Cpu(_) => [0, 1],
    };
    if buffer != 0 {
        call.user().write_words(buffer, &resolution)?;
    }
    Ok(0)
}

/// `gettimeofday(2)`.
pub(crate) fn gettimeofday(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, zone, ..] = call.args;
    let [seconds, nanoseconds] = words(rustix::time::clock_gettime(ClockId::Realtime));
    if buffer != 0 {
        call.user().write_words(buffer, &[seconds, nanoseconds / 1000])?;
    }
    if zone != 0 {
        // UTC, without daylight saving time.
        call.user().write(zone, &[0; 8])?;
    }
    Ok(0)
}

/// `time(2)`.
pub(crate) fn time(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, ..] = call.args;
    let [seconds, _] = words(rustix::time::clock_gettime(ClockId::Realtime));
    if buffer != 0 {
        call.user().write_words(buffer, &[seconds])?;
    }
    Ok(seconds)
}

/// `times(2)`.
pub(crate) fn times(call: &mut Call<'_, '_>) -> CallResult {
    let [buffer, ..] = call.args;
    let ticks = |time: Duration| {
        let part = u64::from(time.subsec_millis()).saturating_mul(CLOCK_TICKS) / 1000;
        time.as_secs().saturating_mul(CLOCK_TICKS).saturating_add(part)
    };
    let used = ticks(Duration::from_nanos(call.process.cpu_ns()));
    if buffer != 0 {
        call.user().write_words(buffer, &[used, 0, 0, 0])?;
    }
    let [seconds, nanoseconds] = suspended_clock(call, ClockId::Monotonic);
    Ok(ticks(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds))))
}

/// `nanosleep(2)`.
pub(crate) fn nanosleep(call: &mut Call<'_, '_>) -> CallResult {
    let [duration, ..] = call.args;
    sleep(call, |call| Ok(clock::now_ns().saturating_add(read_duration(call, duration)?)))
}

/// `clock_nanosleep(2)`.
pub(crate) fn clock_nanosleep(call: &mut Call<'_, '_>) -> CallResult {
    let [id, flags, time, ..] = call.args;
    let absolute = int(flags) & libc::TIMER_ABSTIME != 0;
    sleep(call, |call| {
        let clock = Clock::new(call, id)?;
        let time = read_duration(call, time)?;
        Ok(match clock {
            Clock::Host(ClockId::Realtime | ClockId::RealtimeCoarse) if absolute => clock::from_unix_ns(time),
            Clock::Host(ClockId::Monotonic) if absolute => call.process.to_host_ns(time),
            Clock::Host(ClockId::Boottime) if absolute => time,
            Clock::Host(ClockId::Realtime | ClockId::Monotonic | ClockId::Boottime) => {
                clock::now_ns().saturating_add(time)
            }
            Clock::Host(_) => return Err(Errno::EOPNOTSUPP.into()),
            // No CPU time passes while all threads sleep.
            Clock::Cpu(_) => return Err(Errno::EINVAL.into()),
        })
    })
}

fn sleep(call: &mut Call<'_, '_>, until: impl FnOnce(&mut Call<'_, '_>) -> Result<u64, Halt>) -> CallResult {
    let until_ns = call.until(|call| until(call).map(Some))?;
    if is_over(until_ns) { Ok(0) } else { Err(Wait { call: "sleep", until_ns, look_ns: None }.into()) }
}

/// Reads a `timespec` in nanoseconds; refuses invalid durations.
pub(crate) fn read_duration(call: &mut Call<'_, '_>, address: u64) -> Result<u64, Halt> {
    let [seconds, nanoseconds] = call.user().read_words(address)?;
    if seconds.cast_signed() < 0 || nanoseconds >= 1_000_000_000 {
        return Err(Errno::EINVAL.into());
    }
    Ok(clock::total_ns(seconds, nanoseconds))
}
