// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal state: actions, masks, and pending signals. `kernel/delivery.rs` delivers them.
//!
//! ```text
//! process    actions, signals that all threads block
//! thread     mask, signals for it alone, alternate stack
//! ```
//!
//! A signal for the process that some thread does not block is given to that thread at once: no other thread can take
//! it from a thread whose wait it has ended.

use serde::{Deserialize, Serialize};

use crate::base::identity::{PID, UID};

/// Number of signals; the first is 1.
const COUNT: usize = 64;
/// Signals from here on are queued; lower ones are merged.
const FIRST_QUEUED: u8 = 32;
/// Most pending signals that keep their `siginfo`, for a thread or for the process; related to RLIMIT_SIGPENDING.
const QUEUE_MAX: usize = 128;
const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;

/// Flags of `sigaction` that Linux knows; it clears others, so that programs can test which there are.
const KNOWN_FLAGS: u64 = 0xdc00_0807;
pub(crate) const SA_SIGINFO: u64 = 0x4;
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;
pub(crate) const SA_ONSTACK: u64 = 0x0800_0000;
pub(crate) const SA_RESTART: u64 = 0x1000_0000;
pub(crate) const SA_NODEFER: u64 = 0x4000_0000;
pub(crate) const SA_RESETHAND: u64 = 0x8000_0000;

/// `si_code`s (`<asm-generic/siginfo.h>`).
pub(crate) const SI_USER: i32 = 0;
pub(crate) const SI_KERNEL: i32 = 0x80;
pub(crate) const SI_TIMER: i32 = -2;
pub(crate) const SI_TKILL: i32 = -6;

/// A set of signals: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignalSet(u64);

impl SignalSet {
    /// Signals that cannot be blocked, ignored or handled.
    const UNBLOCKABLE: Self = Self::of(&[libc::SIGKILL, libc::SIGSTOP]);
    /// Signals whose default action is to ignore them.
    const HARMLESS: Self = Self::of(&[libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH]);
    /// Signals that Linux delivers first: those caused by instructions.
    const FIRST: Self =
        Self::of(&[libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE, libc::SIGSYS]);

    const fn of(signals: &[i32]) -> Self {
        let mut bits = 0;
        let mut rest = signals;
        while let [first, tail @ ..] = rest {
            bits |= 1_u64.wrapping_shl(first.unsigned_abs().wrapping_sub(1));
            rest = tail;
        }
        Self(bits)
    }

    /// The set of these bits, without signals that cannot be masked.
    pub(crate) const fn mask(bits: u64) -> Self {
        Self(bits & !Self::UNBLOCKABLE.0)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }

    pub(crate) const fn with(self, signal: Signal) -> Self {
        Self(self.0 | signal.bit())
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The signal that Linux delivers first.
    fn first(self) -> Option<Signal> {
        let urgent = self.and(Self::FIRST);
        let from = if urgent.is_empty() { self } else { urgent };
        let number = from.0.trailing_zeros().saturating_add(1);
        i32::try_from(number).ok().and_then(Signal::new)
    }
}

/// A valid signal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signal(u8);

impl Signal {
    pub(crate) const SEGV: Self = Self(11);
    #[allow(dead_code, reason = "pipes and sockets raise it")]
    pub(crate) const PIPE: Self = Self(13);
    pub(crate) const ALRM: Self = Self(14);
    pub(crate) const VTALRM: Self = Self(26);
    pub(crate) const PROF: Self = Self(27);

    /// Signal `number`, 1 to 64.
    pub(crate) fn new(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|&n| n >= 1 && usize::from(n) <= COUNT).map(Self)
    }

    pub(crate) fn number(self) -> i32 {
        self.0.into()
    }

    pub(crate) const fn is_queued(self) -> bool {
        self.0 >= FIRST_QUEUED
    }

    const fn bit(self) -> u64 {
        1_u64.wrapping_shl(self.0.wrapping_sub(1) as u32)
    }

    fn index(self) -> usize {
        usize::from(self.0).saturating_sub(1)
    }
}

/// A signal's action: the kernel's `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Action {
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: u64,
}

impl Action {
    pub(crate) const fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// The alternate signal stack: `stack_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlternateStack {
    pub(crate) pointer: u64,
    pub(crate) flags: i32,
    pub(crate) size: u64,
}

