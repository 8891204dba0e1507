// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of the process: its bounds, and how memory is freed as a bound is approached.
//!
//! ```text
//!   room under the bound     what happens
//!   ───────────────────────────────────────────────────────────────────────────────────────
//!   below 4 bands            workers that were unused for 10 s are closed
//!   below 3                  ... for 1 s; no program boots, no worker is forked ahead;
//!                            a tenant without requests for 10 s is stopped
//!   below 2                  ... for 100 ms; no fork for a tenant that holds more than its share
//!   below 1                  ... at all; no fork;
//!                            a request of a tenant that holds more than its share gets no more pages
//!   none                     no request gets more pages
//! ```
//!
//! A band is a sixteenth of the bound. Machines grow by pages, each of which is entered in the [`Ledger`] before it
//! exists, so they cannot pass the bound between two measurements. Memory that is not in the ledger, such as responses
//! on their way to clients, is seen by the next measurement; the reserve and the bands leave room for it.
//!
//! One thread, the *memory thread*, measures: rarely while there is much room, often while there is little. Loops do
//! not close workers themselves: when asked to, they pass their idle workers to the thread that closes them.

mod bounds;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mayfly_sandbox::{Account, Allowance, Ledger, PAGE_SIZE, Purpose, heap};
use serde::Serialize;

pub use bounds::Bound;
use bounds::Bounds;

/// Number of bands in a bound.
const BANDS: u64 = 16;
/// How often the memory thread measures: while it frees memory, while less than half is left, and otherwise.
const INTERVAL_SHORT: Duration = Duration::from_millis(20);
const INTERVAL_NEAR: Duration = Duration::from_millis(100);
const INTERVAL_FAR: Duration = Duration::from_secs(1);
/// Workers that are idle for longer than this are closed, by the number of whole bands that are left.
const IDLE: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
/// A tenant without requests for this long may be stopped even if no boot waits for memory.
const IDLE_PROGRAM: Duration = Duration::from_secs(10);
/// How long a boot waits for its turn and for memory.
const BOOT_WAIT: Duration = Duration::from_millis(1500);
/// How often the heap returns free memory while memory is short.
const TRIM: Duration = Duration::from_secs(2);
/// Shortest time between two log lines about a change.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the memory thread asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relief {
    /// Workers that have been idle for this long are to be closed.
    pub(crate) idle: Duration,
    /// Which program to stop, if any.
    pub(crate) programs: Option<Programs>,
}

/// Which programs may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Programs {
    /// That of a tenant without requests for this long.
    Idle(Duration),
    /// Also that of a busy tenant, if it has run for its minimum time: another program waits for memory to boot.
    AnyPastMinRunTime,
}

/// The process's memory, shared by all that use it.
pub(crate) struct Memory {
    ledger: Ledger,
    /// An account of no tenant, for queries about the whole process.
    any: Account,
    bounds: Bounds,
    /// The function that frees memory; set once there is a server.
    relieve: OnceLock<Box<dyn Fn(Relief) + Send + Sync>>,
    boot_queue: Mutex<BootQueue>,
    /// Signalled when the memory thread has measured, or a boot has left the queue.
    changed: Condvar,
    is_short: AtomicBool,
    is_closed: AtomicBool,
    shortages: AtomicU64,
    pub(crate) closed_workers: AtomicU64,
    pub(crate) stopped_programs: AtomicU64,
}

/// Boots that wait for memory, served in order of arrival.
#[derive(Debug, Default)]
struct BootQueue {
    /// Their numbers, and the pages that they will need.
    boots: VecDeque<(u64, u64)>,
    next: u64,
    /// Pages that the boots in progress need in total, including those that they have already taken.
    expected: u64,
    /// Measurements so far.
    measurements: u64,
}

/// A boot that may take its memory; ended when dropped.
#[derive(Debug)]
pub(crate) struct BootTurn<'a> {
    memory: &'a Memory,
    pages: u64,
}

impl Drop for BootTurn<'_> {
    fn drop(&mut self) {
        let mut queue = self.memory.boot_queue();
        queue.expected = queue.expected.saturating_sub(self.pages);
        drop(queue);
        self.memory.changed.notify_all();
    }
}

