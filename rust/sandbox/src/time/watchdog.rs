// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watchdog: one thread of the process that ends legs whose time is over.
//!
//! A *leg* is the part of a request that runs without a pause on one thread: from its start or resumption until it is
//! answered or paused. Each thread that runs legs has a slot, in which it says when its present leg must end: a few
//! stores in one cache line, no system call. The watchdog looks at the slots, sleeps until the first leg is due, and
//! kicks the thread of one that is late, by a signal whose handler stops the machine that the thread runs. That ends a
//! run that is in progress, and one that is about to start, so no interleaving can lose a kick. The watchdog
//! repeats it anyway until the leg is over. The thread that runs the leg then asks [`RunningLeg::verdict`].
//!
//! ```text
//! thread      slot.leg = L          looks_at = ?   earlier than L is due: no call. Later: wake the watchdog.
//! watchdog    looks_at = T          slot.leg = ?   due before T: sleep less.
//! ```
//!
//! All four accesses are sequentially consistent: one of the two threads sees the other's store, so the watchdog never
//! oversleeps a leg. While legs come and go, the watchdog looks again after the shortest slice seen, so that no thread
//! has to wake it; after [`IDLE_AFTER_NS`] without a leg it sleeps until a thread wakes it.
//!
//! The limit on CPU time counts by the thread's clock, which a run cannot read without a system call. So the watchdog
//! reads it, at every look. When it first sees a leg, the clock at its last look and the leg's start bound what the leg
//! has used before; from there on the watchdog knows exactly. So no tenant loses a request because a thread was starved
//! or the host paused. The same holds for slices, up to [`SLICE_PATIENCE`] times their length: while other threads had
//! the CPU, the program did not block its own thread, and moving a request of microseconds to another thread would make
//! it wait again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use mayfly_engine::Kicker;

use crate::time::host_clock;
use crate::time::hot_state::HOT;

/// The longest time between two looks while legs come and go.
const TICK_NS: u64 = 10_000_000;
/// The shortest: a tenant's slice, however short, must not make the watchdog spin.
const TICK_MIN_NS: u64 = 100_000;
/// A leg ends after this many slices, however little of the CPU its thread got. The number is large: taking its request
/// away does not help a thread that other threads keep from the CPU, and on a full machine the request would only queue
/// behind those that really used their slices.
const SLICE_PATIENCE: u64 = 100;
/// A leg that is late is kicked again after this time. The time is long: no kick is lost, and kicks to a thread that
/// waits for the CPU pile up.
const AGAIN_NS: u64 = 10_000_000;
/// After this time without a leg, the watchdog sleeps until one starts.
const IDLE_AFTER_NS: u64 = 100_000_000;
/// No end.
pub(crate) const NEVER: u64 = u64::MAX;

/// When a leg began and when it must end, by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leg {
    /// Its start, which tells it from all other legs of its thread.
    pub(crate) began_ns: u64,
    /// End of its slice.
    pub(crate) slice_end_ns: u64,
    /// End of the request's time.
    pub(crate) wall_end_ns: u64,
    /// When its CPU time is used up if the thread runs without interruption.
    pub(crate) cpu_end_ns: u64,
    /// The clock of the process in which the program runs, if that is not the thread's.
    pub(crate) processor_clock: Option<libc::clockid_t>,
}

impl Leg {
    /// The earliest time at which it may have to end.
    #[inline]
    fn due_ns(&self) -> u64 {
        self.slice_end_ns.min(self.wall_end_ns).min(self.cpu_end_ns)
    }

    /// When it has to end, or the watchdog has to look at it again, if it has used `used_ns` of CPU time by `now` and
    /// its CPU limit is not reached.
    fn due_after(&self, now: u64, used_ns: u64) -> u64 {
        let after = |missing_ns: u64| now.saturating_add(missing_ns.max(TICK_MIN_NS));
        let slice_ns = self.slice_end_ns.saturating_sub(self.began_ns);
        let mut slice_end_ns = self.slice_end_ns;
        // The clocks agree to some microseconds; an eighth of a slice is not worth another look.
        if now >= slice_end_ns && used_ns < slice_ns - slice_ns / 8 {
            let last_ns = self.began_ns.saturating_add(slice_ns.saturating_mul(SLICE_PATIENCE));
            slice_end_ns = after(slice_ns - used_ns).min(last_ns);
        }
        let mut cpu_end_ns = self.cpu_end_ns;
        if now >= cpu_end_ns {
            cpu_end_ns = after(cpu_end_ns.saturating_sub(self.began_ns).saturating_sub(used_ns));
        }
        slice_end_ns.min(cpu_end_ns).min(self.wall_end_ns)
    }
}