impl AlternateStack {
    pub(crate) const NONE: Self = Self { pointer: 0, flags: libc::SS_DISABLE, size: 0 };
    /// SS_AUTODISARM of `<linux/signal.h>`.
    pub(crate) const AUTODISARM: i32 = i32::MIN;

    /// Whether it is disarmed while a handler runs on it.
    pub(crate) const fn disarms(&self) -> bool {
        self.flags & Self::AUTODISARM != 0
    }

    /// Whether a stack pointer lies in it.
    pub(crate) const fn spans(&self, pointer: u64) -> bool {
        pointer > self.pointer && pointer.wrapping_sub(self.pointer) <= self.size
    }

    /// Whether a thread with this stack pointer is on it: never for a stack that disarms itself.
    pub(crate) const fn is_used_at(&self, pointer: u64) -> bool {
        !self.disarms() && self.spans(pointer)
    }
}

/// The timer that sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TimerId {
    /// `setitimer(ITIMER_REAL)`, `alarm`.
    Alarm,
    /// `setitimer(ITIMER_VIRTUAL)`.
    Virtual,
    /// `setitimer(ITIMER_PROF)`.
    Profile,
    /// `timer_create`.
    Posix(u32),
}

/// A signal with its `siginfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) signal: Signal,
    pub(crate) code: i32,
    /// The union of `siginfo_t`, as far as Linux uses it.
    pub(crate) fields: [u64; 4],
    pub(crate) timer: Option<TimerId>,
}

impl Info {
    /// Size of `siginfo_t`.
    pub(crate) const BYTES: usize = 128;

    /// A signal from the program to itself.
    pub(crate) fn user(signal: Signal, code: i32) -> Self {
        Self { signal, code, fields: [u64::from(UID) << 32 | u64::from(PID), 0, 0, 0], timer: None }
    }

    /// A signal from the kernel: for an access to `address`, or without a specific reason.
    pub(crate) fn kernel(signal: Signal, code: i32, address: u64) -> Self {
        Self { signal, code, fields: [address, 0, 0, 0], timer: None }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let head = [self.signal.number(), 0, self.code, 0];
        let words = head.iter().flat_map(|word| word.to_le_bytes());
        let all = words.chain(self.fields.iter().flat_map(|word| word.to_le_bytes()));
        for (slot, byte) in bytes.iter_mut().zip(all) {
            *slot = byte;
        }
        bytes
    }
}

/// Pending signals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pending {
    set: SignalSet,
    queue: Vec<Info>,
}

impl Pending {
    pub(crate) fn set(&self) -> SignalSet {
        self.set
    }

    /// Adds a signal; `false` if its `siginfo` had to be dropped.
    pub(crate) fn add(&mut self, info: Info) -> bool {
        if !info.signal.is_queued() && self.set.contains(info.signal) {
            return true;
        }
        self.set = self.set.with(info.signal);
        let fits = self.queue.len() < QUEUE_MAX;
        if fits {
            self.queue.push(info);
        }
        fits
    }

    /// Removes the signal of `wanted` that is delivered first.
    pub(crate) fn take(&mut self, wanted: SignalSet) -> Option<Info> {
        let signal = self.set.and(wanted).first()?;
        let position = self.queue.iter().position(|info| info.signal == signal);
        let info = position.map(|position| self.queue.remove(position));
        if self.queue.iter().all(|info| info.signal != signal) {
            self.set.0 &= !signal.bit();
        }
        Some(info.unwrap_or(Info { signal, code: SI_USER, fields: [0; 4], timer: None }))
    }

    /// Discards a signal.
    fn forget(&mut self, signal: Signal) {
        self.set.0 &= !signal.bit();
        self.queue.retain(|info| info.signal != signal);
    }

    /// Detaches a pending signal from its timer.
    pub(crate) fn detach_timer(&mut self, timer: TimerId) {
        for info in self.queue.iter_mut().filter(|info| info.timer == Some(timer)) {
            info.timer = None;
        }
    }

    pub(crate) fn has_timer(&self, timer: TimerId) -> bool {
        self.queue.iter().any(|info| info.timer == Some(timer))
    }

