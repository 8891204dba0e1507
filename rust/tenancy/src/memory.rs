// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of the process: what bounds it, and what makes room as a bound nears.
//!
//! ```text
//!   room under the bound     what happens
//!   ───────────────────────────────────────────────────────────────────────────────────────
//!   below 4 bands            workers that were not used for 10 s are closed
//!   below 3                  ... for 1 s; no program boots, no worker is forked ahead; a tenant that was not called for 10 s makes room
//!   below 2                  ... for 100 ms; no fork for a tenant that holds more than its share
//!   below 1                  ... at all; no fork; a request of a tenant that holds more than its share gets no more pages
//!   none                     no request gets more pages
//! ```
//!
//! A band is a sixteenth of the bound. Machines grow by pages, each of which is entered in the [`Ledger`] before it
//! exists, so they cannot pass the bound between two looks at what there really is. Memory that does not pass the
//! ledger, such as responses on their way to clients, is seen by the next look; the reserve and the bands are for that.
//!
//! One thread looks: seldom while there is much room, often while there is little. Loops close nothing by themselves:
//! when they are asked to, they give their idle workers to the thread that closes them.

mod bounds;
mod cgroup;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mayfly_sandbox::{Account, Allowance, Ledger, PAGE_SIZE, Purpose, heap};
use serde::Serialize;

pub use bounds::Bound;
use bounds::Bounds;

/// Bands of a bound.
const BANDS: u64 = 16;
/// How often the keeper looks: while it makes room, while less than half is left, and otherwise.
const LOOK_SHORT: Duration = Duration::from_millis(20);
const LOOK_NEAR: Duration = Duration::from_millis(100);
const LOOK_FAR: Duration = Duration::from_secs(1);
/// Idle times of workers that are closed, by how many bands are left at most.
const IDLE: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
/// How long a tenant was not called whose program makes room when others only need memory.
const UNCALLED: Duration = Duration::from_secs(10);
/// How long a boot waits for its turn and for room.
const BOOT_WAIT: Duration = Duration::from_millis(1500);
/// While memory is short, the heap gives back what is free so often.
const TRIM: Duration = Duration::from_secs(2);
/// Between two lines of the log about the same.
const LINES: Duration = Duration::from_secs(10);

/// What the keeper asks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relief {
    /// Workers that were not used for so long are to be closed.
    pub(crate) idle: Duration,
    /// Programs are to make room.
    pub(crate) programs: Option<Programs>,
}

/// Whose programs make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Programs {
    /// That of a tenant that was not called for so long.
    Uncalled(Duration),
    /// Another's, too, if it has had its time: a program waits for room to boot.
    OneThatHadItsTime,
}

/// The process's memory; shared by all that need some.
pub(crate) struct Memory {
    ledger: Ledger,
    /// No tenant's: for questions about all.
    any: Account,
    bounds: Bounds,
    /// What makes room; set once there is a server.
    relieve: OnceLock<Box<dyn Fn(Relief) + Send + Sync>>,
    line: Mutex<Line>,
    /// The keeper has looked, or a boot has left the line.
    changed: Condvar,
    is_short: AtomicBool,
    is_closed: AtomicBool,
    shortages: AtomicU64,
    pub(crate) closed_workers: AtomicU64,
    pub(crate) stopped_programs: AtomicU64,
}

/// Boots that wait for room: first come, first served.
#[derive(Debug, Default)]
struct Line {
    /// Their numbers, and pages that they will need.
    boots: VecDeque<(u64, u64)>,
    next: u64,
    /// Pages that boots under way will need, whatever they have taken of them.
    expected: u64,
    looks: u64,
}

/// A boot that may take its memory; over when dropped.
#[derive(Debug)]
pub(crate) struct BootTurn<'a> {
    memory: &'a Memory,
    pages: u64,
}

impl Drop for BootTurn<'_> {
    fn drop(&mut self) {
        let mut line = self.memory.line();
        line.expected = line.expected.saturating_sub(self.pages);
        drop(line);
        self.memory.changed.notify_all();
    }
}