/// What happens to a leg that was kicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The kick was not for it.
    GoOn,
    /// Its slice is over.
    Slice,
    /// The request's CPU time is used up.
    Cpu,
    /// The request's time is over.
    Wall,
}

/// What one thread shares with the watchdog; one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// Start of the present leg, or of the last one together with [`OVER`]. The ends below are that leg's.
    leg: AtomicU64,
    slice_end_ns: AtomicU64,
    wall_end_ns: AtomicU64,
    cpu_end_ns: AtomicU64,
    /// See [`Leg::processor_clock`]; [`NO_CLOCK`] if there is none.
    processor_clock: AtomicI32,
    /// The leg that was found to have used up its CPU time.
    spent: AtomicU64,
    /// The kernel's number for the thread.
    thread: i32,
}

/// No process's CPU clock has this number: it is that of CLOCK_REALTIME.
const NO_CLOCK: libc::clockid_t = 0;
/// Set in [`Slot::leg`] once the leg is over; the clock takes 292 years to get there.
const OVER: u64 = 1 << 63;

/// What a look at a slot finds.
enum Seen {
    Nothing,
    Leg(Leg),
    /// The thread is entering a leg at this moment.
    Changing,
}

impl Slot {
    fn new(thread: i32) -> Self {
        let never = || AtomicU64::new(NEVER);
        Self {
            leg: AtomicU64::new(OVER),
            slice_end_ns: never(),
            wall_end_ns: never(),
            cpu_end_ns: never(),
            processor_clock: AtomicI32::new(NO_CLOCK),
            spent: AtomicU64::new(0),
            thread,
        }
    }

    #[inline]
    fn enter(&self, leg: &Leg) {
        // The watchdog must not see these ends together with the last leg, which `OVER` has ended.
        fence(Ordering::Release);
        self.slice_end_ns.store(leg.slice_end_ns, Ordering::Relaxed);
        self.wall_end_ns.store(leg.wall_end_ns, Ordering::Relaxed);
        self.cpu_end_ns.store(leg.cpu_end_ns, Ordering::Relaxed);
        self.processor_clock.store(leg.processor_clock.unwrap_or(NO_CLOCK), Ordering::Relaxed);
        self.leg.store(leg.began_ns, Ordering::SeqCst);
    }

    fn look(&self) -> Seen {
        let began_ns = self.leg.load(Ordering::SeqCst);
        if began_ns & OVER != 0 {
            return Seen::Nothing;
        }
        let leg = Leg {
            began_ns,
            slice_end_ns: self.slice_end_ns.load(Ordering::Relaxed),
            wall_end_ns: self.wall_end_ns.load(Ordering::Relaxed),
            cpu_end_ns: self.cpu_end_ns.load(Ordering::Relaxed),
            processor_clock: Some(self.processor_clock.load(Ordering::Relaxed)).filter(|clock| *clock != NO_CLOCK),
        };
        fence(Ordering::Acquire);
        if self.leg.load(Ordering::Relaxed) == began_ns { Seen::Leg(leg) } else { Seen::Changing }
    }
}

/// A slot, and what the watchdog knows of the leg that it last saw there.
#[derive(Debug)]
struct Known {
    slot: Arc<Slot>,
    began_ns: u64,
    /// A lower bound of the thread's CPU clock when the leg began.
    cpu_at_start_ns: u64,
    /// The thread's CPU clock, and its process's, at the last look.
    cpu_ns: u64,
    /// That process's clock.
    clock: Option<libc::clockid_t>,
}

