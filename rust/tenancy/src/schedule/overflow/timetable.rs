// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the programs of idle workers run between requests: one timetable for all workers.
//!
//! An entry names its worker's place, and not the worker: that stays where its next request finds it. A worker without
//! a timer that is due has no entry, and costs nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::model::generation::Forked;
use crate::model::leg_timer::{LegEntry, LegKeeper};
use crate::model::slots::SlotNumber;
use crate::model::tenant::Tenant;
use crate::model::worker_mailbox::WorkerMailbox;
use crate::schedule::sleepers::Sleepers;

/// No entry is due.
const NEVER: u64 = u64::MAX;
/// The time of an entry that is only due when its worker's descriptor is ready.
pub(super) const UNTIL_READY: u64 = u64::MAX - 1;

/// Where an idle worker is.
#[derive(Debug, Clone)]
pub(crate) enum LegPlace {
    /// One of a fixed number.
    Slot(SlotNumber),
    /// One of a loop's own.
    Mailbox(Weak<WorkerMailbox>),
}

impl LegPlace {
    /// Takes the worker with this entry. `None`: it has a request, or is gone.
    pub(super) fn take(&self, tenant: &Tenant, number: u64) -> Option<Forked> {
        match self {
            Self::Slot(slot) => tenant.fixed.take_for_leg(*slot, number),
            Self::Mailbox(mailbox) => mailbox.upgrade()?.take_for_leg(number),
        }
    }

    /// Calls `look` with the worker with this entry, if it is idle.
    pub(super) fn with(&self, tenant: &Tenant, number: u64, look: impl FnOnce(&Forked)) {
        match self {
            Self::Slot(slot) => tenant.fixed.with_idle(*slot, number, look),
            Self::Mailbox(mailbox) => {
                if let Some(mailbox) = mailbox.upgrade() {
                    mailbox.with(number, look);
                }
            }
        }
    }
}

/// A program that is to run.
#[derive(Debug, Clone)]
pub(super) struct DueLeg {
    pub(super) tenant: Weak<Tenant>,
    pub(super) place: LegPlace,
}

/// The timetable.
#[derive(Debug)]
pub(super) struct Timetable {
    legs: Mutex<Legs>,
    /// The earliest entry's time, for threads that only look. Written under the lock.
    earliest_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Legs {
    all: Sleepers<DueLeg>,
    /// Those that have not been started, and whether their worker's descriptor has become ready meanwhile.
    new: HashMap<u64, bool>,
}

impl Default for Timetable {
    fn default() -> Self {
        Self { legs: Mutex::default(), earliest_ns: AtomicU64::new(NEVER) }
    }
}

impl Timetable {
    /// Adds an entry that is not due before [`Self::start`]. The caller starts it when the worker is in its place,
    /// since a thread that finds the place empty does nothing more. It is there until the worker drops it.
    pub(super) fn add(self: &Arc<Self>, until_ns: u64, leg: DueLeg) -> LegEntry {
        let mut legs = self.legs();
        let number = legs.all.next_number();
        legs.all.push(UNTIL_READY, leg);
        legs.new.insert(number, false);
        self.note(&legs);
        drop(legs);
        LegEntry::new(number, until_ns, Arc::clone(self) as Arc<dyn LegKeeper>)
    }

    /// Makes an entry due at `until_ns`, if it is still there, or at once if its worker's descriptor is ready. Returns
    /// whether it is the earliest now.
    pub(super) fn start(&self, number: u64, until_ns: u64) -> bool {
        let mut legs = self.legs();
        let is_ready = legs.new.remove(&number) == Some(true);
        legs.all.move_to(number, if is_ready { 0 } else { until_ns.min(UNTIL_READY) }) && self.note(&legs)
    }

    /// Makes an entry due now, since its worker's descriptor is ready, or as soon as it is started. Returns whether it
    /// is the earliest now.
    pub(super) fn tell_ready(&self, number: u64) -> bool {
        let mut legs = self.legs();
        if let Some(is_ready) = legs.new.get_mut(&number) {
            *is_ready = true;
            return false;
        }
        legs.all.move_to(number, 0) && self.note(&legs)
    }

