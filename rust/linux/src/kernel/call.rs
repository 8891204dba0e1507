// SPDX-License-Identifier: MIT OR Apache-2.0
//! A system call in progress.

use mayfly_kvm::Machine;

use crate::base::context::{Context, Stream};
use crate::base::errno::Errno;
use crate::base::halt::{Halt, Wait};
use crate::kernel::process::Process;
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
    /// The call has waited, and is made again.
    pub(crate) waited: Option<Wait>,
    /// [`Process::edits`] when it began; `None`: it has changed something else.
    pub(crate) edits: Option<u32>,
}

impl Call<'_, '_> {
    /// The program's memory.
    pub(crate) fn user(&mut self) -> UserMemory<'_> {
        let may_block = self.may_wait_for_memory();
        UserMemory { machine: self.machine, space: &self.process.memory, may_block }
    }

    /// Whether a page of the program's that is not in memory is waited for. A call that has changed something has to
    /// be: it cannot be made again.
    pub(crate) fn may_wait_for_memory(&self) -> bool {
        self.process.may_block || self.edits != Some(self.process.edits())
    }

    /// The call has changed something that [`Process::edits`] does not count, or ignores errors from here on.
    pub(crate) fn commit(&mut self) {
        self.edits = None;
    }

    /// When a call that may wait is to end in any case. `find` reads that from its arguments, once: made again, it
    /// keeps its time.
    pub(crate) fn until(
        &mut self,
        find: impl FnOnce(&mut Self) -> Result<Option<u64>, Halt>,
    ) -> Result<Option<u64>, Halt> {
        match self.waited {
            Some(wait) => Ok(wait.until_ns),
            None => find(self),
        }
    }

    /// What has been changed so far is not to be done again if the call is.
    pub(crate) fn begin(&mut self) {
        self.edits = Some(self.process.edits());
    }

    /// Sends the thread that makes the call a signal: SIGPIPE. An error is the program's end; otherwise the call goes
    /// on to its result.
    pub(crate) fn raise_on_current(&mut self, signal: Signal) -> Result<(), Halt> {
        self.process.raise_on_current(self.machine, signal).map_err(Halt::End)
    }

    /// What wakes who waits has changed: pipes, sockets, counters.
    pub(crate) fn note_change(&mut self) {
        self.process.note_change();
    }

    /// How much a call has transferred that waits to transfer the rest.
    pub(crate) fn progress(&self) -> usize {
        if self.waited.is_some() { self.process.threads.current().progress } else { 0 }
    }

    /// Has the call wait, with this much transferred.
    pub(crate) fn wait_with_progress(&mut self, wait: Wait, progress: usize) -> Halt {
        self.process.threads.edit().current_mut().progress = progress;
        wait.into()
    }
}

/// Counts a call that does not exist, names it in the log if it is the first, and returns what the program is told.
pub(crate) fn unknown(process: &Process, context: &mut Context<'_>, number: u64) -> Errno {
    if let Some(line) = process.shared.unknown.count(number) {
        context.output.write(Stream::Stderr, line.as_bytes());
    }
    Errno::ENOSYS
}
