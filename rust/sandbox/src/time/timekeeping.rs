// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the host's clocks follow its time-stamp counter, from which programs compute the time without an exit.
//!
//! From time to time, a thread that serves a request reads all clocks together with the counter, compares them with
//! readings of one to two seconds ago, and publishes a [`ClockLine`]: the clocks' values, and their rates. Every
//! request copies the newest line into its machine, so an error of a rate accumulates only between two readings, or
//! during one leg.
//!
//! # Invariants
//!
//! * No thread waits: of two threads that would read the clocks at the same time, one leaves it to the other, and a
//!   reader of the published line never waits for a writer.
//! * Rates are 0, so that programs make system calls, where the kernel does not keep its own time by the counter, and
//!   while readings contradict each other.

use std::arch::x86_64::__cpuid;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use mayfly_machine::{ClockLine, read_tsc};

use crate::time::host_clock;
use crate::time::hot_state::HOT;

/// Rates are computed from readings this far apart once the process is old enough, and at most twice as far apart
/// unless it is idle.
const BASELINE_NS: u64 = 1_000_000_000;
/// The first rate is computed over this time; it is exact to some millionths.
const FIRST_BASELINE_NS: u64 = 2_000_000;
/// How much a clock and the counter may differ between two readings: 1/512 of the time in between (Linux slews by less
/// than 1/1000 on an administrator's behalf), and as much as an interruption of a reading may take.
const DRIFT_SHIFT: u32 = 9;
const DOUBT_NS: u64 = 20_000;

/// All clocks when the counter stood at `tsc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    tsc: u64,
    monotonic_ns: u64,
    realtime_ns: u64,
    boottime_ns: u64,
    raw_ns: u64,
}

impl Reading {
    /// The best of three readings. `rate` is about that of the clocks: it converts the few cycles between two of them.
    fn take(rate: u32) -> Self {
        let mut best = Self::take_one(rate);
        for _ in 0..2 {
            let next = Self::take_one(rate);
            if next.1 < best.1 {
                best = next;
            }
        }
        best.0
    }

    /// One reading, and how many cycles it took: the fewer, the less can have interrupted it.
    fn take_one(rate: u32) -> (Self, u64) {
        const CLOCKS: [libc::clockid_t; 4] =
            [libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME];
        let mut readings = [0; 4];
        let first = read_tsc();
        let mut before = first;
        let mut tsc = None;
        for (reading, clock) in readings.iter_mut().zip(CLOCKS) {
            let now = host_clock::now_ns(clock);
            let after = read_tsc();
            // The clock is read at about the middle of the call.
            let middle = before.wrapping_add(after.wrapping_sub(before) / 2);
            let since = middle.wrapping_sub(*tsc.get_or_insert(middle));
            *reading = now.wrapping_sub(nanoseconds(since, rate));
            before = after;
        }
        let [monotonic_ns, raw_ns, realtime_ns, boottime_ns] = readings;
        let tsc = tsc.unwrap_or(first);
        (Self { tsc, monotonic_ns, realtime_ns, boottime_ns, raw_ns }, before.wrapping_sub(first))
    }

    fn line(&self, rate: u32, raw_rate: u32) -> ClockLine {
        let &Self { tsc, monotonic_ns, realtime_ns, boottime_ns, raw_ns } = self;
        ClockLine { tsc, monotonic_ns, realtime_ns, boottime_ns, raw_ns, rate, raw_rate }
    }
}

fn nanoseconds(cycles: u64, rate: u32) -> u64 {
    ((u128::from(cycles) * u128::from(rate)) >> ClockLine::SHIFT) as u64
}

/// The rate of a clock that advanced by `ns` in `cycles`; 0 if programs cannot use it.
fn rate(ns: u64, cycles: u64) -> u32 {
    if cycles == 0 {
        return 0;
    }
    u32::try_from((u128::from(ns) << ClockLine::SHIFT) / u128::from(cycles)).unwrap_or(0)
}

/// The rate that is assumed before one is known: that of a 3 GHz counter.
const GUESS: u32 = (1 << ClockLine::SHIFT) / 3;

/// What is known of the rates.
#[derive(Debug)]
struct Rates {
    /// The reading that rates are computed from.
    older: Reading,
    /// The reading that will replace `older`.
    newer: Reading,
    last: Reading,
    /// The rate of the clocks that Linux adjusts, and that of the raw one.
    rates: Option<(u32, u32)>,
}

