// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets a worker to its snapshot, and decides when to replace it instead.

use mayfly_engine::ResetReport;

use crate::error::CallError;
use crate::worker::progress::WorkerState;
use crate::worker::state::{Pause, Resets};
use crate::worker::worker::Worker;

/// Most page tables that a worker may have made beyond its work set before it is replaced: requests choose different
/// addresses, and the tables for them stay.
const TABLES_MAX: u64 = 64;
/// The part of the limit on memory that tables for pages of the snapshot may take.
const TABLES_SHARE: u64 = 16;
/// The part of the limit on memory that a work set may keep: requests need not all write the same pages, and what stays
/// counts towards the limit of the next one.
const KEPT_SHARE: u64 = 2;
/// Pages of a work set for which one table is normal.
const PAGES_A_TABLE: u64 = 8;

impl Worker {
    /// Resets the worker to its snapshot, exactly. A worker that keeps its state is only made ready, unless it has had
    /// its number of requests. A worker that is paused gives its request up and goes back to its snapshot in any case.
    ///
    /// # Errors
    ///
    /// [`CallError::Failed`] if the kernel refuses to take pages back; the worker is poisoned then.
    /// [`CallError::Poisoned`] if it was so before.
    #[inline]
    pub fn reset(&mut self) -> Result<ResetReport, CallError> {
        match self.state {
            WorkerState::Poisoned => return Err(CallError::Poisoned),
            WorkerState::Paused => self.abandon()?,
            WorkerState::Ready | WorkerState::Answered if self.resets != Resets::Always => {
                if self.keeps_state() {
                    self.cpu_meter.end();
                    return Ok(ResetReport::default());
                }
            }
            WorkerState::Ready | WorkerState::Answered => {}
        }
        self.cpu_meter.begin_reset();
        let report = self.reset_to_snapshot();
        self.cpu_meter.end();
        report
    }

    /// Makes a worker that keeps its state ready, unless it has had its number of requests.
    fn keeps_state(&mut self) -> bool {
        if self.state == WorkerState::Ready {
            return true;
        }
        self.answered = self.answered.wrapping_add(1);
        if matches!(self.resets, Resets::Every(requests) if self.answered >= requests.get()) {
            return false;
        }
        self.runner.rest(&mut self.machine);
        self.state = WorkerState::Ready;
        true
    }

    /// Gives up the request in progress.
    #[cold]
    fn abandon(&mut self) -> Result<(), CallError> {
        self.state = WorkerState::Poisoned;
        self.pause = Pause::Slice;
        if let Some(peer) = &mut self.peer {
            peer.forget();
        }
        Ok(self.machine.abandon()?)
    }

    #[inline]
    pub(super) fn reset_to_snapshot(&mut self) -> Result<ResetReport, CallError> {
        self.state = WorkerState::Poisoned;
        if let (Some(served), Some(frozen)) = (&mut self.served, &self.snapshot.inner.service) {
            served.reset(frozen.connection);
        }
        if !self.machine.rewinds() {
            self.machine.set_rewinds(true);
        }
        let pages = self.machine.work_pages();
        let large = (pages > self.retained_pages && !self.may_keep(pages as u64))
            || self.inbox.high_water() > self.retained_bytes;
        let report = if large { self.give_back()? } else { self.machine.reset()? };
        if pages != self.told_pages && !large {
            self.snapshot.inner.learn(self.machine.learned());
            self.told_pages = pages;
        }
        self.runner.process.reset_from(&self.snapshot.inner.process);
        self.clock.reset();
        self.is_interrupted = false;
        if self.resets != Resets::Always {
            self.answered = 0;
            self.machine.set_rewinds(false);
            if self.served.is_none() {
                // The vCPU stands in the doorbell of the last response, which now returns.
                self.machine.enter_trampoline();
            }
        }
        self.state = WorkerState::Ready;
        if (report.entries > 0 || pages != self.settled_pages)
            && self.has_too_many_tables(pages as u64, report.entries > 0)
        {
            self.state = WorkerState::Poisoned;
        }
        self.settled_pages = pages;
        Ok(report)
    }

    /// Whether page tables that requests have made take too much of the memory that the next one may have. Requests
    /// make tables for their own mappings again and again, at other addresses; tables for the snapshot's pages are
    /// mostly used again.
    #[cold]
    fn has_too_many_tables(&self, pages: u64, of_requests: bool) -> bool {
        let share = self.snapshot.inner.limits.private_memory_bytes / mayfly_machine::PAGE_SIZE / TABLES_SHARE;
        let most = if of_requests { TABLES_MAX } else { share.max(TABLES_MAX) };
        self.tables() > self.forked_tables.saturating_add(most).saturating_add(pages / PAGES_A_TABLE)
    }

    /// Private pages that hold no data of the program.
    fn tables(&self) -> u64 {
        self.machine.private_pages().saturating_sub(self.machine.work_pages() as u64)
    }

    /// Whether a work set may stay that is larger than one that stays in any case. Faults for its pages would cost the
    /// next request far more than their reset, and a worker that is idle is closed where memory is short.
    #[cold]
    fn may_keep(&self, pages: u64) -> bool {
        let limits = &self.snapshot.inner.limits;
        limits.retains_more
            && pages <= limits.private_memory_bytes / mayfly_machine::PAGE_SIZE / KEPT_SHARE
            && self.machine.host().account().is_ample()
    }

    #[cold]
    fn give_back(&mut self) -> Result<ResetReport, CallError> {
        self.inbox.forget();
        self.told_pages = 0;
        Ok(self.machine.release_work_set()?)
    }
}
