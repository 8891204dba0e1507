// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters without contention: every loop thread has its own for each tenant that it serves, and a report sums them.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mayfly_sandbox::{Connects, RefusedProcesses};

use crate::model::failure::{FAILURES, Failure};

/// Counted events other than failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A request that was routed to the tenant, answered or not.
    Request,
    /// A worker rolled back after a request.
    Reset,
    /// A worker whose work set was too large to keep, and went back to the system.
    WorkSetGivenBack,
    /// A worker forked.
    Fork,
    /// A worker that could not be forked.
    ForkFailure,
    /// A request that left its loop thread: its slice was used up, or no worker was ready.
    Parked,
    /// A call of a function of the storage program.
    StoreCall,
    /// An outbound connection that the program began.
    Connect,
    /// An outbound connection that the program was refused.
    RefusedConnect,
    /// A new process that the program was refused.
    RefusedFork,
    /// Another program in its place that the program was refused.
    RefusedExec,
    /// A descriptor that the program was refused.
    DescriptorLimit,
    /// A thread that the program was refused.
    ThreadLimit,
    /// A mapping that the program was refused.
    MappingLimit,
    /// A worker that was lost between requests.
    BackgroundFailure,
}

const EVENTS: usize = Event::BackgroundFailure as usize + 1;

/// Counters of one loop thread, or of all background threads together, for one tenant.
///
/// # Invariants
///
/// Unless it is shared, only one thread writes, so an increment needs no atomic read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    is_shared: bool,
    cpu_ns: AtomicU64,
    /// The part of it that was used between requests.
    background_cpu_ns: AtomicU64,
    events: [AtomicU64; EVENTS],
    failures: [AtomicU64; FAILURES],
}

impl Counters {
    /// Counters that several threads increase.
    pub(crate) fn shared() -> Self {
        Self { is_shared: true, ..Self::default() }
    }

    pub(crate) fn count(&self, event: Event) {
        self.add(&self.events[event as usize], 1);
    }

    pub(crate) fn count_many(&self, event: Event, times: u32) {
        self.add(&self.events[event as usize], times.into());
    }

    /// Adds CPU time of the tenant's requests.
    pub(crate) fn spent(&self, cpu_ns: u64) {
        self.add(&self.cpu_ns, cpu_ns);
    }

    /// Adds CPU time that the tenant's programs have used between requests.
    pub(crate) fn spent_between_requests(&self, cpu_ns: u64) {
        self.add(&self.cpu_ns, cpu_ns);
        self.add(&self.background_cpu_ns, cpu_ns);
    }

    pub(crate) fn count_connects(&self, connects: Connects) {
        self.count_many(Event::Connect, connects.made);
        self.count_many(Event::RefusedConnect, connects.refused);
    }

    pub(crate) fn count_refused_processes(&self, refused: RefusedProcesses) {
        self.count_many(Event::RefusedFork, refused.forks);
        self.count_many(Event::RefusedExec, refused.execs);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.add(&self.failures[failure as usize], 1);
    }

    fn add(&self, cell: &AtomicU64, more: u64) {
        if self.is_shared {
            cell.fetch_add(more, Relaxed);
        } else {
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }
}

/// A sum over threads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    cpu_ns: u64,
    background_cpu_ns: u64,
    events: [u64; EVENTS],
    failures: [u64; FAILURES],
}

impl Totals {
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.cpu_ns as f64 / 1e9
    }

    pub(crate) fn background_cpu_seconds(&self) -> f64 {
        self.background_cpu_ns as f64 / 1e9
    }

    pub(crate) fn events(&self, event: Event) -> u64 {
        self.events[event as usize]
    }

    pub(crate) fn failures(&self, failure: Failure) -> u64 {
        self.failures[failure as usize]
    }
}

impl AddAssign<&Counters> for Totals {
    fn add_assign(&mut self, counters: &Counters) {
        self.cpu_ns += counters.cpu_ns.load(Relaxed);
        self.background_cpu_ns += counters.background_cpu_ns.load(Relaxed);
        for (total, cell) in self.events.iter_mut().zip(&counters.events) {
            *total += cell.load(Relaxed);
        }
        for (total, cell) in self.failures.iter_mut().zip(&counters.failures) {
            *total += cell.load(Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn totals_add_up_all_threads() {
        let own = Counters::default();
        own.count(Event::Request);
        own.failed(Failure::CpuLimit);
        own.spent(1_500_000_000);
        own.spent(500_000_000);
        let shared = Arc::new(Counters::shared());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || (0..1000).for_each(|_| shared.count(Event::Request)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        shared.count_many(Event::ThreadLimit, 3);
        shared.spent_between_requests(500_000_000);
        let mut totals = Totals::default();
        totals += &own;
        totals += &shared;
        assert_eq!(totals.events(Event::Request), 4001);
        assert_eq!(totals.events(Event::ThreadLimit), 3);
        assert_eq!((totals.cpu_seconds(), totals.background_cpu_seconds()), (2.5, 0.5));
        assert_eq!(totals.failures(Failure::CpuLimit), 1);
        assert_eq!(totals.failures(Failure::WallLimit), 0);
    }
}
