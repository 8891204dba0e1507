// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that was probed, and what the probe found.

use std::fmt;

/// How a stub and its server are kept on one processor, where a switch between them takes 4 us instead of 45.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The kernel wakes the other side where the waker runs (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`).
    Synchronous,
    /// A stub is bound to the processor of the thread that runs it, and follows it. That thread should be bound, too.
    Pinned,
}

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// The kernel's release, for messages.
    pub kernel: String,
    /// How the two sides are kept together.
    pub wake: Wake,
    /// Whether a call that the server has received is kept although a signal comes
    /// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`), and no answer to it is lost: the probe has tried.
    pub killable: bool,
    /// Whether waiting for a stub ends when the stub does (Linux 6.11). It is the one thing that the kernel's release
    /// decides: trying it would leave a thread behind that waits for ever.
    pub ends: bool,
}

impl fmt::Display for HostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wake = match self.wake {
            Wake::Synchronous => "synchronous wake-ups",
            Wake::Pinned => "stubs bound to processors",
        };
        let calls = if self.killable { "calls outlive signals" } else { "signals abort calls" };
        write!(f, "seccomp notifications on Linux {}: {wake}, {calls}", self.kernel)
    }
}

/// What this host lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host cannot run programs in processes: {what}; {advice}")]
pub struct Missing {
    /// What was tried, and what happened.
    pub what: String,
    /// What the operator can do about it.
    pub advice: &'static str,
}

/// A host on which stubs run: the probe has run one.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) report: HostReport,
    pub(crate) filter_flags: u64,
}

impl Host {
    /// What the probe found.
    #[must_use]
    pub fn report(&self) -> &HostReport {
        &self.report
    }

    /// Flags for `seccomp(SECCOMP_SET_MODE_FILTER)`.
    pub(crate) fn filter_flags(&self) -> u64 {
        self.filter_flags
    }
}
