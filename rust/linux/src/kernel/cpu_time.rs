// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU time of a program and of each of its threads.
//!
//! It is wall-clock time without the time in which the program did not run: while all its threads waited, while it was
//! frozen, while its request was paused. Time for which the host's scheduler ran other processes counts as the
//! program's; a better measure would cost system calls in every request. A fork begins with its snapshot's CPU time,
//! and a reset restores that. See decision 0182.

use crate::base::clock;
use crate::kernel::process::Process;
use crate::sched::cpu_time::CpuTime;

impl Process {
    /// Starts to count at a time of the host's monotonic clock. If the program has been running without a
    /// [`Process::rest`], the time before does not count.
    #[inline]
    pub fn run_from(&mut self, now_ns: u64) {
        self.cpu.since_ns = Some(now_ns);
    }

    /// Stops counting: the program does not run, or not for now.
    pub fn rest(&mut self) {
        self.charge();
        self.cpu.since_ns = None;
    }

    /// Starts to count unless the program is running already.
    pub(crate) fn run_on(&mut self) {
        if self.cpu.since_ns.is_none() {
            self.cpu.since_ns = Some(clock::now_ns());
        }
    }

    /// Charges the time so far to the running thread.
    pub(crate) fn charge(&mut self) {
        let Some(since) = self.cpu.since_ns else { return };
        let now = clock::now_ns();
        let used = now.saturating_sub(since);
        self.cpu = CpuTime { used_ns: self.cpu.used_ns.saturating_add(used), since_ns: Some(now) };
        let live = self.threads.live;
        if let Some(thread) = live.and_then(|live| self.threads.edit().get_mut(live)) {
            thread.cpu_ns = thread.cpu_ns.saturating_add(used);
        }
    }

    /// CPU time of all threads, including those that have ended.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.cpu.now()
    }

    /// CPU time of the thread at this index.
    pub(crate) fn thread_cpu_ns(&self, index: usize) -> Option<u64> {
        let used = self.threads.get(index)?.cpu_ns;
        Some(if self.threads.live == Some(index) { used.saturating_add(self.cpu.unaccounted()) } else { used })
    }
}