impl Rates {
    fn new(reading: Reading) -> Self {
        Self { older: reading, newer: reading, last: reading, rates: None }
    }

    /// Learns from a later reading; a contradiction discards all that was known.
    fn learn(&mut self, now: Reading) {
        let cycles = now.tsc.wrapping_sub(self.last.tsc);
        let passed = now.monotonic_ns.wrapping_sub(self.last.monotonic_ns);
        let goes_on = now.tsc > self.last.tsc && now.monotonic_ns > self.last.monotonic_ns;
        let fits = |(rate, _)| nanoseconds(cycles, rate).abs_diff(passed) <= (passed >> DRIFT_SHIFT) + DOUBT_NS;
        if !goes_on || !self.rates.is_none_or(fits) {
            *self = Self::new(now);
            return;
        }
        self.last = now;
        let baseline = now.monotonic_ns.wrapping_sub(self.older.monotonic_ns);
        if baseline >= FIRST_BASELINE_NS {
            let cycles = now.tsc.wrapping_sub(self.older.tsc);
            let both = (rate(baseline, cycles), rate(now.raw_ns.wrapping_sub(self.older.raw_ns), cycles));
            self.rates = (both.0 > 0 && both.1 > 0).then_some(both);
        }
        if now.monotonic_ns.wrapping_sub(self.newer.monotonic_ns) >= BASELINE_NS {
            self.older = self.newer;
            self.newer = now;
        }
    }

    fn line(&self) -> ClockLine {
        let (rate, raw_rate) = self.rates.unwrap_or_default();
        self.last.line(rate, raw_rate)
    }
}

#[derive(Debug)]
struct Timekeeper {
    /// Whether the kernel keeps its time by the counter.
    trusted: bool,
    rates: Option<Rates>,
}

static TIMEKEEPER: Mutex<Timekeeper> = Mutex::new(Timekeeper { trusted: false, rates: None });

/// Reads the clocks until there is a first rate: some milliseconds, once in a process.
pub(crate) fn begin() {
    let mut timekeeper = TIMEKEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    if timekeeper.rates.is_none() {
        timekeeper.look();
        std::thread::sleep(Duration::from_nanos(FIRST_BASELINE_NS));
        timekeeper.look();
    }
}

/// A reading of the clocks is used for this long.
const LOOK_MAX_AGE_NS: u64 = 40_000_000;

/// Reads the clocks if no thread has for a while.
#[inline]
pub(crate) fn look_if_due(monotonic_ns: u64) {
    if monotonic_ns.saturating_sub(HOT.looked_up_ns.load(Ordering::Acquire)) >= LOOK_MAX_AGE_NS {
        look();
    }
}

