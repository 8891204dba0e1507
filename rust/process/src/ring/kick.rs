// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kicks: the server takes the processor back from a program.
//!
//! ```text
//!   Idle ── stop ──> Wanted ── sent ──> Sent ── the kick's ring ──> Idle
//!                      └── take ──> Idle
//! ```
//!
//! # Invariants
//!
//! - At most one kick of a stub's is under way.
//! - Where signals abort calls that the server has received, no kick is sent outside RECV.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::code::KICK;
use crate::sys::pidfd;

const IDLE: u8 = 0;
const WANTED: u8 = 1;
const SENT: u8 = 2;

/// What a stub's server and its handler of signals share.
#[derive(Debug)]
pub(crate) struct Kick {
    state: AtomicU8,
    /// The server is in RECV, or about to be.
    inside: AtomicBool,
    /// Whether a call that the server has received outlives signals.
    killable: bool,
    /// Whether RECV ends with the stub.
    ends: bool,
    pidfd: OwnedFd,
}

impl Kick {
    pub(crate) fn new(pidfd: OwnedFd, killable: bool, ends: bool) -> Self {
        Self { state: AtomicU8::new(IDLE), inside: AtomicBool::new(false), killable, ends, pidfd }
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    pub(crate) fn is_killable(&self) -> bool {
        self.killable
    }

    pub(crate) fn recv_ends(&self) -> bool {
        self.ends
    }

    /// Before RECV, and when that was interrupted: from here on kicks are sent.
    pub(crate) fn enter(&self) {
        self.inside.store(true, Ordering::SeqCst);
        self.send_if_wanted();
    }

    /// Behind RECV.
    pub(crate) fn leave(&self) {
        self.inside.store(false, Ordering::Release);
    }

    /// Sends a kick that is wanted.
    fn send_if_wanted(&self) {
        if self.state.load(Ordering::SeqCst) == WANTED
            && self.state.compare_exchange(WANTED, SENT, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.send();
        }
    }

    fn send(&self) {
        // It fails for a stub that has ended: RECV says so, too.
        let _ = pidfd::signal(self.pidfd.as_fd(), KICK);
    }

    /// Sends a kick at once, unless one is under way. Returns whether one was wanted.
    pub(crate) fn send_now(&self) -> bool {
        let before = self.state.swap(SENT, Ordering::SeqCst);
        if before != SENT {
            self.send();
        }
        before != IDLE
    }

    /// Whether a kick was sent whose ring has not come.
    pub(crate) fn is_under_way(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SENT
    }

    /// A kick has rung.
    pub(crate) fn rang(&self) {
        self.state.store(IDLE, Ordering::SeqCst);
    }

    /// Wishes for a kick, unless one is under way.
    pub(crate) fn want(&self) {
        let _ = self.state.compare_exchange(IDLE, WANTED, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Takes a wish that was not carried out yet.
    pub(crate) fn take(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WANTED
            && self.state.compare_exchange(WANTED, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Stops a stub's program from a handler of signals, on the thread that serves the stub.
///
/// It may outlive the stub.
#[derive(Debug, Clone)]
pub struct Kicker(pub(crate) Arc<Kick>);

impl Kicker {
    /// Makes the program stop soon: the server receives [`Event::Signal`](crate::Event::Signal) with
    /// [`KICK`], unless the program makes an event of its own first. A wish that comes while the stub
    /// waits for its server is kept for [`Stub::take_kick`](crate::Stub::take_kick).
    ///
    /// To be called by a handler, installed without `SA_RESTART`, on the thread that serves the stub: it is
    /// async-signal-safe, and keeps `errno`. Where [`HostReport::killable`](crate::HostReport::killable) is false, RECV
    /// does not notice a signal that comes just before it: the sender must repeat the signal until the event comes.
    pub fn stop(&self) {
        let Kick { state, inside, killable, .. } = &*self.0;
        if state.compare_exchange(IDLE, WANTED, Ordering::SeqCst, Ordering::SeqCst) == Err(SENT) {
            return;
        }
        if *killable && inside.load(Ordering::SeqCst) {
            // SAFETY: the C library's `errno` of this thread.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: as above; the pointer is valid as long as the thread lives.
            let before = unsafe { *errno };
            self.0.send_if_wanted();
            // SAFETY: as above.
            unsafe { *errno = before };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::memfd;

    fn kick(killable: bool) -> Kicker {
        // Signals by what is no pidfd fail, which is no matter here.
        Kicker(Arc::new(Kick::new(memfd(c"kick").unwrap().into(), killable, true)))
    }

    #[test]
    fn a_wish_outside_recv_is_kept_until_it_is_taken_or_recv_is_entered() {
        let kicker = kick(true);
        kicker.stop();
        assert!(!kicker.0.is_under_way() && kicker.0.take() && !kicker.0.take());
        kicker.stop();
        kicker.0.enter();
        assert!(kicker.0.is_under_way() && !kicker.0.take());
        kicker.0.rang();
        assert!(!kicker.0.is_under_way());
    }

    #[test]
    fn within_recv_a_kick_is_sent_at_once_where_calls_outlive_it() {
        for killable in [true, false] {
            let kicker = kick(killable);
            kicker.0.enter();
            kicker.stop();
            assert_eq!(kicker.0.is_under_way(), killable);
            kicker.0.enter();
            kicker.stop();
            assert!(kicker.0.is_under_way() && !kicker.0.take(), "one is under way");
            kicker.0.leave();
        }
    }
}