    /// Finds an entry that is due, and its number. It is not due again before [`Self::start`].
    pub(super) fn pop_due(&self, now_ns: u64) -> Option<(u64, DueLeg)> {
        if self.earliest_ns.load(Ordering::Relaxed) > now_ns {
            return None;
        }
        let mut legs = self.legs();
        let due = legs.all.put_off_due(now_ns, UNTIL_READY).map(|(number, leg)| (number, leg.clone()));
        self.note(&legs);
        due
    }

    /// The earliest entry's time.
    pub(super) fn earliest_ns(&self) -> Option<u64> {
        Some(self.earliest_ns.load(Ordering::Relaxed)).filter(|earliest| *earliest < UNTIL_READY)
    }

    /// Publishes the earliest entry's time. Returns whether it is earlier than before.
    fn note(&self, legs: &Legs) -> bool {
        let earliest_ns = legs.all.earliest_ns().unwrap_or(NEVER);
        self.earliest_ns.swap(earliest_ns, Ordering::Relaxed) > earliest_ns
    }

    fn legs(&self) -> MutexGuard<'_, Legs> {
        // Each step leaves it usable, so the timetable is consistent even if a thread panicked while it held the lock.
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LegKeeper for Timetable {
    fn forget(&self, number: u64) {
        let mut legs = self.legs();
        legs.new.remove(&number);
        if legs.all.remove(number).is_some() {
            self.note(&legs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg() -> DueLeg {
        DueLeg { tenant: Weak::new(), place: LegPlace::Mailbox(Weak::new()) }
    }

    /// An entry that is due at this time, and whether it is the earliest.
    fn started(table: &Arc<Timetable>, until_ns: u64) -> (LegEntry, bool) {
        let entry = table.add(until_ns, leg());
        let is_first = table.start(entry.number, until_ns);
        (entry, is_first)
    }

    #[test]
    fn an_entry_is_not_due_before_its_worker_is_in_its_place() {
        let table = Arc::new(Timetable::default());
        let entry = table.add(10, leg());
        assert!(table.pop_due(1 << 60).is_none() && table.earliest_ns().is_none());
        assert!(table.start(entry.number, entry.until_ns));
        assert!(table.pop_due(10).is_some());
        assert!(table.pop_due(1 << 60).is_none(), "it has been taken");
        assert!(table.start(entry.number, 5), "until it is started again");
        drop(entry);
        assert_eq!(table.earliest_ns(), None);
    }

    #[test]
    fn a_descriptor_that_is_ready_before_its_worker_is_in_its_place_is_not_forgotten() {
        let table = Arc::new(Timetable::default());
        let entry = table.add(1 << 60, leg());
        assert!(!table.tell_ready(entry.number) && table.pop_due(10).is_none());
        assert!(table.start(entry.number, entry.until_ns));
        assert!(table.pop_due(10).is_some());
        // It has been told once.
        assert!(table.start(entry.number, 20) && table.pop_due(10).is_none());
        assert!(table.tell_ready(entry.number) && table.pop_due(10).is_some());
        let number = entry.number;
        drop(entry);
        assert!(!table.tell_ready(number) && table.legs().new.is_empty());
    }

    #[test]
    fn a_worker_that_is_closed_leaves_no_entry_behind() {
        let table = Arc::new(Timetable::default());
        let (first, is_first) = started(&table, 20);
        let (second, is_earlier) = started(&table, 10);
        assert!(is_first && is_earlier);
        assert!(!started(&table, 30).1, "and it is gone at once");
        assert_eq!(table.earliest_ns(), Some(10));
        drop(second);
        assert_eq!(table.earliest_ns(), Some(20));
        assert!(table.pop_due(19).is_none());
        assert_eq!(table.pop_due(20).map(|(number, _)| number), Some(first.number));
        // Its entry has been taken, and is still there.
        assert!(table.start(first.number, 30));
        let number = first.number;
        drop(first);
        assert_eq!(table.earliest_ns(), None);
        assert!(!table.start(number, 30));
    }
}