    /// Discards the signal that a timer has sent.
    pub(crate) fn forget_timer(&mut self, timer: TimerId) {
        while let Some(position) = self.queue.iter().position(|info| info.timer == Some(timer)) {
            let gone = self.queue.remove(position);
            if self.queue.iter().all(|info| info.signal != gone.signal) {
                self.set.0 &= !gone.signal.bit();
            }
        }
    }
}

/// A waiting call that a signal has interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interrupted {
    pub(crate) number: u64,
    /// Repeated after a handler with SA_RESTART.
    pub(crate) may_restart: bool,
    /// Repeated after any handler.
    pub(crate) must_restart: bool,
    /// The value that it returns otherwise.
    pub(crate) value: u64,
}

/// A thread's signal state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ThreadSignals {
    pub(crate) blocked: SignalSet,
    /// The mask to restore when a call ends that waits under its own.
    pub(crate) saved_mask: Option<SignalSet>,
    pub(crate) pending: Pending,
    pub(crate) stack: AlternateStack,
    /// The signals for which it waits in `rt_sigtimedwait`.
    pub(crate) awaited: SignalSet,
    pub(crate) interrupted: Option<Interrupted>,
}

impl ThreadSignals {
    /// The state of a new thread: it has its parent's mask.
    pub(crate) fn new(blocked: SignalSet) -> Self {
        Self {
            blocked,
            saved_mask: None,
            pending: Pending::default(),
            stack: AlternateStack::NONE,
            awaited: SignalSet::default(),
            interrupted: None,
        }
    }

    /// Whether the thread has something to do before it continues: `shared` are the process's signals.
    pub(crate) fn wants_attention(&self, shared: SignalSet) -> bool {
        self.has_deliverable(shared) || self.saved_mask.is_some() || self.interrupted.is_some()
    }

    pub(crate) fn has_deliverable(&self, shared: SignalSet) -> bool {
        !self.pending.set.or(shared).without(self.blocked).is_empty()
    }
}

/// Effect of a signal when it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Ignore,
    Kill,
    Handle(Action),
}

/// Signal state that all threads of a program share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Signals {
    #[serde(with = "crate::base::serde_with::array")]
    actions: [Action; COUNT],
    pub(crate) pending: Pending,
}

impl Default for Signals {
    fn default() -> Self {
        Self { actions: [Action::default(); COUNT], pending: Pending::default() }
    }
}

impl Signals {
    pub(crate) fn action(&self, signal: Signal) -> Action {
        self.actions.get(signal.index()).copied().unwrap_or_default()
    }

    /// Sets the action of `signal`; `false` if it cannot be set.
    pub(crate) fn set_action(&mut self, signal: Signal, action: Action) -> bool {
        if SignalSet::UNBLOCKABLE.contains(signal) {
            return false;
        }
        if let Some(slot) = self.actions.get_mut(signal.index()) {
            let mask = SignalSet::mask(action.mask).bits();
            *slot = Action { flags: action.flags & KNOWN_FLAGS, mask, ..action };
        }
        true
    }

    /// SA_RESETHAND: resets the action when the handler is called.
    pub(crate) fn reset_handler(&mut self, signal: Signal) {
        if let Some(slot) = self.actions.get_mut(signal.index()) {
            slot.handler = SIG_DFL;
        }
    }

    /// The signals that are ignored, and those that are handled: `SigIgn` and `SigCgt` of `/proc/self/status`.
    pub(crate) fn ignored_and_handled(&self) -> [SignalSet; 2] {
        let mut sets = [SignalSet::default(); 2];
        for (number, action) in (1..).zip(&self.actions) {
            let [ignored, handled] = &mut sets;
            match (Signal::new(number), action.handler) {
                (None, _) | (_, SIG_DFL) => {}
                (Some(signal), SIG_IGN) => *ignored = ignored.with(signal),
                (Some(signal), _) => *handled = handled.with(signal),
            }
        }
        sets
    }

    pub(crate) fn disposition(&self, signal: Signal) -> Disposition {
        let action = self.action(signal);
        match action.handler {
            SIG_IGN => Disposition::Ignore,
            SIG_DFL if SignalSet::HARMLESS.contains(signal) => Disposition::Ignore,
            SIG_DFL => Disposition::Kill,
            _ => Disposition::Handle(action),
        }
    }
}

