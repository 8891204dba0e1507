// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the program of an idle worker runs next without a request: the worker's entry in the timetable of all workers.

use std::sync::{Arc, Weak};

/// What has the entries.
pub(crate) trait LegKeeper: Send + Sync {
    /// Removes an entry, if it is still there.
    fn forget(&self, number: u64);
}

/// What has a mailbox's workers that are away.
pub(crate) trait AwayKeeper: Send + Sync {
    /// One of them does not come back, or not soon.
    fn left(&self);
}

/// A worker's times between requests. A worker has none if its program stands still then.
#[derive(Debug, Default)]
pub(crate) struct LegTimer {
    /// `None`: nothing is due before the next request.
    pub(crate) entry: Option<LegEntry>,
    /// When the last leg ended; 0: there was none.
    pub(crate) last_ns: u64,
    /// The first step of the next leg may block its thread.
    pub(crate) may_block: bool,
    /// For a worker of one loop: while requests wait for its return.
    pub(crate) away: Option<AwayPermit>,
}

/// A worker's entry in the timetable. Dropping it removes it, so that a worker that is closed leaves none behind.
pub(crate) struct LegEntry {
    pub(crate) number: u64,
    /// When the program runs, by the monotonic clock.
    pub(crate) until_ns: u64,
    /// It may be due earlier: when its worker's descriptor is ready.
    pub(crate) is_watched: bool,
    keeper: Arc<dyn LegKeeper>,
}

impl LegEntry {
    pub(crate) fn new(number: u64, until_ns: u64, keeper: Arc<dyn LegKeeper>) -> Self {
        Self { number, until_ns, is_watched: false, keeper }
    }
}

impl Drop for LegEntry {
    fn drop(&mut self) {
        self.keeper.forget(self.number);
    }
}

impl std::fmt::Debug for LegEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LegEntry").field("number", &self.number).field("until_ns", &self.until_ns).finish()
    }
}

/// The right to have requests wait for a worker that is away from its mailbox. Dropping it ends their wait, however the
/// worker was lost.
pub(crate) struct AwayPermit {
    keeper: Weak<dyn AwayKeeper>,
}

impl AwayPermit {
    pub(crate) fn new(keeper: Weak<dyn AwayKeeper>) -> Self {
        Self { keeper }
    }

    /// The worker is back. The keeper knows.
    pub(crate) fn end(mut self) {
        self.keeper = Weak::<Nobody>::new();
    }
}

impl Drop for AwayPermit {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.left();
        }
    }
}

impl std::fmt::Debug for AwayPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwayPermit")
    }
}

/// Stands for a keeper in a weak pointer that points to none.
struct Nobody;

impl AwayKeeper for Nobody {
    fn left(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counts {
        left: AtomicU32,
        forgotten: AtomicU32,
    }

    impl AwayKeeper for Counts {
        fn left(&self) {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl LegKeeper for Counts {
        fn forget(&self, number: u64) {
            assert_eq!(number, 7);
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_lost_worker_ends_the_wait_for_it_and_its_entry_and_one_that_is_back_does_not() {
        let counts = Arc::new(Counts::default());
        let permit = || AwayPermit::new(Arc::downgrade(&counts) as Weak<dyn AwayKeeper>);
        let entry = Some(LegEntry::new(7, 1, Arc::clone(&counts) as Arc<dyn LegKeeper>));
        let seen = || (counts.left.load(Ordering::Relaxed), counts.forgotten.load(Ordering::Relaxed));
        drop(LegTimer { entry, away: Some(permit()), ..LegTimer::default() });
        assert_eq!(seen(), (1, 1));
        permit().end();
        assert_eq!(seen(), (1, 1));
    }
}