/// Reads the clocks and publishes what they say.
#[cold]
fn look() {
    match TIMEKEEPER.try_lock() {
        Ok(mut timekeeper) => timekeeper.look(),
        Err(TryLockError::Poisoned(timekeeper)) => timekeeper.into_inner().look(),
        // Another thread is reading them. What was published before is good enough, if there is anything.
        Err(TryLockError::WouldBlock) if HOT.looked_up_ns.load(Ordering::Acquire) != 0 => {}
        Err(TryLockError::WouldBlock) => {
            drop::<MutexGuard<'_, _>>(TIMEKEEPER.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

impl Timekeeper {
    fn look(&mut self) {
        let rate = self.rates.as_ref().and_then(|rates| rates.rates).map_or(GUESS, |(rate, _)| rate);
        let now = Reading::take(rate);
        let line = if let Some(rates) = &mut self.rates {
            rates.learn(now);
            rates.line()
        } else {
            self.trusted = kernel_trusts_counter();
            self.rates.insert(Rates::new(now)).line()
        };
        PUBLISHED.publish(&if self.trusted { line } else { ClockLine { rate: 0, raw_rate: 0, ..line } });
        HOT.line_tsc.store(now.tsc, Ordering::Relaxed);
        HOT.unix_offset_ns.store(now.realtime_ns.wrapping_sub(now.monotonic_ns), Ordering::Relaxed);
        // A thread that sees this time sees that offset, or a newer one.
        HOT.looked_up_ns.store(now.monotonic_ns, Ordering::Release);
    }
}

/// Whether the kernel keeps its own time by the counter. Where the kernel does not say, the processor's "invariant TSC"
/// bit decides (CPUID 8000_0007 EDX bit 8).
fn kernel_trusts_counter() -> bool {
    const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    // The clock sources of Linux that read the counter; for the latter two, a hypervisor says how.
    const BY_COUNTER: [&str; 3] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];
    match mayfly_files::kernel_text(SOURCE) {
        Ok(source) => BY_COUNTER.contains(&source.trim()),
        Err(_) => __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0,
    }
}

/// The newest line, in one of two buffers. The writer fills the other buffer, then raises the count: a reader meets a
/// buffer that is being written only if it began two lines ago.
struct Published {
    /// Number of lines published; the newest is at `count % 2`.
    count: AtomicU64,
    places: [[AtomicU64; 6]; 2],
}

static PUBLISHED: Published =
    Published { count: AtomicU64::new(0), places: [const { [const { AtomicU64::new(0) }; 6] }; 2] };

impl Published {
    /// Only one thread at a time may call this.
    fn publish(&self, line: &ClockLine) {
        let count = self.count.load(Ordering::Relaxed).wrapping_add(1);
        // A thread that sees a word of this line sees at least the count of the last.
        fence(Ordering::Release);
        for (place, word) in self.places[(count % 2) as usize].iter().zip(line.words()) {
            place.store(word, Ordering::Relaxed);
        }
        self.count.store(count, Ordering::Release);
    }

    fn get(&self) -> Option<ClockLine> {
        let count = self.count.load(Ordering::Acquire);
        let words = self.places[(count % 2) as usize].each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (self.count.load(Ordering::Relaxed) == count).then(|| ClockLine::from_words(words))
    }
}

/// The newest line. `None` in the rare case that another thread published meanwhile: the next request gets it.
pub(crate) fn line() -> Option<ClockLine> {
    PUBLISHED.get()
}

/// The least time that passes outside of a program between an exit and its return, in nanoseconds.
const OUTSIDE_NS: u64 = 250;
/// A larger step backwards is the host's own, not an error of ours.
const STEP_NS: u64 = 1_000_000;

/// `new`, for a program that has used `old` and is in the middle of its run: it never sees a time again. Rates of a
/// process's first second are exact to some millionths only, so a program that then runs for long without an exit gets
/// ahead. Steps that are too small to see bring it back.
pub(crate) fn continued(old: &ClockLine, new: &ClockLine, tsc: u64) -> ClockLine {
    let passed = |line: &ClockLine, rate| nanoseconds(tsc.saturating_sub(line.tsc), rate);
    let ahead = |old_ns: u64, new_ns: u64| match old_ns.saturating_sub(new_ns) {
        ahead @ OUTSIDE_NS..STEP_NS => ahead - OUTSIDE_NS,
        _ => 0,
    };
    let mut line = *new;
    if old.rate != 0 && new.rate != 0 {
        let then = |line: &ClockLine, ns: u64| ns.wrapping_add(passed(line, line.rate));
        let more = ahead(then(old, old.monotonic_ns), then(new, new.monotonic_ns));
        line.monotonic_ns = new.monotonic_ns.wrapping_add(more);
        line.realtime_ns = new.realtime_ns.wrapping_add(more);
        line.boottime_ns = new.boottime_ns.wrapping_add(more);
        let then = |line: &ClockLine| line.raw_ns.wrapping_add(passed(line, line.raw_rate));
        line.raw_ns = new.raw_ns.wrapping_add(ahead(then(old), then(new)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading of a 2 GHz counter and of exact clocks.
    fn reading(ns: u64) -> Reading {
        Reading { tsc: 1000 + 2 * ns, monotonic_ns: ns, realtime_ns: ns + 70, boottime_ns: ns + 7, raw_ns: ns + 1 }
    }

    #[test]
    fn a_rate_is_nanoseconds_per_cycle() {
        assert_eq!(rate(500, 1000), 1 << 30);
        assert_eq!((rate(1, 0), rate(3000, 1000), rate(0, 5)), (0, 0, 0));
        assert_eq!(nanoseconds(u64::MAX, 1 << 30), u64::MAX / 2);
    }

    #[test]
    fn rates_need_a_baseline_and_follow_the_clocks() {
        let mut rates = Rates::new(reading(0));
        rates.learn(reading(FIRST_BASELINE_NS - 1));
        assert_eq!(rates.rates, None);
        rates.learn(reading(FIRST_BASELINE_NS));
        assert_eq!(rates.rates, Some((1 << 30, 1 << 30)));
        // From here on the clocks but the raw one are slewed by 100 millionths.
        let slewed = |ns: u64| Reading { monotonic_ns: ns + ns / 10_000, ..reading(ns) };
        for step in 1..100 {
            rates.learn(slewed(step * 40_000_000));
        }
        let (adjusted, raw) = rates.rates.unwrap();
        assert_eq!(raw, 1 << 30);
        assert!(adjusted.abs_diff((1 << 30) + (1 << 30) / 10_000) < 5, "{adjusted}");
    }

    #[test]
    fn readings_that_contradict_each_other_stop_the_clocks() {
        let known = || {
            let mut rates = Rates::new(reading(0));
            rates.learn(reading(10_000_000));
            assert!(rates.line().rate != 0);
            rates
        };
        let after = reading(20_000_000);
        for contradiction in [
            Reading { tsc: 5, ..after },
            Reading { tsc: after.tsc + 1_000_000, ..after },
            Reading { monotonic_ns: 1, ..after },
            Reading { monotonic_ns: after.monotonic_ns + 1_000_000, ..after },
        ] {
            let mut rates = known();
            rates.learn(contradiction);
            assert_eq!(rates.line(), contradiction.line(0, 0));
        }
        let mut rates = known();
        rates.learn(after);
        assert_eq!(rates.line(), after.line(1 << 30, 1 << 30));
    }

    #[test]
    fn a_program_that_got_ahead_never_sees_a_time_again() {
        let new = reading(1_000_000_000).line(1 << 30, 1 << 30);
        let now = new.tsc + 2000;
        // A rate that is 10 millionths too high, for a second.
        let fast = (1 << 30) + (1 << 30) / 100_000;
        let old = reading(0).line(fast, fast);
        let saw = nanoseconds(now - old.tsc, fast);
        let line = continued(&old, &new, now);
        let says = line.monotonic_ns + nanoseconds(now - line.tsc, line.rate);
        assert!(says >= saw - OUTSIDE_NS && says < saw, "{says} after {saw}");
        assert_eq!(line.realtime_ns - new.realtime_ns, line.monotonic_ns - new.monotonic_ns);
        assert!(line.raw_ns > new.raw_ns);
        // A line that lags, or is off by a step of the host's, or has no rates, is simply replaced.
        for old in [
            reading(0).line((1 << 30) - 1000, 1 << 30),
            reading(0).line(fast + (1 << 22), 1 << 30),
            reading(0).line(0, 0),
        ] {
            assert_eq!(continued(&old, &new, now), new);
        }
    }

    #[test]
    fn the_published_line_is_never_two_halves() {
        let published = Published { count: AtomicU64::new(0), places: [const { [const { AtomicU64::new(0) }; 6] }; 2] };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..200_000 {
                    published.publish(&ClockLine::from_words([number; 6]));
                }
            });
            let mut last = 0;
            while last < 199_999 {
                if let Some(line) = published.get() {
                    let words = line.words();
                    assert!(words.iter().all(|word| *word == words[0]) && words[0] >= last, "{words:?}");
                    last = words[0];
                }
            }
        });
    }

    #[test]
    fn the_line_gives_the_hosts_time() {
        begin();
        if !TIMEKEEPER.lock().unwrap().trusted {
            return;
        }
        let mut off = Vec::new();
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(1));
            let now = host_clock::monotonic_ns();
            look_if_due(now);
            let Some(line) = line().filter(|line| line.rate != 0) else { continue };
            let (before, hosts, after) = (read_tsc(), host_clock::monotonic_ns(), read_tsc());
            let at = |tsc: u64| line.monotonic_ns + nanoseconds(tsc - line.tsc, line.rate);
            off.push(hosts.saturating_sub(at(after)).max(at(before).saturating_sub(hosts)));
        }
        off.sort_unstable();
        assert!(off.len() > 100 && off[off.len() / 2] < 1000, "{off:?}");
    }
}
