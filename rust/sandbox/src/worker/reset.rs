// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way back to the snapshot, and what ends a worker instead.

use mayfly_kvm::ResetReport;

use crate::error::CallError;
use crate::worker::progress::WorkerState;
use crate::worker::state::{Pause, Resets};
use crate::worker::worker::Worker;

/// Tables that a worker has made beyond its work set before it is replaced: addresses that requests choose differ, and
/// the tables for them stay.
const TABLES_MAX: u64 = 64;
/// The part of the limit on memory that tables for pages of the snapshot may take.
const TABLES_SHARE: u64 = 16;
/// Pages of a work set for which a table is nothing to wonder at.
const PAGES_A_TABLE: u64 = 8;

impl Worker {
    /// Takes the worker back to its snapshot, exactly. One that keeps its state is only made ready, unless it has had
    /// its number of requests. One that is paused gives its request up and goes back to the snapshot in any case.
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
        self.runner.process.rest();
        self.state = WorkerState::Ready;
        true
    }

    /// Gives up the request under way.
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
    fn reset_to_snapshot(&mut self) -> Result<ResetReport, CallError> {
        self.state = WorkerState::Poisoned;
        if let (Some(served), Some(frozen)) = (&mut self.served, &self.snapshot.inner.service) {
            served.reset(frozen.connection);
        }
        if !self.machine.rewinds() {
            self.machine.set_rewinds(true);
        }
        let pages = self.machine.work_pages();
        let large = pages > self.retained_pages || self.inbox.high_water() > self.retained_bytes;
        let report = if large { self.give_back()? } else { self.machine.reset()? };
        if pages != self.told_pages && !large {
            self.snapshot.inner.learn(self.machine.learned());
            self.told_pages = pages;
        }
        self.runner.process.reset_from(&self.snapshot.inner.process);
        self.clock.reset();
        if self.resets != Resets::Always {
            self.answered = 0;
            self.machine.set_rewinds(false);
            if self.served.is_none() {
                // It stands in the doorbell of the last response, which returns now.
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

    /// Whether page tables that requests have made take too much of what the next one may have. Those for mappings of
    /// requests are made again and again, elsewhere; those for the snapshot's pages, of which there were so many, are
    /// mostly used again.
    #[cold]
    fn has_too_many_tables(&self, pages: u64, of_requests: bool) -> bool {
        let share = self.snapshot.inner.limits.private_memory_bytes / mayfly_machine::PAGE_SIZE / TABLES_SHARE;
        let most = if of_requests { TABLES_MAX } else { share.max(TABLES_MAX) };
        self.tables() > self.forked_tables.saturating_add(most).saturating_add(pages / PAGES_A_TABLE)
    }

    /// Pages of the worker's own that hold nothing of the program's.
    fn tables(&self) -> u64 {
        self.machine.private_pages().saturating_sub(self.machine.work_pages() as u64)
    }

    #[cold]
    fn give_back(&mut self) -> Result<ResetReport, CallError> {
        self.inbox.forget();
        self.told_pages = 0;
        Ok(self.machine.release_work_set()?)
    }
}
