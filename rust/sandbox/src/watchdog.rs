// SPDX-License-Identifier: MIT OR Apache-2.0
//! One thread for the process that stops runs which are past their deadline.
//!
//! Arming costs two atomic stores: which thread runs, and until when. The watchdog looks at all armed slots at every tick; a late
//! one gets KVM's `immediate_exit` flag, which stops a run that is about to start, and a signal, which stops one that is under way.
//! It repeats both at every tick until the slot is disarmed, so that no interleaving can lose a kick.
//!
//! The limit is on the thread's CPU time, which a run cannot read without a system call. So the watchdog does: it notes the thread's
//! CPU clock when it first sees a run, and kicks at the deadline only if the clock has moved as far as time has. A thread that was
//! starved, or a host that was paused, thus costs no tenant its request, up to [`PATIENCE`] times the limit.
//!
//! A kick may come just after a run has ended. The next run then returns at once; whoever runs compares the clock with the
//! deadline and goes on.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mayfly_kvm::Kicker;

use crate::clock;

/// Tick while a slot is armed: the bound on how late a limit is enforced is this and one wake-up.
const BUSY_TICK: Duration = Duration::from_millis(10);
/// Tick while none was armed at the last look.
const IDLE_TICK: Duration = Duration::from_millis(40);
/// A run is kicked after this many times its limit of wall-clock time, however little of the CPU it got.
const PATIENCE: u64 = 4;
/// Deadline of a slot that is not armed.
const DISARMED: u64 = u64::MAX;

/// What one runner shares with the watchdog.
#[derive(Debug)]
struct Slot {
    /// Deadline in monotonic nanoseconds.
    deadline_ns: AtomicU64,
    thread: AtomicI32,
    kicker: Kicker,
}

/// A runner's registration with the watchdog; ends when dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: Arc<Slot>,
}

/// A slot, and what the watchdog knows of the run that it last saw there.
#[derive(Debug)]
struct Watched {
    slot: Arc<Slot>,
    seen: Seen,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    deadline_ns: u64,
    at_ns: u64,
    cpu_ns: u64,
}

impl Watched {
    /// Looks at the slot: whether it is armed, and whether its run must be kicked.
    fn look(&mut self, now: u64) -> (bool, bool) {
        let deadline_ns = self.slot.deadline_ns.load(Ordering::Acquire);
        if deadline_ns == DISARMED {
            return (false, false);
        }
        let thread = self.slot.thread.load(Ordering::Relaxed);
        if self.seen.deadline_ns != deadline_ns {
            self.seen = Seen { deadline_ns, at_ns: now, cpu_ns: clock::thread_cpu_ns(thread) };
        }
        let late = now >= deadline_ns && {
            let left = deadline_ns.saturating_sub(self.seen.at_ns);
            let used = clock::thread_cpu_ns(thread).saturating_sub(self.seen.cpu_ns);
            used >= left || now - deadline_ns >= (PATIENCE - 1).saturating_mul(left)
        };
        (true, late)
    }
}

#[derive(Debug, Default)]
struct Watchdog {
    slots: Mutex<Vec<Watched>>,
    wake: Condvar,
}

impl Watchdog {
    /// Nothing panics while it holds the lock, so a poisoned one is as good as any.
    fn slots(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut slots = self.slots();
        loop {
            while slots.is_empty() {
                slots = self.wake.wait(slots).unwrap_or_else(PoisonError::into_inner);
            }
            clock::refresh_unix_offset();
            let now = clock::monotonic_ns();
            let mut armed = false;
            for watched in slots.iter_mut() {
                let (is_armed, is_late) = watched.look(now);
                armed |= is_armed;
                if is_late {
                    kick(&watched.slot);
                }
            }
            drop(slots);
            std::thread::sleep(if armed { BUSY_TICK } else { IDLE_TICK });
            slots = self.slots();
        }
    }
}

fn kick(slot: &Slot) {
    // SAFETY: the slot is registered, and `Guard::drop` unregisters it, under the lock held here, before its machine goes.
    unsafe { slot.kicker.set() };
    let thread = slot.thread.load(Ordering::Relaxed);
    // SAFETY: plain system call. The thread may have ended, or its number may belong to another thread of this process by now;
    // the handler does nothing, so at worst a system call there is restarted.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
}

fn signal() -> i32 {
    libc::SIGRTMIN() + 7
}

extern "C" fn nothing(_: i32) {}

/// Starts the thread and installs the signal's handler, once for the process.
fn watchdog() -> std::io::Result<&'static Watchdog> {
    static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let watchdog = WATCHDOG.get_or_init(Watchdog::default);
    if !*started {
        // SAFETY: all-zero is a valid sigaction: no flags, empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as *const () as usize;
        // Other system calls of the thread are restarted; KVM_RUN never is.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `action` is initialised, and the handler is async-signal-safe: it does nothing.
        if unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        std::thread::Builder::new().name("mayfly-watchdog".into()).spawn(|| watchdog.watch())?;
        *started = true;
    }
    Ok(watchdog)
}

/// The kernel's number of the calling thread, which can be kicked from now on.
#[inline]
fn current_thread() -> i32 {
    thread_local! {
        static TID: i32 = prepare_thread();
    }
    TID.with(|tid| *tid)
}

/// Lets the signal through on this thread: an application may have blocked all signals on its threads, and a blocked one
/// would not stop a run.
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

impl Guard {
    /// Registers a runner.
    ///
    /// # Safety
    ///
    /// The machine that `kicker` belongs to must not be dropped before the guard.
    pub(crate) unsafe fn register(kicker: Kicker) -> std::io::Result<Self> {
        let watchdog = watchdog()?;
        let slot = Arc::new(Slot { deadline_ns: AtomicU64::new(DISARMED), thread: AtomicI32::new(0), kicker });
        let mut slots = watchdog.slots();
        if slots.is_empty() {
            // The watchdog has slept for want of anything to watch.
            clock::refresh_unix_offset();
        }
        slots.push(Watched { slot: Arc::clone(&slot), seen: Seen::default() });
        watchdog.wake.notify_one();
        Ok(Self { slot })
    }

    /// From now on a run of the calling thread is stopped at `deadline_ns` (monotonic clock).
    #[inline]
    pub(crate) fn arm(&self, deadline_ns: u64) {
        self.slot.thread.store(current_thread(), Ordering::Relaxed);
        self.slot.deadline_ns.store(deadline_ns, Ordering::Release);
    }

    /// Ends what [`Guard::arm`] began.
    #[inline]
    pub(crate) fn disarm(&self) {
        self.slot.deadline_ns.store(DISARMED, Ordering::Release);
    }

    /// Takes a kick back that came when it was not meant; a later one works again.
    pub(crate) fn clear(&self) {
        // SAFETY: the machine lives as long as the guard, which is what `register` demands.
        unsafe { self.slot.kicker.clear() };
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(watchdog) = watchdog() {
            watchdog.slots().retain(|watched| !Arc::ptr_eq(&watched.slot, &self.slot));
        }
    }
}
