// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signal state: actions, mask, pending signals and the alternate stack, as the program has set them.
//!
//! Mayfly does not run a program's handlers yet. What it does is right for programs that end by a signal: `abort`, a default
//! action, a signal that is blocked until it is unblocked.

use serde::{Deserialize, Serialize};

/// Number of signals; the first is 1.
const COUNT: usize = 64;

const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;

/// Flags of `sigaction` that Linux knows and keeps; it clears others, so that programs can ask which there are.
const KNOWN_FLAGS: u64 = 0xdc00_0807;

/// A set of signals: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignalSet(u64);

impl SignalSet {
    /// Signals that cannot be blocked, ignored or handled.
    const UNBLOCKABLE: Self = Self::of(&[libc::SIGKILL, libc::SIGSTOP]);
    /// Signals that do nothing unless a program handles them.
    const HARMLESS: Self = Self::of(&[libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH]);

    const fn of(signals: &[i32]) -> Self {
        let mut bits = 0;
        let mut rest = signals;
        while let [first, tail @ ..] = rest {
            bits |= 1_u64.wrapping_shl(first.unsigned_abs().wrapping_sub(1));
            rest = tail;
        }
        Self(bits)
    }

    /// The set of these bits, without those that cannot be in a mask.
    pub(crate) const fn mask(bits: u64) -> Self {
        Self(bits & !Self::UNBLOCKABLE.0)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }
}

/// A signal number that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(u8);

impl Signal {
    /// Signal `number`, 1 to 64.
    pub(crate) fn new(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|&n| n >= 1 && usize::from(n) <= COUNT).map(Self)
    }

    pub(crate) fn number(self) -> i32 {
        self.0.into()
    }

    const fn bit(self) -> u64 {
        1_u64.wrapping_shl(self.0.wrapping_sub(1) as u32)
    }

    fn index(self) -> usize {
        usize::from(self.0).saturating_sub(1)
    }
}

/// What a program has said is to happen on a signal: `struct sigaction` as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Action {
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: u64,
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
}

/// What happens when a signal arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Nothing, or not yet: it is ignored, or blocked and now pending.
    None,
    /// It kills the program.
    Kill(Signal),
}

/// A program's signal state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Signals {
    #[serde(with = "crate::saved::array")]
    actions: [Action; COUNT],
    blocked: SignalSet,
    pending: SignalSet,
    pub(crate) stack: AlternateStack,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            actions: [Action::default(); COUNT],
            blocked: SignalSet::default(),
            pending: SignalSet::default(),
            stack: AlternateStack::NONE,
        }
    }
}

impl Signals {
    pub(crate) fn action(&self, signal: Signal) -> Action {
        self.actions.get(signal.index()).copied().unwrap_or_default()
    }

    /// Sets what happens on `signal`; `false` if that cannot be chosen. Ignoring a signal also forgets one that is pending.
    pub(crate) fn set_action(&mut self, signal: Signal, action: Action) -> bool {
        if SignalSet::UNBLOCKABLE.contains(signal) {
            return false;
        }
        if let Some(slot) = self.actions.get_mut(signal.index()) {
            let mask = SignalSet::mask(action.mask).bits();
            *slot = Action { flags: action.flags & KNOWN_FLAGS, mask, ..action };
        }
        if self.is_ignored(signal) {
            self.pending.0 &= !signal.bit();
        }
        true
    }

    pub(crate) fn blocked(&self) -> SignalSet {
        self.blocked
    }

    pub(crate) fn pending(&self) -> SignalSet {
        self.pending
    }

    /// Sets the mask and delivers what it no longer blocks.
    pub(crate) fn set_blocked(&mut self, mask: SignalSet) -> Delivery {
        self.blocked = mask;
        let ready = self.pending.0 & !mask.0;
        self.pending.0 &= mask.0;
        // Ignored ones never become pending, so any of these kills; Linux takes the lowest number first.
        let lowest = ready.trailing_zeros().saturating_add(1);
        i32::try_from(lowest).ok().and_then(Signal::new).map_or(Delivery::None, Delivery::Kill)
    }

    /// A signal that the program sends itself.
    pub(crate) fn raise(&mut self, signal: Signal) -> Delivery {
        if self.is_ignored(signal) {
            Delivery::None
        } else if self.blocked.contains(signal) {
            self.pending.0 |= signal.bit();
            Delivery::None
        } else {
            Delivery::Kill(signal)
        }
    }

    fn is_ignored(&self, signal: Signal) -> bool {
        match self.action(signal).handler {
            SIG_IGN => true,
            SIG_DFL => SignalSet::HARMLESS.contains(signal),
            _ => false,
        }
    }
}

/// Name of a signal, for messages.
pub(crate) fn name(signal: i32) -> String {
    let known = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(number: i32) -> Signal {
        Signal::new(number).unwrap()
    }

    #[test]
    fn only_signals_1_to_64_exist() {
        for number in [0, 65, -1, 256 + 6, i32::MIN, i32::MAX] {
            assert_eq!(Signal::new(number), None);
        }
        assert_eq!(signal(64).bit(), 1 << 63);
    }

    #[test]
    fn a_blocked_signal_waits_for_the_mask() {
        let mut signals = Signals::default();
        assert_eq!(signals.set_blocked(SignalSet::mask(u64::MAX)), Delivery::None);
        assert_eq!(signals.raise(signal(libc::SIGABRT)), Delivery::None);
        assert_eq!(signals.pending().bits(), 1 << 5);
        assert_eq!(signals.set_blocked(SignalSet::mask(0)), Delivery::Kill(signal(libc::SIGABRT)));
        assert_eq!(signals.pending().bits(), 0);
    }

    #[test]
    fn kill_and_stop_cannot_be_blocked_or_handled() {
        let mut signals = Signals::default();
        signals.set_blocked(SignalSet::mask(u64::MAX));
        for number in [libc::SIGKILL, libc::SIGSTOP] {
            assert_eq!(signals.raise(signal(number)), Delivery::Kill(signal(number)));
            assert!(!signals.set_action(signal(number), Action { handler: SIG_IGN, ..Action::default() }));
        }
    }

    #[test]
    fn ignored_signals_do_nothing_and_are_forgotten() {
        let mut signals = Signals::default();
        assert_eq!(signals.raise(signal(libc::SIGCHLD)), Delivery::None);
        signals.set_blocked(SignalSet::mask(u64::MAX));
        signals.raise(signal(libc::SIGTERM));
        assert!(signals.set_action(signal(libc::SIGTERM), Action { handler: SIG_IGN, ..Action::default() }));
        assert_eq!(signals.set_blocked(SignalSet::default()), Delivery::None);
        assert_eq!(signals.raise(signal(libc::SIGTERM)), Delivery::None);
    }

    #[test]
    fn flags_that_linux_does_not_know_are_cleared() {
        let mut signals = Signals::default();
        let flags = 0xffff_ffff_ffff_ffff;
        signals.set_action(signal(10), Action { handler: 0x1000, flags, restorer: 7, mask: u64::MAX });
        let kept = signals.action(signal(10));
        assert_eq!(kept.flags, KNOWN_FLAGS);
        assert_eq!(kept.mask & (1 << 8), 0, "SIGKILL is in no mask");
    }
}
