// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of a processor a tenant's programs use between requests.
//!
//! Each leg is paid for with the wall-clock time of which its CPU time is the tenant's share. A leg may begin while no
//! more than [`WINDOW_NS`] is paid for ahead: over any time, the programs get their share of that time and of one
//! window, and what a leg has taken too much is missing afterwards.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::cpu_share::CpuShare;

/// A program that has used nothing may use its share of this time at once.
const WINDOW_NS: u64 = 1_000_000_000;
/// What a leg costs at least: changes of threads, of machines and of their caches, which no clock counts for it.
const LEAST_NS: u64 = 50_000;

/// Time between legs that are tried again, at least.
const TRY_NS: u64 = 1_000_000;

/// One tenant's budget.
#[derive(Debug, Default)]
pub(crate) struct BackgroundBudget {
    /// Until when it is paid for, by the monotonic clock.
    paid_until_ns: AtomicU64,
    /// When the last leg that could not begin is tried again.
    next_try_ns: AtomicU64,
}

impl BackgroundBudget {
    /// When the next leg may begin: a time that is over if it may begin now. `None`: never.
    pub(crate) fn free_at_ns(&self) -> Option<u64> {
        let paid_ns = self.paid_until_ns.load(Ordering::Relaxed);
        (paid_ns != u64::MAX).then(|| paid_ns.saturating_sub(WINDOW_NS))
    }

    /// When a leg is tried again that could not begin before `free_at_ns`. Each leg has another time, as far apart as
    /// if each cost the least: otherwise all workers of a tenant would be tried together, most of them in vain.
    pub(crate) fn try_again_ns(&self, share: CpuShare, free_at_ns: u64) -> u64 {
        let apart_ns = share.wall_ns(LEAST_NS).unwrap_or(u64::MAX).max(TRY_NS);
        let next = |last_ns: u64| last_ns.saturating_add(apart_ns).max(free_at_ns);
        let more = |last_ns| Some(next(last_ns));
        let (Ok(last_ns) | Err(last_ns)) = self.next_try_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        next(last_ns)
    }

    /// No leg begins any more.
    pub(crate) fn end(&self) {
        self.paid_until_ns.store(u64::MAX, Ordering::Relaxed);
    }

    /// A leg has ended at `now_ns`, and has used `cpu_ns`. Programs without a share do not run again.
    pub(crate) fn charge(&self, share: CpuShare, now_ns: u64, cpu_ns: u64) {
        let wall_ns = share.wall_ns(cpu_ns.max(LEAST_NS)).unwrap_or(u64::MAX);
        let more = |paid_ns: u64| Some(paid_ns.max(now_ns).saturating_add(wall_ns));
        let _ = self.paid_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// CPU time of a program that always runs when it may, for `cpu_ns` at a time.
    fn used_within(budget: &BackgroundBudget, share: CpuShare, from_ns: u64, to_ns: u64, cpu_ns: u64) -> u64 {
        let (mut now, mut used) = (from_ns, 0);
        loop {
            now = now.max(budget.free_at_ns().unwrap());
            if now >= to_ns {
                return used;
            }
            now += cpu_ns;
            used += cpu_ns;
            budget.charge(share, now, cpu_ns);
        }
    }

    #[test]
    fn a_program_that_never_rests_gets_its_share() {
        let budget = BackgroundBudget::default();
        let share = CpuShare::BETWEEN_REQUESTS;
        // The window's share, and that of the time.
        let first = used_within(&budget, share, SECOND, 2 * SECOND, 1_000_000);
        assert!((95_000_000..=101_000_000).contains(&first), "{first}");
        let then = used_within(&budget, share, 2 * SECOND, 12 * SECOND, 1_000_000);
        assert!((495_000_000..=505_000_000).contains(&then), "{then}");
        // After a pause it has no more than a window's share ahead.
        let later = used_within(&budget, share, 100 * SECOND, 101 * SECOND, 1_000_000);
        assert!((95_000_000..=101_000_000).contains(&later), "{later}");
        // What it has taken too much is missing afterwards: its share of 21 seconds, and one leg.
        let long = used_within(&budget, share, 200 * SECOND, 220 * SECOND, 500_000_000);
        assert!((1_000_000_000..=1_550_000_000).contains(&long), "{long}");
    }

    #[test]
    fn legs_that_are_tried_again_have_times_of_their_own() {
        let budget = BackgroundBudget::default();
        let again = |free_at_ns| budget.try_again_ns(CpuShare::BETWEEN_REQUESTS, free_at_ns);
        // A thousandth of a second each, for 50 us at a twentieth.
        assert_eq!([again(SECOND), again(SECOND), again(SECOND)], [SECOND, SECOND + 1_000_000, SECOND + 2_000_000]);
        assert_eq!(again(5 * SECOND), 5 * SECOND);
    }

    #[test]
    fn nothing_revives_a_budget_that_has_ended() {
        let budget = BackgroundBudget::default();
        assert_eq!(budget.free_at_ns(), Some(0));
        budget.end();
        // A leg that was running meanwhile ends.
        budget.charge(CpuShare::BETWEEN_REQUESTS, SECOND, 1_000_000);
        assert_eq!(budget.free_at_ns(), None);
    }

    #[test]
    fn legs_that_do_almost_nothing_are_bounded_in_number() {
        let budget = BackgroundBudget::default();
        let used = used_within(&budget, CpuShare::BETWEEN_REQUESTS, SECOND, 11 * SECOND, 1000);
        // Ten seconds and the window, at 20 times 50 us each.
        assert!((10_900_000..=11_100_000).contains(&used), "{used}");
    }
}
