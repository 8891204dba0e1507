// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting without contention: every thread that works for tenants has counters of its own, and a report adds them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::{FAILURES, Failure};
use crate::route::TenantIndex;

/// A number that one thread increases and any thread reads.
///
/// # Invariants
///
/// Only the thread that owns the [`Meter`] writes, so an increment needs no atomic read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increase(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one thread did for one tenant.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) resets: Counter,
    pub(crate) forks: Counter,
    failures: [Counter; FAILURES],
}

impl Counters {
    pub(crate) fn failed(&self, failure: Failure) {
        self.failures[failure as usize].increase();
    }
}

/// The counters of one thread, by tenant.
#[derive(Debug)]
pub(crate) struct Meter {
    tenants: Box<[Counters]>,
    /// Requests that are no tenant's.
    pub(crate) unrouted: Counter,
}

impl Meter {
    pub(crate) fn tenant(&self, tenant: TenantIndex) -> &Counters {
        &self.tenants[tenant]
    }
}

/// All meters of a server.
#[derive(Debug)]
pub(crate) struct Meters {
    tenants: usize,
    all: Mutex<Vec<Arc<Meter>>>,
}

/// A sum over all threads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) resets: u64,
    pub(crate) forks: u64,
    pub(crate) failures: [u64; FAILURES],
}

impl Meters {
    pub(crate) fn new(tenants: usize) -> Self {
        Self { tenants, all: Mutex::default() }
    }

    /// A meter for a new thread. It stays counted when the thread is gone.
    pub(crate) fn add(&self) -> Arc<Meter> {
        let tenants = (0..self.tenants).map(|_| Counters::default()).collect();
        let meter = Arc::new(Meter { tenants, unrouted: Counter::default() });
        self.all().push(Arc::clone(&meter));
        meter
    }

    pub(crate) fn unrouted(&self) -> u64 {
        self.all().iter().map(|meter| meter.unrouted.get()).sum()
    }

    pub(crate) fn totals(&self, tenant: TenantIndex) -> Totals {
        let mut totals = Totals::default();
        for counters in self.all().iter().map(|meter| meter.tenant(tenant)) {
            totals.requests += counters.requests.get();
            totals.resets += counters.resets.get();
            totals.forks += counters.forks.get();
            for (total, failures) in totals.failures.iter_mut().zip(&counters.failures) {
                *total += failures.get();
            }
        }
        totals
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Meter>>> {
        // A list of shared meters is whole even if a thread panicked while it held the lock.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_adds_up_all_threads_even_ended_ones() {
        let meters = Meters::new(2);
        for _ in 0..3 {
            let meter = meters.add();
            std::thread::spawn(move || {
                meter.tenant(1).requests.increase();
                meter.tenant(1).failed(Failure::CpuLimit);
                meter.unrouted.increase();
            })
            .join()
            .unwrap();
        }
        assert_eq!(meters.totals(0), Totals::default());
        assert_eq!(meters.totals(1).requests, 3);
        assert_eq!(meters.totals(1).failures[Failure::CpuLimit as usize], 3);
        assert_eq!(meters.unrouted(), 3);
    }
}