/// What a report has of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryReport {
    /// The bounds: the least room counts.
    pub bounds: Vec<Bound>,
    /// What the process has, in bytes, as far as it knows.
    pub bytes: u64,
    /// Of it, what machines hold.
    pub machine_bytes: u64,
    /// Of that, frozen programs.
    pub image_bytes: u64,
    /// Whether idle workers are made to leave now.
    pub is_short: bool,
    /// How often that has begun.
    pub shortages: u64,
    /// Workers that were closed for it.
    pub closed_workers: u64,
    /// Programs that were stopped for it, to boot again when they are called.
    pub stopped_programs: u64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("ledger", &self.ledger).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Memory {
    /// With a bound of `configured` bytes besides those of the system.
    pub(crate) fn new(configured: Option<u64>) -> Self {
        heap::keep_little();
        let ledger = Ledger::default();
        let memory = Self {
            any: ledger.account(),
            ledger,
            bounds: Bounds::new(configured),
            relieve: OnceLock::new(),
            line: Mutex::default(),
            changed: Condvar::new(),
            is_short: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            shortages: AtomicU64::new(0),
            closed_workers: AtomicU64::new(0),
            stopped_programs: AtomicU64::new(0),
        };
        memory.look();
        memory
    }

    /// An account for a tenant.
    pub(crate) fn account(&self) -> Account {
        self.ledger.account()
    }

    /// Names what makes room. The first one counts.
    pub(crate) fn relieve_by(&self, relieve: impl Fn(Relief) + Send + Sync + 'static) {
        let _ = self.relieve.set(Box::new(relieve));
    }

    /// Keeps the bound until [`Self::close`].
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

    /// Looks, has room made if there is little, and says when to look next.
    fn tick(&self, log: &mut Log) -> Duration {
        let Some(tightest) = self.look() else { return LOOK_FAR };
        let waits = {
            let mut line = self.line();
            line.looks = line.looks.wrapping_add(1);
            line.boots.front().is_some_and(|(_, pages)| !self.fits(&line, *pages))
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
        log.tell(is_short, &tightest);
        if is_short && log.trimmed_at.is_none_or(|then| then.elapsed() >= TRIM) {
            log.trimmed_at = Some(Instant::now());
            heap::give_back();
        }
        if !is_short && !waits {
            return if bands < BANDS / 2 { LOOK_NEAR } else { LOOK_FAR };
        }
        let index = usize::try_from(bands).unwrap_or(usize::MAX).min(if waits { 2 } else { IDLE.len() - 1 });
        let programs = match bands {
            _ if waits => Some(Programs::OneThatHadItsTime),
            0..=2 => Some(Programs::Uncalled(UNCALLED)),
            _ => None,
        };
        if let Some(relieve) = self.relieve.get() {
            relieve(Relief { idle: IDLE.get(index).copied().unwrap_or_default(), programs });
        }
        LOOK_SHORT
    }

    /// Looks at what there is under each bound, and lets machines grow accordingly. Returns the bound with the least
    /// room.
    fn look(&self) -> Option<Bound> {
        let held = self.ledger.held();
        let tightest = self.bounds.look(held).into_iter().min_by_key(Bound::room)?;
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

    /// Waits for the keeper's next look, which may have found room: for threads that may wait.
    pub(crate) fn wait_for_a_look(&self) {
        self.ledger.ring();
        let line = self.line();
        let looks = line.looks;
        // The one under way may have begun before.
        let has_looked =
            |line: &mut Line| line.looks.wrapping_sub(looks) < 2 && !self.is_closed.load(Ordering::Relaxed);
        drop(self.changed.wait_timeout_while(line, 3 * LOOK_SHORT, has_looked));
    }

    /// Waits until a program may boot that will need about `bytes`; an error is the reason why it may not. `may_wait`:
    /// requests wait for it.
    pub(crate) fn boot_turn(&self, bytes: u64, may_wait: bool) -> Result<BootTurn<'_>, String> {
        let pages = bytes / PAGE_SIZE;
        let end = Instant::now() + BOOT_WAIT;
        let mut line = self.line();
        if line.boots.is_empty() && self.fits(&line, pages) {
            return Ok(self.begin_boot(&mut line, pages));
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
        let number = line.next;
        line.next = line.next.wrapping_add(1);
        line.boots.push_back((number, pages));
        self.ledger.ring();
        let result = loop {
            if line.boots.front() == Some(&(number, pages)) && self.fits(&line, pages) {
                break Ok(self.begin_boot(&mut line, pages));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_closed.load(Ordering::Relaxed) {
                break refusal();
            }
            line = self.changed.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        line.boots.retain(|(other, _)| *other != number);
        drop(line);
        self.changed.notify_all();
        result
    }

    /// Whether a boot that needs so many pages fits beside those under way.
    fn fits(&self, line: &Line, pages: u64) -> bool {
        self.any.has_room(pages.saturating_add(line.expected), Purpose::Boot)
    }

    fn begin_boot(&self, line: &mut Line, pages: u64) -> BootTurn<'_> {
        line.expected = line.expected.saturating_add(pages);
        BootTurn { memory: self, pages }
    }

    pub(crate) fn report(&self) -> MemoryReport {
        let held = self.ledger.held();
        MemoryReport {
            bounds: self.bounds.look(held),
            bytes: bounds::process_bytes(held),
            machine_bytes: held.all.saturating_mul(PAGE_SIZE),
            image_bytes: held.images.saturating_mul(PAGE_SIZE),
            is_short: self.is_short.load(Ordering::Relaxed),
            shortages: self.shortages.load(Ordering::Relaxed),
            closed_workers: self.closed_workers.load(Ordering::Relaxed),
            stopped_programs: self.stopped_programs.load(Ordering::Relaxed),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A queue is whole even if a thread panicked while it held the lock.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an operator can do.
pub(crate) const ADVICE: &str = "raise max_memory_mib (or the limit of its cgroup), or lower the tenants' memory_mib and work_set_kib, or max_workers";

/// The line that says that memory is short, and the one that says that it is no more: not for each of many times in a
/// row.
#[derive(Debug, Default)]
struct Log {
    told_at: Option<Instant>,
    has_told: bool,
    /// When the heap gave back what is free.
    trimmed_at: Option<Instant>,
}

impl Log {
    fn tell(&mut self, is_short: bool, bound: &Bound) {
        let is_due = self.told_at.is_none_or(|then| then.elapsed() >= LINES);
        if is_short == self.has_told || !is_due {
            return;
        }
        (self.has_told, self.told_at) = (is_short, Some(Instant::now()));
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
