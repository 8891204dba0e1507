// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks and sleeping.
//!
//! Programs read most clocks in the vDSO and come here for the rest, or where the vDSO does not know the time. Clocks are the host's,
//! which go on between requests and over resets; but while a program stands frozen, its monotonic clocks stand still, as on a machine
//! that is suspended. Clocks of CPU time count from the start of the
//! program: the CPU time of a host thread is nobody's business in a guest.
//!
//! Who sleeps waits, and the other threads run. Where all wait, whoever runs the machine does something else meanwhile.

use std::time::Duration;

use rustix::time::{ClockId, Timespec};

use crate::clock;
use crate::errno::{CallResult, Errno, Halt};
use crate::identity::CLOCK_TICKS;
use crate::table::{Call, is_over};
use crate::threads::Wait;

use super::int;

/// What a clock number means here.
#[derive(Clone, Copy)]
enum Clock {
    Host(ClockId),
    /// CPU time of the process or of its one thread.
    Cpu,
}

impl Clock {
    fn new(id: u64) -> Result<Self, Errno> {
        Ok(Self::Host(match int(id) {
            // TAI runs with UTC until someone tells the kernel of leap seconds.
            libc::CLOCK_REALTIME | libc::CLOCK_TAI => ClockId::Realtime,
            libc::CLOCK_MONOTONIC => ClockId::Monotonic,
            libc::CLOCK_MONOTONIC_RAW => ClockId::MonotonicRaw,
            libc::CLOCK_REALTIME_COARSE => ClockId::RealtimeCoarse,
            libc::CLOCK_MONOTONIC_COARSE => ClockId::MonotonicCoarse,
            libc::CLOCK_BOOTTIME => ClockId::Boottime,
            libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => return Ok(Self::Cpu),
            _ => return Err(Errno::EINVAL),
        }))
    }

    fn now(self, call: &Call<'_, '_>) -> [u64; 2] {
        match self {
            // As in the vDSO, where nothing ticks: one of them is not behind the other.
            Self::Host(ClockId::RealtimeCoarse) => words(rustix::time::clock_gettime(ClockId::Realtime)),
            Self::Host(ClockId::Monotonic | ClockId::MonotonicCoarse) => own(call, ClockId::Monotonic),
            Self::Host(ClockId::MonotonicRaw) => own(call, ClockId::MonotonicRaw),
            Self::Host(id) => words(rustix::time::clock_gettime(id)),
            Self::Cpu => {
                let used = cpu_time(call);
                [used.as_secs(), used.subsec_nanos().into()]
            }
        }
    }
}

/// A clock that stands still while the program is frozen.
fn own(call: &Call<'_, '_>, id: ClockId) -> [u64; 2] {
    let [seconds, nanoseconds] = words(rustix::time::clock_gettime(id));
    clock::timespec(clock::total_ns(seconds, nanoseconds).wrapping_sub(call.process.suspended_ns))
}

/// How long the program has been running, which its CPU time cannot exceed.
pub(super) fn cpu_time(call: &Call<'_, '_>) -> Duration {
    let shared = &call.process.shared;
    shared.ran_before.saturating_add(shared.started.elapsed())
}

fn words(time: Timespec) -> [u64; 2] {
    [time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned()]
}

/// `clock_gettime(2)`.
pub(crate) fn clock_gettime(call: &mut Call<'_, '_>) -> CallResult {
    let [id, buffer, ..] = call.args;
    let now = Clock::new(id)?.now(call);
    call.user().write_words(buffer, &now)?;
    Ok(0)
}

/// `clock_getres(2)`.
pub(crate) fn clock_getres(call: &mut Call<'_, '_>) -> CallResult {
    let [id, buffer, ..] = call.args;
    let resolution = match Clock::new(id)? {
        Clock::Host(id) => words(rustix::time::clock_getres(id)),
        Clock::Cpu => [0, 1],
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
        // Greenwich, no summer time.
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
    let used = ticks(cpu_time(call));
    if buffer != 0 {
        call.user().write_words(buffer, &[used, 0, 0, 0])?;
    }
    let [seconds, nanoseconds] = own(call, ClockId::Monotonic);
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
        let clock = Clock::new(id)?;
        let time = read_duration(call, time)?;
        Ok(match clock {
            Clock::Host(ClockId::Realtime | ClockId::RealtimeCoarse) if absolute => clock::from_unix_ns(time),
            Clock::Host(ClockId::Monotonic) if absolute => call.process.to_host_ns(time),
            Clock::Host(ClockId::Boottime) if absolute => time,
            Clock::Host(ClockId::Realtime | ClockId::Monotonic | ClockId::Boottime) => {
                clock::now_ns().saturating_add(time)
            }
            Clock::Host(_) => return Err(Errno::EOPNOTSUPP.into()),
            // While all threads sleep, no CPU time passes.
            Clock::Cpu => return Err(Errno::EINVAL.into()),
        })
    })
}

fn sleep(call: &mut Call<'_, '_>, until: impl FnOnce(&mut Call<'_, '_>) -> Result<u64, Halt>) -> CallResult {
    let until_ns = call.until(|call| until(call).map(Some))?;
    if is_over(until_ns) { Ok(0) } else { Err(Wait { call: "sleep", until_ns, look_ns: None }.into()) }
}

/// Reads a `timespec` and refuses what is no duration; in nanoseconds.
pub(super) fn read_duration(call: &mut Call<'_, '_>, address: u64) -> Result<u64, Halt> {
    let [seconds, nanoseconds] = call.user().read_words(address)?;
    if seconds.cast_signed() < 0 || nanoseconds >= 1_000_000_000 {
        return Err(Errno::EINVAL.into());
    }
    Ok(clock::total_ns(seconds, nanoseconds))
}
