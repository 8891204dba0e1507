// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU time: how long a program, and each of its threads, has been running.
//!
//! It is wall-clock time without the time in which the program did not run: while all its threads waited, while it
//! stood frozen, while its request was paused. What the host's scheduler gave to others meanwhile counts as the
//! program's own; to know better would cost system calls in every request. A fork begins with what its snapshot has
//! used, and a reset goes back to that. See decision 0182.

use crate::base::clock;
use crate::kernel::process::Process;
use crate::sched::cpu_time::CpuTime;

impl Process {
    /// The program runs, from a time of the host's monotonic clock on. If it has been running without a
    /// [`Process::rest`], the time before does not count.
    #[inline]
    pub fn run_from(&mut self, now_ns: u64) {
        self.cpu.since_ns = Some(now_ns);
    }

    /// The program does not run any more, or not for now.
    pub fn rest(&mut self) {
        self.charge();
        self.cpu.since_ns = None;
    }

    /// It runs, if it did not.
    pub(crate) fn run_on(&mut self) {
        if self.cpu.since_ns.is_none() {
            self.cpu.since_ns = Some(clock::now_ns());
        }
    }

    /// Counts the time so far as that of the thread that has been running.
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

    /// CPU time of all threads, with those that have ended.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.cpu.now()
    }

    /// CPU time of the thread at this position.
    pub(crate) fn thread_cpu_ns(&self, index: usize) -> Option<u64> {
        let used = self.threads.get(index)?.cpu_ns;
        Some(if self.threads.live == Some(index) { used.saturating_add(self.cpu.unaccounted()) } else { used })
    }
}
