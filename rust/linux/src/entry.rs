// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entry points of the personality: an exit of the machine, and continuing after a wait.

use mayfly_engine::Machine;
use mayfly_machine::Exit;

use crate::base::context::Context;
use crate::base::errno::Errno;
use crate::base::halt::Halt;
use crate::base::step::Step;
use crate::kernel::call::Call;
use crate::kernel::faults;
use crate::kernel::process::Process;
use crate::kernel::switch::return_value;
use crate::syscalls::perform;

impl Process {
    /// Does what `exit` asks for: a system call, a page fault or another exception. Other kinds of exit do not concern
    /// the personality and yield [`Step::Poison`].
    pub fn handle(&mut self, machine: &mut Machine, exit: &Exit, context: &mut Context<'_>) -> Step {
        match *exit {
            Exit::Syscall => {
                let step = system_call(self, machine, context);
                if machine.cover_host_bytes(self.host_bytes()) { step } else { Step::MemoryLimit }
            }
            Exit::PageFault { address, code, rip } => {
                let step = faults::page_fault(self, machine, address, code, rip, context.may_block);
                faults::deliver_or(self, machine, step, code.bits())
            }
            Exit::Exception { vector, code, rip } => {
                faults::deliver_or(self, machine, faults::exception(vector, rip), code)
            }
            Exit::Doorbell | Exit::Kicked | Exit::Unexpected(_) => {
                Step::Poison(format!("not an exit for the personality: {exit:?}"))
            }
        }
    }
}

impl Process {
    /// Continues after time has passed, or something has arrived from outside, with a thread that can run.
    pub fn wake(&mut self, machine: &mut Machine, context: &mut Context<'_>) -> Step {
        if self.threads.call_again {
            self.threads.edit().call_again = false;
            return system_call(self, machine, context);
        }
        self.schedule(machine, context, false)
    }
}

/// Handles the system call at which the machine has stopped.
pub(crate) fn system_call(process: &mut Process, machine: &mut Machine, context: &mut Context<'_>) -> Step {
    let regs = machine.regs();
    // Like Linux, ignores the upper half of RAX.
    let number = regs.rax & u64::from(u32::MAX);
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    if process.threads.current().progress != 0 {
        process.threads.edit().current_mut().progress = 0;
    }
    if !context.may_block && names_durable_file(process, &args) {
        return process.leave_call();
    }
    let edits = Some(process.edits());
    match perform(&mut Call { process, machine, context, args, waited: None, edits }, number) {
        Err(Halt::Errno(Errno::NOT_HERE)) => process.leave_call(),
        Err(Halt::Wait(wait)) => process.wait(machine, context, number, args, wait),
        Err(Halt::Switch) => process.schedule(machine, context, true),
        Err(Halt::Restored) => finish(process, machine),
        result => match process.value_of(result).and_then(|value| return_value(machine, value)) {
            Ok(()) if process.threads.due => finish(process, machine),
            Ok(()) => Step::Continue,
            Err(step) => step,
        },
    }
}

/// Whether an argument may point into a file of a durable mount that is mapped shared. A call that has begun could not
/// leave a thread that may not block any more when it gets there.
fn names_durable_file(process: &Process, args: &[u64]) -> bool {
    process.shared.mounts.are_durable() && args.iter().any(|address| process.memory.is_durable(*address))
}

/// The current thread continues, with its signals delivered.
fn finish(process: &mut Process, machine: &mut Machine) -> Step {
    process.finish_call(machine).err().unwrap_or(Step::Continue)
}
