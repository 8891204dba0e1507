// SPDX-License-Identifier: MIT OR Apache-2.0
//! A system call in progress.

use mayfly_engine::Machine;

use crate::base::context::{Context, Stream};
use crate::base::errno::Errno;
use crate::base::halt::{Halt, Wait};
use crate::kernel::process::Process;
use crate::kernel::unknown::{self, ProcessCall};
use crate::mm::user::UserMemory;
use crate::signal::signals::Signal;

/// A system call in progress.
#[derive(Debug)]
pub(crate) struct Call<'a, 'c> {
    pub(crate) process: &'a mut Process,
    pub(crate) machine: &'a mut Machine,
    pub(crate) context: &'a mut Context<'c>,
    /// RDI, RSI, RDX, R10, R8, R9.
    pub(crate) args: [u64; 6],
    /// The call has waited, and is being repeated.
    pub(crate) waited: Option<Wait>,
    /// [`Process::edits`] when the call began; `None`: it has changed something else.
    pub(crate) edits: Option<u32>,
}

impl Call<'_, '_> {
    /// The program's memory.
    pub(crate) fn user(&mut self) -> UserMemory<'_> {
        let may_block = self.may_wait_for_memory();
        UserMemory {
            machine: self.machine,
            space: &self.process.memory,
            inodes: self.process.overlay.inodes(),
            may_block,
        }
    }

    /// Whether to wait for a page of the program's that is not in memory. A call that has changed something must wait:
    /// it cannot be repeated.
    pub(crate) fn may_wait_for_memory(&self) -> bool {
        self.context.may_block || self.edits != Some(self.process.edits())
    }

    /// Marks a change that [`Process::edits`] does not count, or that errors are ignored from here on.
    pub(crate) fn commit(&mut self) {
        self.edits = None;
    }

    /// The deadline of a call that may wait. `find` reads it from the arguments once: a repeated call keeps its
    /// deadline.
    pub(crate) fn until(
        &mut self,
        find: impl FnOnce(&mut Self) -> Result<Option<u64>, Halt>,
    ) -> Result<Option<u64>, Halt> {
        match self.waited {
            Some(wait) => Ok(wait.until_ns),
            None => find(self),
        }
    }

    /// Marks a point after which the call may be repeated without repeating what it has changed so far.
    pub(crate) fn begin(&mut self) {
        self.edits = Some(self.process.edits());
    }

    /// Sends a signal to the calling thread: SIGPIPE. An error ends the program; otherwise the call continues to its
    /// result.
    pub(crate) fn raise_on_current(&mut self, signal: Signal) -> Result<(), Halt> {
        self.process.raise_on_current(self.machine, signal).map_err(Halt::End)
    }

    /// Records a change of pipes, sockets or counters, for which threads may wait.
    pub(crate) fn note_change(&mut self) {
        self.process.note_change();
    }

    /// Number of bytes that a waiting call has transferred so far.
    pub(crate) fn progress(&self) -> usize {
        if self.waited.is_some() { self.process.threads.current().progress } else { 0 }
    }

    /// Makes the call wait, with `progress` bytes transferred.
    pub(crate) fn wait_with_progress(&mut self, wait: Wait, progress: usize) -> Halt {
        self.process.threads.edit().current_mut().progress = progress;
        wait.into()
    }
}

/// Counts an unknown call, logs its name the first time, and returns its error.
pub(crate) fn unknown(process: &mut Process, context: &mut Context<'_>, number: u64) -> Errno {
    let refused = &mut process.refused;
    match unknown::process_call(number) {
        Some(ProcessCall::New) => refused.forks = refused.forks.saturating_add(1),
        Some(ProcessCall::Program) => refused.execs = refused.execs.saturating_add(1),
        None => {}
    }
    if let Some(line) = process.shared.unknown.count(number) {
        context.output.write(Stream::Stderr, line.as_bytes());
    }
    Errno::ENOSYS
}