impl Known {
    /// Looks at the slot, kicks a leg that is late, and returns when to look again.
    fn look(&mut self, now: u64, rhythm: &mut Rhythm) -> u64 {
        let last = self.slot.leg.load(Ordering::Relaxed) & !OVER;
        if last != self.began_ns {
            rhythm.active_ns = now;
        }
        let leg = match self.slot.look() {
            Seen::Leg(leg) => leg,
            Seen::Changing => return now,
            Seen::Nothing => {
                // Legs may have come and gone since the last look.
                if last != self.began_ns {
                    self.began_ns = last;
                    (self.cpu_ns, self.clock) = (host_clock::thread_cpu_ns(self.slot.thread), None);
                }
                return NEVER;
            }
        };
        rhythm.sees(now, &leg);
        let cpu_ns = self.cpu_now_ns(leg.processor_clock);
        let clock_before = std::mem::replace(&mut self.clock, leg.processor_clock);
        let mut cpu_before_ns = std::mem::replace(&mut self.cpu_ns, cpu_ns);
        if clock_before != self.clock {
            cpu_before_ns = 0;
        }
        if self.began_ns != leg.began_ns {
            self.began_ns = leg.began_ns;
            self.cpu_at_start_ns = cpu_ns.saturating_sub(now.saturating_sub(leg.began_ns)).max(cpu_before_ns);
        }
        let used_ns = cpu_ns.saturating_sub(self.cpu_at_start_ns);
        if now >= leg.cpu_end_ns && used_ns >= leg.cpu_end_ns.saturating_sub(leg.began_ns) {
            self.slot.spent.store(leg.began_ns, Ordering::SeqCst);
        } else {
            let due_ns = leg.due_after(now, used_ns);
            if now < due_ns {
                return due_ns;
            }
        }
        kick(self.slot.thread);
        now.saturating_add(AGAIN_NS)
    }

    /// CPU time of the thread, and of the process in which it runs a program.
    fn cpu_now_ns(&self, clock: Option<libc::clockid_t>) -> u64 {
        host_clock::thread_cpu_ns(self.slot.thread).wrapping_add(clock.map_or(0, host_clock::now_ns))
    }

    /// When a leg is due that has started since [`Known::look`].
    fn due_if_new(&self, now: u64) -> u64 {
        match self.slot.look() {
            Seen::Leg(leg) if leg.began_ns != self.began_ns => leg.due_ns(),
            Seen::Changing => now,
            Seen::Leg(_) | Seen::Nothing => NEVER,
        }
    }
}

/// How often the watchdog looks.
#[derive(Debug)]
struct Rhythm {
    /// The shortest slice seen since the last long sleep.
    tick_ns: u64,
    /// When a leg was last seen.
    active_ns: u64,
}

impl Rhythm {
    fn sees(&mut self, now: u64, leg: &Leg) {
        self.active_ns = now;
        let slice = leg.slice_end_ns.saturating_sub(leg.began_ns);
        self.tick_ns = self.tick_ns.min(slice.max(TICK_MIN_NS));
    }

    /// When to look again, if the first leg is due at `due`.
    fn next(&mut self, now: u64, due: u64) -> u64 {
        if due == NEVER && now.saturating_sub(self.active_ns) >= IDLE_AFTER_NS {
            self.tick_ns = TICK_NS;
            return NEVER;
        }
        due.min(now.saturating_add(self.tick_ns))
    }
}

/// What the watchdog shares with all threads.
struct Watchdog {
    /// The threads that have run a leg and have not ended.
    known: Mutex<Vec<Known>>,
    thread: OnceLock<Thread>,
}

static WATCHDOG: Watchdog = Watchdog { known: Mutex::new(Vec::new()), thread: OnceLock::new() };

impl Watchdog {
    /// No code panics while it holds the lock, so a poisoned lock is safe to use.
    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        set_timer_slack();
        let mut rhythm = Rhythm { tick_ns: TICK_NS, active_ns: 0 };
        loop {
            HOT.looks_at_ns.store(0, Ordering::SeqCst);
            let next = self.look(&mut rhythm);
            let now = host_clock::monotonic_ns();
            if next == NEVER {
                std::thread::park();
            } else if next > now {
                std::thread::park_timeout(Duration::from_nanos(next - now));
            }
        }
    }

    /// Looks at all slots, publishes when it looks next, and returns that time.
    fn look(&self, rhythm: &mut Rhythm) -> u64 {
        let mut known = self.known();
        let now = host_clock::monotonic_ns();
        let due = known.iter_mut().map(|known| known.look(now, rhythm)).min().unwrap_or(NEVER);
        let next = rhythm.next(now, due);
        HOT.looks_at_ns.store(next, Ordering::SeqCst);
        // A thread that has entered a leg meanwhile has either seen that time, or is seen here.
        known.iter().map(|known| known.due_if_new(now)).fold(next, u64::min)
    }

    #[cold]
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The kernel may join wake-ups that are this close, 50 us by default; slices should end on time.
fn set_timer_slack() {
    // SAFETY: plain system call on the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
}

/// Interrupts a thread that has a slot. The caller holds the lock under which an ending thread gives its slot up, so
/// the thread exists.
fn kick(thread: i32) {
    // SAFETY: plain system call; the signal has a handler.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
}

fn signal() -> i32 {
    libc::SIGRTMIN() + 7
}