/// Discards a signal that is pending for the process or a thread: its action is now to ignore it.
pub(crate) fn forget<'a>(signal: Signal, everywhere: impl Iterator<Item = &'a mut Pending>) {
    for pending in everywhere {
        pending.forget(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(number: i32) -> Signal {
        Signal::new(number).unwrap()
    }

    #[test]
    fn signals_are_1_to_64() {
        for number in [0, 65, -1, 256 + 6, i32::MIN, i32::MAX] {
            assert_eq!(Signal::new(number), None);
        }
        assert_eq!(signal(64).bit(), 1 << 63);
        assert_eq!([Signal::SEGV, Signal::PIPE, Signal::ALRM].map(Signal::number), [11, 13, 14]);
    }

    #[test]
    fn an_empty_set_has_no_first_signal() {
        let mut pending = Pending::default();
        assert_eq!(pending.take(SignalSet::mask(u64::MAX)), None);
    }

    #[test]
    fn standard_signals_are_merged_and_others_are_queued() {
        let mut pending = Pending::default();
        for code in [1, 2] {
            for number in [libc::SIGUSR1, 40] {
                assert!(pending.add(Info { code, ..Info::user(signal(number), 0) }));
            }
        }
        let all = SignalSet::mask(u64::MAX);
        let taken: Vec<_> =
            std::iter::from_fn(|| pending.take(all)).map(|info| (info.signal.number(), info.code)).collect();
        assert_eq!(taken, [(libc::SIGUSR1, 1), (40, 1), (40, 2)]);
        assert!(pending.set().is_empty());
    }

    #[test]
    fn signals_caused_by_instructions_are_delivered_first() {
        let mut pending = Pending::default();
        for number in [libc::SIGHUP, libc::SIGSEGV] {
            pending.add(Info::user(signal(number), 0));
        }
        assert_eq!(pending.take(SignalSet::mask(u64::MAX)).unwrap().signal, Signal::SEGV);
        assert_eq!(pending.take(SignalSet::mask(2)), None);
        assert_eq!(pending.take(SignalSet::mask(1)).unwrap().signal, signal(libc::SIGHUP));
    }

    #[test]
    fn a_queue_is_bounded() {
        let mut pending = Pending::default();
        let sent = (0..1000).filter(|_| pending.add(Info::user(signal(40), 0))).count();
        assert_eq!(sent, QUEUE_MAX);
        let received = std::iter::from_fn(|| pending.take(SignalSet::mask(u64::MAX))).count();
        assert_eq!(received, QUEUE_MAX);
        // A signal whose `siginfo` is dropped still arrives.
        for _ in 0..QUEUE_MAX {
            pending.add(Info::user(signal(41), 0));
        }
        assert!(!pending.add(Info::user(signal(libc::SIGTERM), 0)));
        assert_eq!(pending.take(SignalSet::mask(1 << 14)).unwrap().signal, signal(libc::SIGTERM));
    }

    #[test]
    fn kill_and_stop_cannot_be_blocked_or_handled() {
        let mut signals = Signals::default();
        for number in [libc::SIGKILL, libc::SIGSTOP] {
            assert!(!SignalSet::mask(u64::MAX).contains(signal(number)));
            assert!(!signals.set_action(signal(number), Action { handler: SIG_IGN, ..Action::default() }));
            assert_eq!(signals.disposition(signal(number)), Disposition::Kill);
        }
    }

    #[test]
    fn flags_that_linux_does_not_know_are_cleared() {
        let mut signals = Signals::default();
        let flags = 0xffff_ffff_ffff_ffff;
        signals.set_action(signal(10), Action { handler: 0x1000, flags, restorer: 7, mask: u64::MAX });
        let kept = signals.action(signal(10));
        assert_eq!(kept.flags, KNOWN_FLAGS);
        assert_eq!(kept.mask & (1 << 8), 0, "no mask contains SIGKILL");
    }

    #[test]
    fn a_stack_that_disarms_itself_is_never_in_use() {
        let stack = AlternateStack { pointer: 0x1000, flags: 0, size: 0x1000 };
        assert!(stack.is_used_at(0x2000) && !stack.is_used_at(0x1000) && !stack.is_used_at(0x2001));
        assert!(!AlternateStack { flags: AlternateStack::AUTODISARM, ..stack }.is_used_at(0x1800));
    }
}
