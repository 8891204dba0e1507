// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many requests that have begun may be away from the loops: of all tenants, and half of these of one.
//!
//! Those that run or wait for a turn have a *room* each, of which there are few: they share a few threads. Those that sleep have a *bed*
//! each, of which there are more: a sleeper takes up memory, but no thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::tenant::Tenant;

/// Rooms for each thread that gives turns.
const ROOMS_PER_THREAD: usize = 16;
/// Beds for each of them.
const BEDS_PER_THREAD: usize = 128;

/// What a request takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Room,
    Bed,
}

/// Numbers of places taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    rooms: AtomicUsize,
    beds: AtomicUsize,
}

impl Taken {
    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Room => &self.rooms,
            Kind::Bed => &self.beds,
        }
    }
}

/// All places of a server.
#[derive(Debug)]
pub(crate) struct Places {
    threads: usize,
    taken: Arc<Taken>,
}

/// One of them, taken; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    kind: Kind,
    taken: Arc<Taken>,
    tenant: Arc<Tenant>,
}

impl Places {
    /// As many as `threads` threads are good for.
    pub(crate) fn new(threads: u32) -> Self {
        Self { threads: threads as usize, taken: Arc::default() }
    }

    /// A place for a request of this tenant, if one is free for it.
    pub(crate) fn take(&self, kind: Kind, tenant: &Arc<Tenant>) -> Option<Place> {
        let own = tenant.places.of(kind);
        if !count_up(own, self.share(kind)) {
            return None;
        }
        if !count_up(self.taken.of(kind), self.most(kind)) {
            own.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place { kind, taken: Arc::clone(&self.taken), tenant: Arc::clone(tenant) })
    }

    /// Whether a tenant has all that it may have.
    pub(crate) fn has_share(&self, kind: Kind, tenant: &Tenant) -> bool {
        tenant.places.of(kind).load(Ordering::Relaxed) >= self.share(kind)
    }

    /// How many are taken, of both kinds.
    pub(crate) fn taken(&self) -> usize {
        [Kind::Room, Kind::Bed].map(|kind| self.taken.of(kind).load(Ordering::Relaxed)).iter().sum()
    }

    fn most(&self, kind: Kind) -> usize {
        self.threads
            * match kind {
                Kind::Room => ROOMS_PER_THREAD,
                Kind::Bed => BEDS_PER_THREAD,
            }
    }

    fn share(&self, kind: Kind) -> usize {
        self.most(kind).div_ceil(2)
    }
}

impl Place {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.of(self.kind).fetch_sub(1, Ordering::Relaxed);
        self.tenant.places.of(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, unless there are `most`.
fn count_up(counter: &AtomicUsize, most: usize) -> bool {
    let more = |count| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}