thread_local! {
    /// Stops the machine that this thread runs; null while it runs none. It has no destructor, so the handler may use
    /// it.
    static RUNNING: AtomicPtr<Kicker> = const { AtomicPtr::new(std::ptr::null_mut()) };
    /// This thread's slot, made when it is first needed.
    static SLOT: Registered = Registered::new();
}

/// The signal's handler: async-signal-safe, since all it does is a load and a store.
extern "C" fn stop_running(_: i32) {
    RUNNING.with(|running| {
        let kicker = running.load(Ordering::Relaxed);
        if !kicker.is_null() {
            // SAFETY: the code that stored the pointer, on this very thread, removes it before the kicker or its
            // machine is dropped.
            unsafe { (*kicker).set() };
        }
    });
}

/// Makes a write beyond `RLIMIT_FSIZE` fail with `EFBIG`. By default the signal ends the process; a handler that the
/// application has installed stays.
pub(crate) fn survive_file_size_limit() {
    // SAFETY: all-zero is a valid sigaction, and that of SIG_DFL.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the call only reads the present action, into valid memory.
    let known = unsafe { libc::sigaction(libc::SIGXFSZ, std::ptr::null(), &raw mut action) } == 0;
    if known && action.sa_sigaction == libc::SIG_DFL {
        action.sa_sigaction = libc::SIG_IGN;
        // SAFETY: `action` is initialised, and no handler runs.
        unsafe { libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut()) };
    }
}

/// Why the watchdog did not start. No request can be served without it.
#[derive(Debug, thiserror::Error)]
#[error("the watchdog's {what}: {source}")]
pub struct WatchdogError {
    what: &'static str,
    source: io::Error,
}

/// Whether the handler interrupts system calls.
static INTERRUPTS: AtomicBool = AtomicBool::new(false);

/// From here on the handler interrupts the system calls of threads, as some hosts need. To be called before the first
/// leg.
pub(crate) fn interrupt_calls() {
    INTERRUPTS.store(true, Ordering::Relaxed);
}

/// Starts the thread and installs the signal's handler, once for the process. No leg can be watched before.
pub(crate) fn start() -> Result<(), WatchdogError> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if *started {
        return Ok(());
    }
    // SAFETY: all-zero is a valid sigaction: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = stop_running as *const () as usize;
    // Other system calls of the thread are made again; KVM_RUN never is, and a stub is stopped by the handler.
    action.sa_flags = if INTERRUPTS.load(Ordering::Relaxed) { 0 } else { libc::SA_RESTART };
    // SAFETY: `action` is initialised, and the handler is async-signal-safe.
    if unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(WatchdogError { what: "signal handler", source: io::Error::last_os_error() });
    }
    let thread = std::thread::Builder::new().name("mayfly-watchdog".into()).spawn(|| WATCHDOG.watch());
    let thread = thread.map_err(|source| WatchdogError { what: "thread", source })?;
    let first = WATCHDOG.thread.set(thread.thread().clone()).is_ok();
    debug_assert!(first, "the lock is held");
    *started = true;
    Ok(())
}

/// A thread's slot, registered with the watchdog as long as the thread lives.
struct Registered(Arc<Slot>);

impl Registered {
    fn new() -> Self {
        let slot = Arc::new(Slot::new(prepare_thread()));
        let known = Known { slot: Arc::clone(&slot), began_ns: 0, cpu_at_start_ns: 0, cpu_ns: 0, clock: None };
        WATCHDOG.known().push(known);
        Self(slot)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        WATCHDOG.known().retain(|known| !Arc::ptr_eq(&known.slot, &self.0));
    }
}

/// Lets the signal through on this thread: an application may have blocked all signals on its threads, and a blocked
/// one would not stop a run. Returns the thread's number.
fn prepare_thread() -> i32 {
    // SAFETY: `set` is initialised by `sigemptyset` before it is used; both calls affect this thread alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::gettid()
    }
}

/// A leg that runs on this thread.
#[derive(Debug)]
pub(crate) struct RunningLeg<'a> {
    slot: &'a Slot,
    leg: &'a Leg,
    kicker: &'a Kicker,
}

/// The thread is ending: it can run no further leg.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadEnds;

