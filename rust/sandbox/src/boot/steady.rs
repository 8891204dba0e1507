// SPDX-License-Identifier: MIT OR Apache-2.0
//! Warm-up requests that are repeated until the program is steady.
//!
//! Compilers and garbage collectors work in bursts, on threads of their own, and leave the last step to the next
//! request. A program that is frozen before that step takes it in every request; one that is frozen before its code is
//! compiled runs it as it is, for ever.

use crate::boot::boot::Boot;
use crate::error::BootError;
use crate::protocol::WarmUp;
use crate::service::Served;
use crate::time::host_clock;

/// A batch of requests has as many at most, and no more than fit in this CPU time, unless they are few.
const BATCH_REQUESTS: u32 = 512;
const BATCH_CPU_NS: u64 = 50_000_000;
const BATCH_LEAST: u32 = 8;
/// The cost falls if a batch costs less than this part of the cheapest before: less is noise.
const FALLS_PERCENT: u64 = 95;
/// Batches in a row that cost no less than the one before; then the cost has stopped falling. Compilers raise it first.
const FLAT_BATCHES: u32 = 4;
/// Most time for these batches.
const CHEAP_NS: u64 = 2_000_000_000;

/// The program is steady after this many requests in a row that cost no more exits than any before. After a burst of
/// work fewer are enough, since the next burst is far.
const STEADY_REQUESTS: u32 = 32;
const STEADY_AFTER_BURST: u32 = 8;
/// Most such requests, and most time; then the program is frozen anyway.
const STEADY_REQUESTS_MAX: usize = 1000;
const STEADY_NS: u64 = 1_000_000_000;

/// The cost of batches, until it stops falling.
#[derive(Debug)]
struct Falling {
    least: u64,
    flat: u32,
}

impl Falling {
    fn new() -> Self {
        Self { least: u64::MAX, flat: 0 }
    }

    /// Adds a batch's cost. Whether the cost has stopped falling.
    fn has_ended(&mut self, cost: u64) -> bool {
        let falls = u128::from(cost) * 100 < u128::from(self.least) * u128::from(FALLS_PERCENT);
        self.flat = if falls { 0 } else { self.flat + 1 };
        self.least = self.least.min(cost);
        self.flat >= FLAT_BATCHES
    }
}

impl Boot<'_> {
    /// Repeats the warm-up requests until they cost no less CPU time than before, and then until they cost no more
    /// exits than at best.
    pub(super) fn run_until_steady(&mut self, served: &mut Served, warm_ups: &[&WarmUp]) -> Result<(), BootError> {
        if warm_ups.is_empty() {
            return Ok(());
        }
        let mut answered = 0;
        self.run_until_cheap(served, warm_ups, &mut answered)?;
        self.run_until_level(served, warm_ups, &mut answered)
    }

    fn run_until_cheap(
        &mut self,
        served: &mut Served,
        warm_ups: &[&WarmUp],
        answered: &mut u32,
    ) -> Result<(), BootError> {
        let end_ns = host_clock::monotonic_ns().saturating_add(CHEAP_NS);
        // The rest of the boot needs CPU time, too.
        let cpu_left_ns = self.cpu_left_ns / 2;
        let mut falling = Falling::new();
        loop {
            let (before_ns, mut requests, mut used_ns) = (self.cpu_left_ns, 0, 0);
            while requests < BATCH_LEAST || requests < BATCH_REQUESTS && used_ns < BATCH_CPU_NS {
                // Each batch has as many of each.
                for warm_up in warm_ups {
                    self.repeat(served, warm_up, answered)?;
                    requests += 1;
                }
                used_ns = before_ns.saturating_sub(self.cpu_left_ns);
                if host_clock::monotonic_ns() >= end_ns || self.cpu_left_ns < cpu_left_ns {
                    return Ok(());
                }
            }
            if falling.has_ended(used_ns / u64::from(requests)) {
                return Ok(());
            }
        }
    }

    fn run_until_level(
        &mut self,
        served: &mut Served,
        warm_ups: &[&WarmUp],
        answered: &mut u32,
    ) -> Result<(), BootError> {
        let end_ns = host_clock::monotonic_ns().saturating_add(STEADY_NS);
        let mut all_least = vec![u64::MAX; warm_ups.len()];
        let (mut steady, mut burst) = (0, false);
        let turns = (0..warm_ups.len()).cycle().take(STEADY_REQUESTS_MAX);
        for which in turns {
            let (Some(warm_up), Some(least)) = (warm_ups.get(which), all_least.get_mut(which)) else { break };
            let enough = if burst { STEADY_AFTER_BURST } else { STEADY_REQUESTS };
            if steady >= enough || host_clock::monotonic_ns() >= end_ns {
                break;
            }
            let before = self.exits.all;
            self.repeat(served, warm_up, answered)?;
            let exits = self.exits.all.saturating_sub(before);
            steady = if exits <= *least { steady + 1 } else { 0 };
            burst |= exits > *least;
            *least = exits.min(*least);
        }
        Ok(())
    }

    /// Makes the request, and lets the program finish what that leaves to its other threads.
    fn repeat(&mut self, served: &mut Served, warm_up: &WarmUp, answered: &mut u32) -> Result<(), BootError> {
        self.progress.repeats(warm_up, *answered);
        self.warm_up(served, warm_up)?;
        *answered = answered.saturating_add(1);
        self.rest(served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_falls_until_batches_in_a_row_are_no_cheaper() {
        let ends = |costs: &[u64]| {
            let mut falling = Falling::new();
            costs.iter().position(|cost| falling.has_ended(*cost))
        };
        // The first has nothing to compare with.
        assert_eq!(ends(&[100, 100, 100, 100, 100]), Some(4));
        // Noise is no fall, and neither is a slow one.
        assert_eq!(ends(&[100, 103, 96, 99, 98, 1]), Some(4));
        // A compiler costs first.
        assert_eq!(ends(&[100, 150, 140, 60, 30, 30, 31, 29, 30]), Some(8));
        assert_eq!(ends(&[100, 90, 80, 70, 60, 50]), None);
        assert_eq!(ends(&[u64::MAX, u64::MAX, 0, 0, 0, 0, 0]), Some(6));
    }
}