/// The part of a report about memory.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryReport {
    /// All bounds. The one with the least room applies.
    pub bounds: Vec<Bound>,
    /// Memory of the process in bytes, as far as it is known.
    pub bytes: u64,
    /// The part of `bytes` that machines hold.
    pub machine_bytes: u64,
    /// The part of `machine_bytes` that frozen programs hold.
    pub image_bytes: u64,
    /// Whether memory is short, so that idle workers are being closed.
    pub is_short: bool,
    /// How often memory became short.
    pub shortages: u64,
    /// Workers that were closed because memory was short.
    pub closed_workers: u64,
    /// Programs that were stopped because memory was short. They boot again at their next request.
    pub stopped_programs: u64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("ledger", &self.ledger).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Memory {
    /// Bounds memory to `configured` bytes, in addition to the system's bounds.
    pub(crate) fn new(configured: Option<u64>) -> Self {
        heap::keep_little();
        let ledger = Ledger::default();
        let memory = Self {
            any: ledger.account(),
            ledger,
            bounds: Bounds::new(configured),
            relieve: OnceLock::new(),
            boot_queue: Mutex::default(),
            changed: Condvar::new(),
            is_short: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            shortages: AtomicU64::new(0),
            closed_workers: AtomicU64::new(0),
            stopped_programs: AtomicU64::new(0),
        };
        memory.measure();
        memory
    }

    /// Opens an account for a tenant.
    pub(crate) fn account(&self) -> Account {
        self.ledger.account()
    }

    /// Sets the function that frees memory. Only the first call has an effect.
    pub(crate) fn relieve_by(&self, relieve: impl Fn(Relief) + Send + Sync + 'static) {
        let _ = self.relieve.set(Box::new(relieve));
    }

    /// Enforces the bounds until [`Self::close`]. This is the memory thread.
    pub(crate) fn keep(&self) {
        self.ledger.wake_at_alarm(thread::current());
        let mut log = Log::default();
        while !self.is_closed.load(Ordering::Relaxed) {
            let pause = self.tick(&mut log);
            thread::park_timeout(pause);
        }
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.ledger.ring();
        self.changed.notify_all();
    }

    /// Measures, has memory freed if there is little, and returns when to measure next.
    fn tick(&self, log: &mut Log) -> Duration {
        let Some(tightest) = self.measure() else { return INTERVAL_FAR };
        let waits = {
            let mut queue = self.boot_queue();
            queue.measurements = queue.measurements.wrapping_add(1);
            queue.boots.front().is_some_and(|(_, pages)| !self.fits(&queue, *pages))
        };
        self.changed.notify_all();
        let band = tightest.max_bytes / BANDS;
        let bands = u64::try_from(tightest.room()).unwrap_or(0).checked_div(band).unwrap_or(0);
        let is_short = bands < IDLE.len() as u64;
        if is_short && !self.is_short.swap(is_short, Ordering::Relaxed) {
            self.shortages.fetch_add(1, Ordering::Relaxed);
        }
        let was_short = self.is_short.swap(is_short, Ordering::Relaxed);
        if was_short
            && !is_short
            && let Some(relieve) = self.relieve.get()
        {
            relieve(Relief { idle: Duration::MAX, programs: None });
        }
        log.log_change(is_short, &tightest);
        // Pages of files that requests wrote are small blocks, which arenas keep.
        if log.trimmed_at.is_none_or(|then| then.elapsed() >= TRIM) && (is_short || heap::keeps_much()) {
            log.trimmed_at = Some(Instant::now());
            heap::give_back();
        }
        if !is_short && !waits {
            return if bands < BANDS / 2 { INTERVAL_NEAR } else { INTERVAL_FAR };
        }
        let index = usize::try_from(bands).unwrap_or(usize::MAX).min(if waits { 2 } else { IDLE.len() - 1 });
        let programs = match bands {
            _ if waits => Some(Programs::AnyPastMinRunTime),
            0..=2 => Some(Programs::Idle(IDLE_PROGRAM)),
            _ => None,
        };
        if let Some(relieve) = self.relieve.get() {
            relieve(Relief { idle: IDLE.get(index).copied().unwrap_or_default(), programs });
        }
        INTERVAL_SHORT
    }

    /// Measures the memory under each bound, and sets how far machines may grow. Returns the bound with the least room.
    fn measure(&self) -> Option<Bound> {
        let held = self.ledger.held();
        let tightest = self.bounds.measure(held).into_iter().min_by_key(Bound::room)?;
        let room = tightest.room() / i64::try_from(PAGE_SIZE).unwrap_or(i64::MAX);
        let most = held.all.saturating_add_signed(room);
        let room = u64::try_from(room).unwrap_or(0);
        self.ledger.allow(Allowance {
            most,
            band: tightest.max_bytes / BANDS / PAGE_SIZE,
            share: most / self.ledger.owners().max(1),
            alarm: held.all.saturating_add(room / 4),
        });
        Some(tightest)
    }

    /// Waits for the memory thread's next measurement, which may find more room. For threads that may block.
    pub(crate) fn wait_for_measurement(&self) {
        self.ledger.ring();
        let queue = self.boot_queue();
        let before = queue.measurements;
        // The measurement in progress may have started before this call.
        let is_pending = |queue: &mut BootQueue| {
            queue.measurements.wrapping_sub(before) < 2 && !self.is_closed.load(Ordering::Relaxed)
        };
        drop(self.changed.wait_timeout_while(queue, 3 * INTERVAL_SHORT, is_pending));
    }

    /// Waits until a program that needs about `bytes` may boot. `may_wait`: whether to wait at all, because requests
    /// wait for the boot. An error is the reason why it may not boot.
    pub(crate) fn boot_turn(&self, bytes: u64, may_wait: bool) -> Result<BootTurn<'_>, String> {
        let pages = bytes / PAGE_SIZE;
        let end = Instant::now() + BOOT_WAIT;
        let mut queue = self.boot_queue();
        if queue.boots.is_empty() && self.fits(&queue, pages) {
            return Ok(self.begin_boot(&mut queue, pages));
        }
        let refusal = || {
            Err(format!(
                "the server has no memory left to boot the program, which needs about {} MiB: {}",
                bytes >> 20,
                ADVICE
            ))
        };
        if !may_wait {
            return refusal();
        }
        let number = queue.next;
        queue.next = queue.next.wrapping_add(1);
        queue.boots.push_back((number, pages));
        self.ledger.ring();
        let result = loop {
            if queue.boots.front() == Some(&(number, pages)) && self.fits(&queue, pages) {
                break Ok(self.begin_boot(&mut queue, pages));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_closed.load(Ordering::Relaxed) {
                break refusal();
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        queue.boots.retain(|(other, _)| *other != number);
        drop(queue);
        self.changed.notify_all();
        result
    }

    /// Whether a boot that needs this many pages fits in addition to those in progress.
    fn fits(&self, queue: &BootQueue, pages: u64) -> bool {
        self.any.has_room(pages.saturating_add(queue.expected), Purpose::Boot)
    }

    fn begin_boot(&self, queue: &mut BootQueue, pages: u64) -> BootTurn<'_> {
        queue.expected = queue.expected.saturating_add(pages);
        BootTurn { memory: self, pages }
    }

    pub(crate) fn report(&self) -> MemoryReport {
        let held = self.ledger.held();
        MemoryReport {
            bounds: self.bounds.measure(held),
            bytes: bounds::process_bytes(held),
            machine_bytes: held.all.saturating_mul(PAGE_SIZE),
            image_bytes: held.images.saturating_mul(PAGE_SIZE),
            is_short: self.is_short.load(Ordering::Relaxed),
            shortages: self.shortages.load(Ordering::Relaxed),
            closed_workers: self.closed_workers.load(Ordering::Relaxed),
            stopped_programs: self.stopped_programs.load(Ordering::Relaxed),
        }
    }

    fn boot_queue(&self) -> MutexGuard<'_, BootQueue> {
        // The queue is consistent even if a thread panicked while it held the lock.
        self.boot_queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Advice for the operator.
pub(crate) const ADVICE: &str = "raise max_memory_mib (or the limit of its cgroup), or lower the tenants' memory_mib and work_set_kib, or max_workers";

/// Logs that memory became short, and that it no longer is. The lines are rate-limited.
#[derive(Debug, Default)]
struct Log {
    logged_at: Option<Instant>,
    /// The state that was logged last.
    logged_short: bool,
    /// When the heap last returned free memory.
    trimmed_at: Option<Instant>,
}

impl Log {
    fn log_change(&mut self, is_short: bool, bound: &Bound) {
        let is_due = self.logged_at.is_none_or(|then| then.elapsed() >= LOG_INTERVAL);
        if is_short == self.logged_short || !is_due {
            return;
        }
        (self.logged_short, self.logged_at) = (is_short, Some(Instant::now()));
        let path = bound.path.as_deref().unwrap_or(std::path::Path::new("")).display();
        let (of, used_mib, max_mib) = (bound.of, bound.bytes >> 20, bound.max_bytes >> 20);
        if is_short {
            tracing::warn!(
                target: "mayfly::server", of, %path, used_mib, max_mib,
                "memory is short: idle workers are closed, and some requests may get 503 (server-memory): {ADVICE}"
            );
        } else {
            tracing::info!(target: "mayfly::server", of, %path, used_mib, max_mib, "memory is no longer short");
        }
    }
}
