// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets that follow the response: see decision 262. So does what has the next worker prepared: see decision 284.

use std::sync::Arc;

use crate::model::failure::RequestId;
use crate::model::generation::Forked;
use crate::model::route::TenantIndex;
use crate::pool::LoopPool;
use crate::run::call::{Call, reset_answered};

impl LoopPool {
    /// Lets [`Self::call`] return before it resets a worker with a large work set, or has one prepared for its next
    /// request, so that the response can be written first. The caller must then check [`Self::resets_are_due`] after
    /// each call.
    pub fn defer_resets(&mut self) {
        self.defers_resets = true;
    }

    /// Whether to call [`Self::reset_answered`] once the response is written. In any case, the next call of the
    /// worker's tenant resets the worker.
    #[inline]
    #[must_use]
    pub fn resets_are_due(&self) -> bool {
        !self.unreset.is_empty()
    }

    /// Resets the workers whose reset was deferred, and has those prepared that need it.
    pub fn reset_answered(&mut self) {
        while let Some((index, id)) = self.unreset.pop() {
            let reset = match self.slots[index].worker.take() {
                Some(unreset) if !unreset.is_ready() => self.finish_reset(index, id, unreset),
                ready => ready,
            };
            if let Some(forked) = reset {
                self.prepare_next(index, forked);
            }
        }
    }

    /// Has a slot's worker prepared for its next request: now, or in [`Self::reset_answered`].
    #[cold]
    pub(super) fn prepare_answered(&mut self, index: TenantIndex, id: RequestId) {
        if self.defers_resets {
            self.note_answered(index, id);
        } else if let Some(forked) = self.slots[index].worker.take() {
            self.prepare_next(index, forked);
        }
    }

    /// Has a worker that was reset prepared for its next request, if it needs that. Otherwise the loop keeps it, unless
    /// one waits in the mailbox, which may be prepared.
    fn prepare_next(&mut self, index: TenantIndex, forked: Forked) {
        let tenant = &self.set.tenants[index];
        let slot = &mut self.slots[index];
        if !forked.needs_hook() {
            slot.worker = Some(forked);
            return;
        }
        let mailbox = Arc::clone(&slot.share(tenant).mailbox);
        let background = self.server.background();
        match background.overflow.prepare(tenant, forked, &mailbox, false) {
            Ok(()) => self.held -= 1,
            Err(forked) if forked.is_ephemeral() && mailbox.has_spare() => {
                self.held -= 1;
                background.orders.close(forked);
            }
            Err(forked) => slot.worker = Some(forked),
        }
    }

    /// Keeps a worker that still has to be reset.
    #[cold]
    pub(super) fn defer_reset(&mut self, index: TenantIndex, call: Call) {
        let slot = &mut self.slots[index];
        slot.last_used_ns = call.forked.worker.last_started_ns();
        slot.worker = Some(call.forked);
        self.note_answered(index, call.id);
    }

    fn note_answered(&mut self, index: TenantIndex, request: RequestId) {
        match self.unreset.iter_mut().find(|(other, _)| *other == index) {
            Some((_, id)) => *id = request,
            None => self.unreset.push((index, request)),
        }
    }

    /// Resets a worker that is called again before that was done.
    #[cold]
    pub(super) fn reset_now(&mut self, index: TenantIndex, forked: Forked) -> Option<Forked> {
        let at = self.unreset.iter().position(|(other, _)| *other == index);
        let id = at.map_or(RequestId::NONE, |at| self.unreset.swap_remove(at).1);
        self.finish_reset(index, id, forked)
    }

    /// Resets a worker that has answered. If that fails, the worker is closed and replaced.
    #[cold]
    fn finish_reset(&mut self, index: TenantIndex, id: RequestId, mut forked: Forked) -> Option<Forked> {
        let tenant = &self.set.tenants[index];
        let slot = &mut self.slots[index];
        let share = slot.share(tenant);
        reset_answered(&mut forked, id, tenant, &share.counters);
        if forked.is_ready() {
            return Some(forked);
        }
        self.held -= 1;
        let orders = &self.server.background().orders;
        orders.fork(tenant, &share.mailbox);
        orders.close(forked);
        None
    }
}
