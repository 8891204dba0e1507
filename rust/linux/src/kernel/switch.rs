// SPDX-License-Identifier: MIT OR Apache-2.0
//! Context switches: which thread's context the vCPU has.

use mayfly_engine::{Machine, RunError};

use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::step::{Fault, Step};
use crate::kernel::process::Process;
use crate::sched::threads::ThreadState;

impl Process {
    /// Ends the call of a waiting thread with `value`.
    pub(crate) fn end_call(&mut self, machine: &mut Machine, index: usize, value: u64) -> Result<(), Step> {
        let threads = self.threads.edit();
        let is_live = threads.live == Some(index);
        if let Some(thread) = threads.get_mut(index) {
            thread.state = ThreadState::Ready;
            if let Some(saved) = &mut thread.saved {
                saved.regs.rax = value;
            }
        }
        if is_live { return_value(machine, value) } else { Ok(()) }
    }

    /// Saves the live thread's context from the vCPU; `false` if it cannot be saved now.
    pub(crate) fn save_live(&mut self, machine: &mut Machine) -> Result<bool, Step> {
        let Some(live) = self.threads.live else { return Ok(true) };
        let Some(context) = machine.context().map_err(poison)? else { return Ok(false) };
        self.charge();
        let threads = self.threads.edit();
        threads.live = None;
        threads.entry = None;
        if let Some(thread) = threads.get_mut(live) {
            thread.saved = Some(context);
        }
        Ok(true)
    }

    /// Loads a thread's context into the vCPU.
    pub(crate) fn switch_to(&mut self, machine: &mut Machine, index: usize) -> Result<(), Step> {
        self.run_on();
        if self.threads.live == Some(index) {
            return Ok(());
        }
        if !self.save_live(machine)? {
            return Err(Step::Poison("a thread was switched away from whose context cannot be saved".into()));
        }
        let threads = self.threads.edit();
        let by_itself = threads.entry.take() == Some(index);
        threads.live = Some(index);
        let saved = threads.get_mut(index).and_then(|thread| thread.saved.take());
        let Some(saved) = saved else { return Err(Step::Poison("a thread without a context".into())) };
        let entered = if by_itself { machine.enter_frozen(saved.regs.rax) } else { machine.set_context(&saved) };
        entered.map_err(poison)
    }

    /// The value that a call returns to the program; an error if the program ends.
    pub(crate) fn value_of(&mut self, result: Result<u64, Halt>) -> Result<u64, Step> {
        match result {
            Ok(value) => Ok(value),
            Err(Halt::Errno(errno)) => {
                if errno == Errno::EMFILE {
                    self.hits.descriptors = self.hits.descriptors.saturating_add(1);
                }
                Ok(errno.to_return_value())
            }
            Err(Halt::End(step)) => Err(step),
            // A wait is not a result.
            Err(Halt::Wait(_) | Halt::Switch | Halt::Restored) => {
                Err(Step::Poison("a wait instead of a result".into()))
            }
        }
    }
}

/// Completes the system call at which the machine has stopped.
pub(crate) fn return_value(machine: &mut Machine, value: u64) -> Result<(), Step> {
    machine.return_from_syscall(value).map_err(|bad| {
        // Only a program that jumps into the entry itself can cause this.
        Step::Faulted(Fault { signal: libc::SIGSEGV, vector: None, address: Some(bad.rip), rip: bad.rip })
    })
}

pub(crate) fn poison(error: RunError) -> Step {
    Step::Poison(format!("switching threads: {error}"))
}