/// Calls `run`, which runs the machine that `kicker` stops, and stops it when the leg must end.
///
/// # Safety
///
/// That machine must exist until this returns.
#[inline]
pub(crate) unsafe fn watched<T, E: From<ThreadEnds>>(
    kicker: &Kicker,
    leg: &Leg,
    run: impl FnOnce(&RunningLeg<'_>) -> Result<T, E>,
) -> Result<T, E> {
    SLOT.try_with(|slot| {
        RUNNING.with(|running| running.store(std::ptr::from_ref(kicker).cast_mut(), Ordering::Relaxed));
        compiler_fence(Ordering::SeqCst);
        // Made before anything can unwind: its drop undoes both stores.
        let running = RunningLeg { slot: &slot.0, leg, kicker };
        slot.0.enter(leg);
        if leg.due_ns() < HOT.looks_at_ns.load(Ordering::SeqCst) {
            WATCHDOG.wake();
        }
        run(&running)
    })
    .unwrap_or_else(|_| Err(ThreadEnds.into()))
}

impl RunningLeg<'_> {
    /// Why the leg was kicked. Clears the kick, so that the next one works again.
    #[cold]
    pub(crate) fn verdict(&self) -> Verdict {
        self.take_back();
        let now = host_clock::monotonic_ns();
        if self.slot.spent.load(Ordering::SeqCst) == self.leg.began_ns {
            Verdict::Cpu
        } else if now >= self.leg.wall_end_ns {
            Verdict::Wall
        } else if now >= self.leg.slice_end_ns {
            Verdict::Slice
        } else {
            Verdict::GoOn
        }
    }

    fn take_back(&self) {
        // SAFETY: the machine exists until `watched` returns, which outlives this.
        unsafe { self.kicker.clear() };
    }
}

impl Drop for RunningLeg<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.leg.store(self.leg.began_ns | OVER, Ordering::Release);
        RUNNING.with(|running| running.store(std::ptr::null_mut(), Ordering::Relaxed));
        compiler_fence(Ordering::SeqCst);
        // No signal can set the flag from here on. A kick that came too late must not hit the next leg.
        // SAFETY: the machine exists until `watched` returns.
        if unsafe { self.kicker.is_set() } {
            self.take_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEG: Leg =
        Leg { began_ns: 1000, slice_end_ns: 2000, wall_end_ns: 9000, cpu_end_ns: 5000, processor_clock: None };

    #[test]
    fn a_leg_is_seen_whole_or_not_at_all() {
        let slot = Slot::new(0);
        assert!(matches!(slot.look(), Seen::Nothing));
        slot.enter(&LEG);
        assert!(matches!(slot.look(), Seen::Leg(leg) if leg.due_ns() == 2000));
        slot.leg.store(LEG.began_ns | OVER, Ordering::Release);
        assert!(matches!(slot.look(), Seen::Nothing));
    }

    #[test]
    fn a_slice_waits_for_its_cpu_time_but_not_forever() {
        let leg =
            Leg { slice_end_ns: 1_000_000, wall_end_ns: 900_000_000, cpu_end_ns: 500_000_000, began_ns: 0, ..LEG };
        assert_eq!(leg.due_after(500_000, 0), 1_000_000);
        assert_eq!(leg.due_after(1_000_000, 900_000), 1_000_000, "it has run");
        assert_eq!(leg.due_after(1_000_000, 300_000), 1_700_000, "it has been starved");
        assert_eq!(leg.due_after(1_000_000, 870_000), 1_130_000);
        assert_eq!(leg.due_after(99_900_000, 0), 100_000_000, "but not forever");
        assert_eq!(leg.due_after(100_100_000, 0), 100_000_000);
        let leg = Leg { slice_end_ns: NEVER, wall_end_ns: 20_000_000, cpu_end_ns: 5_000_000, ..leg };
        assert_eq!(leg.due_after(5_000_000, 2_000_000), 8_000_000);
        assert_eq!(leg.due_after(19_000_000, 2_000_000), 20_000_000);
    }

    #[test]
    fn the_rhythm_follows_the_shortest_slice_and_ends_in_sleep() {
        let mut rhythm = Rhythm { tick_ns: TICK_NS, active_ns: 0 };
        rhythm.sees(1, &Leg { began_ns: 0, slice_end_ns: 1_000_000, wall_end_ns: NEVER, cpu_end_ns: NEVER, ..LEG });
        assert_eq!(rhythm.next(1, NEVER), 1_000_001);
        assert_eq!(rhythm.next(1, 500), 500, "the watchdog never oversleeps a leg that is due");
        rhythm.sees(2, &LEG);
        assert_eq!(rhythm.next(2, NEVER), 2 + TICK_MIN_NS, "a short slice does not make it spin");
        assert_eq!(rhythm.next(2 + IDLE_AFTER_NS, NEVER), NEVER);
        assert_eq!(rhythm.next(3 + IDLE_AFTER_NS, NEVER), NEVER);
        assert_eq!(rhythm.tick_ns, TICK_NS);
    }
}
