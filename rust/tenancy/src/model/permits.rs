// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds on requests that have left their loops, and have begun or wait in line: for all tenants together, and half as
//! many for one tenant.
//!
//! A request that runs or waits for a turn has a *run permit*. There are few run permits, because such requests share a
//! few threads. A request that sleeps has a *sleep permit*. There are more of these, because a sleeper occupies memory
//! but no thread. A request that waits for a worker has not begun. It has a *line permit*, of which there are as many;
//! they are others, so that those that wait do not keep the request from sleeping that they wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Run permits for each thread that gives turns.
const RUNS_PER_THREAD: usize = 16;
/// Sleep permits for each thread that gives turns.
const SLEEPS_PER_THREAD: usize = 128;
/// Line permits for each thread that gives turns.
const LINE_PER_THREAD: usize = 128;

/// What a permit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PermitKind {
    Run,
    Sleep,
    Line,
}

/// Numbers of permits in use, by one tenant or by all.
#[derive(Debug, Default)]
pub(crate) struct PermitsInUse {
    run: AtomicUsize,
    sleep: AtomicUsize,
    line: AtomicUsize,
}

impl PermitsInUse {
    fn of(&self, kind: PermitKind) -> &AtomicUsize {
        match kind {
            PermitKind::Run => &self.run,
            PermitKind::Sleep => &self.sleep,
            PermitKind::Line => &self.line,
        }
    }
}

/// All permits of a server.
#[derive(Debug)]
pub(crate) struct CallPermits {
    threads: usize,
    in_use: Arc<PermitsInUse>,
}

/// A request's right to be outside its loop; returned when dropped.
#[derive(Debug)]
pub(crate) struct CallPermit {
    kind: PermitKind,
    all: Arc<PermitsInUse>,
    own: Arc<PermitsInUse>,
}

impl CallPermits {
    /// The permits that `threads` threads can serve.
    pub(crate) fn new(threads: u32) -> Self {
        Self { threads: threads as usize, in_use: Arc::default() }
    }

    /// Takes a permit for a request of the tenant whose permits `own` counts, if one is available to it.
    pub(crate) fn take(&self, kind: PermitKind, own: &Arc<PermitsInUse>) -> Option<CallPermit> {
        if !count_up(own.of(kind), self.share(kind)) {
            return None;
        }
        if !count_up(self.in_use.of(kind), self.most(kind)) {
            own.of(kind).fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(CallPermit { kind, all: Arc::clone(&self.in_use), own: Arc::clone(own) })
    }

    /// Whether the tenant uses its whole share.
    pub(crate) fn has_share(&self, kind: PermitKind, own: &PermitsInUse) -> bool {
        own.of(kind).load(Ordering::Relaxed) >= self.share(kind)
    }

    /// Number of permits in use, of all kinds.
    pub(crate) fn in_use(&self) -> usize {
        let kinds = [PermitKind::Run, PermitKind::Sleep, PermitKind::Line];
        kinds.map(|kind| self.in_use.of(kind).load(Ordering::Relaxed)).iter().sum()
    }

    fn most(&self, kind: PermitKind) -> usize {
        self.threads
            * match kind {
                PermitKind::Run => RUNS_PER_THREAD,
                PermitKind::Sleep => SLEEPS_PER_THREAD,
                PermitKind::Line => LINE_PER_THREAD,
            }
    }

    fn share(&self, kind: PermitKind) -> usize {
        self.most(kind).div_ceil(2)
    }
}

impl CallPermit {
    pub(crate) fn kind(&self) -> PermitKind {
        self.kind
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.all.of(self.kind).fetch_sub(1, Ordering::Relaxed);
        self.own.of(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Increments the counter unless it has reached `most`.
fn count_up(counter: &AtomicUsize, most: usize) -> bool {
    let more = |count| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}
