// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler: one thread runs at a time, until it waits, ends, yields, or its slice is over.
//!
//! A thread that makes another one ready keeps running. A switch takes some system calls of the host; a request that
//! one thread serves needs none.

use mayfly_engine::Machine;

use crate::base::clock;
use crate::base::context::Context;
use crate::base::errno::Errno;
use crate::base::halt::{Halt, Wait};
use crate::base::step::Step;
use crate::kernel::call::Call;
use crate::kernel::process::Process;
use crate::kernel::switch::poison;
use crate::sched::threads::{ThreadState, Waiting};
use crate::syscalls;

/// How long the host works at a time on calls that are made again. The program chooses how many threads wait, and how
/// much each of them checks. The rest is done in the next turn, after the ready threads have run.
const LOOKS_NS: u64 = 200_000;

/// The name of the call in [`Step::Waits`] if the next step may block and this thread may not.
const ELSEWHERE: &str = "a step that may block";

impl Process {
    /// Ends the running thread's slice: another thread gets its turn, if one is ready. The machine's last exit was
    /// [`mayfly_machine::Exit::Kicked`].
    pub fn rotate(&mut self, machine: &mut Machine, context: &mut Context<'_>) -> Step {
        // A signal that could not be delivered last time is still due, and its timer not armed until it is taken.
        let is_alone = self.threads.len() == 1 && !self.threads.due;
        if is_alone && self.timers.next_ns().is_none() && !self.timers.has_cpu_timers() {
            return Step::Continue;
        }
        match self.end_waits(machine, context) {
            Ok(_) => {}
            Err(step) => return step,
        }
        if !self.threads.others_are_ready() && !self.threads.due {
            return Step::Continue;
        }
        // The thread may have been interrupted in the middle of an exit. Then its turn lasts until the next kick.
        match self.save_live(machine) {
            Ok(true) => self.schedule(machine, context, true),
            Ok(false) => Step::Continue,
            Err(step) => step,
        }
    }

    /// Whether other threads than the one that rang the doorbell can run.
    #[must_use]
    pub fn has_other_work(&self) -> bool {
        self.threads.others_are_ready()
    }

    /// Holds the thread that has rung the doorbell, so that the others come to rest: until [`Process::release`],
    /// [`Process::wake`] and [`Process::rotate`] run only those.
    pub fn hold(&mut self, machine: &mut Machine) -> Step {
        match self.save_live(machine) {
            Ok(true) => {}
            Ok(false) => return Step::Poison("the thread at the doorbell cannot be held".into()),
            Err(step) => return step,
        }
        self.threads.edit().current_mut().state = ThreadState::Held;
        Step::Continue
    }

    /// Leaves the system call at which the machine has stopped to a thread that may block. No signal ends it meanwhile:
    /// it has not begun.
    pub(crate) fn leave_call(&mut self) -> Step {
        self.threads.edit().call_again = true;
        self.continue_elsewhere()
    }

    /// Leaves the rest to a thread that may block, as soon as one is free.
    pub(crate) fn continue_elsewhere(&self) -> Step {
        Step::Waits { until_ns: Some(clock::now_ns()), call: ELSEWHERE }
    }

    /// Resumes the held thread. Returns [`Step::Waits`], with nothing changed, if another thread was interrupted where
    /// its context cannot be saved: try again after another exit.
    pub fn release(&mut self, machine: &mut Machine) -> Step {
        match self.save_live(machine) {
            Ok(true) => {}
            Ok(false) => return Step::Waits { until_ns: None, call: "an interrupted exit" },
            Err(step) => return step,
        }
        let threads = self.threads.edit();
        let Some(held) = threads.iter().position(|thread| thread.state == ThreadState::Held) else {
            return Step::Poison("no thread is held".into());
        };
        threads.current = held;
        threads.current_mut().state = ThreadState::Ready;
        self.resume_thread(machine, held)
    }

    /// Positions the machine, before it is frozen, where the thread at this index will continue when the call that it
    /// waits in ends. Workers enter there directly, so waking that thread costs no switch.
    pub fn stand_at(&mut self, machine: &mut Machine, index: usize) -> Step {
        match self.save_live(machine) {
            Ok(true) => {}
            Ok(false) => return Step::Poison("the program cannot be frozen where it was interrupted".into()),
            Err(step) => return step,
        }
        let Some(saved) = self.threads.get(index).and_then(|thread| thread.saved.as_ref()) else {
            return Step::Poison("no such thread to freeze the program at".into());
        };
        if let Err(error) = machine.set_context(saved) {
            return poison(error);
        }
        let threads = self.threads.edit();
        threads.current = index;
        threads.entry = Some(index);
        Step::Continue
    }

    /// Runs the next thread. With `turn_over`, the current one runs only if no other can.
    pub(crate) fn schedule(&mut self, machine: &mut Machine, context: &mut Context<'_>, turn_over: bool) -> Step {
        let all_looked = match self.end_waits(machine, context) {
            Ok(all_looked) => all_looked,
            Err(step) => return step,
        };
        match self.threads.next_ready(turn_over) {
            Some(next) => {
                if self.threads.current != next {
                    self.threads.edit().current = next;
                }
                self.resume_thread(machine, next)
            }
            None => {
                self.rest();
                Step::Waits {
                    // The embedder decides when the rest of the work is done.
                    until_ns: if all_looked { self.until_ns() } else { Some(clock::now_ns()) },
                    call: self.threads.waits().next().map_or("nothing", |(_, waiting)| waiting.call()),
                }
            }
        }
    }

    /// Resumes a ready thread on the vCPU, with its signals delivered.
    fn resume_thread(&mut self, machine: &mut Machine, index: usize) -> Step {
        if self.wants_attention(index)
            && let Err(step) = self.deliver(machine, index)
        {
            return step;
        }
        self.switch_to(machine, index).err().unwrap_or(Step::Continue)
    }

    /// The earliest deadline of a wait or a timer.
    fn until_ns(&self) -> Option<u64> {
        match (self.threads.until_ns(), self.timers.next_ns()) {
            (Some(wait), Some(timer)) => Some(wait.min(timer)),
            (wait, timer) => wait.or(timer),
        }
    }

    /// Makes the current thread wait in the call that it has made.
    pub(crate) fn wait(
        &mut self,
        machine: &mut Machine,
        context: &mut Context<'_>,
        number: u64,
        args: [u64; 6],
        wait: Wait,
    ) -> Step {
        let threads = self.threads.edit();
        let seen = threads.changes();
        threads.current_mut().state = ThreadState::Waiting(Waiting::Call { number, args, wait, seen });
        let current = threads.current;
        // The call may have unblocked a signal: it waits under its own mask.
        if self.threads.due
            && self.has_deliverable(current)
            && let Err(step) = self.interrupt(machine, current)
        {
            return step;
        }
        self.schedule(machine, context, true)
    }

    /// Ends the waits whose deadline has passed, and repeats the calls that may have become ready, round after round,
    /// since one call can do its part of what another one waits for. `false`: some are left for the next turn, which
    /// begins with them.
    fn end_waits(&mut self, machine: &mut Machine, context: &mut Context<'_>) -> Result<bool, Step> {
        // One time for all: no wait ends before a timer that expired earlier.
        let now = clock::now_ns();
        self.fire_timers(machine, now)?;
        self.poll_remotes();
        let mut end_ns = None;
        loop {
            let changes = self.threads.changes();
            let mut due: Vec<usize> = self
                .threads
                .waits()
                .filter(|(_, waiting)| {
                    let is_late = waiting.until_ns().is_some_and(|until| until <= now);
                    is_late || matches!(waiting, Waiting::Call { seen, .. } if *seen != changes)
                })
                .map(|(index, _)| index)
                .collect();
            if due.is_empty() {
                return Ok(true);
            }
            let first = self.threads.next_look;
            let behind = due.partition_point(|&index| index < first);
            due.rotate_left(behind);
            let before = self.threads.current;
            for index in due {
                // Repeats at least one call, however long it takes.
                if end_ns.is_some_and(|end| clock::now_ns() >= end) {
                    let threads = self.threads.edit();
                    (threads.current, threads.next_look) = (before, index);
                    return Ok(false);
                }
                end_ns = end_ns.or(now.checked_add(LOOKS_NS));
                self.end_wait(machine, context, index)?;
            }
            let threads = self.threads.edit();
            (threads.current, threads.next_look) = (before, 0);
        }
    }

    /// Ends one wait if its deadline has passed or it has become ready.
    fn end_wait(&mut self, machine: &mut Machine, context: &mut Context<'_>, index: usize) -> Result<(), Step> {
        let threads = self.threads.edit();
        threads.current = index;
        let ThreadState::Waiting(waiting) = threads.current().state else { return Ok(()) };
        let result = match waiting {
            Waiting::Futex { .. } => Err(Errno::ETIMEDOUT.into()),
            Waiting::Call { number, args, wait, .. } => {
                let seen = threads.changes();
                // The call is being worked on again; a signal that it sends itself interrupts nothing.
                threads.current_mut().state = ThreadState::Ready;
                let edits = Some(self.edits());
                let mut call = Call { process: self, machine, context, args, waited: Some(wait), edits };
                match syscalls::perform(&mut call, number) {
                    // The call is ready, and may block this thread.
                    Err(Halt::Errno(Errno::NOT_HERE)) => {
                        let wait = Wait { look_ns: Some(clock::now_ns()), ..wait };
                        let state = ThreadState::Waiting(Waiting::Call { number, args, wait, seen });
                        self.threads.edit().current_mut().state = state;
                        return Ok(());
                    }
                    Err(Halt::Wait(wait)) => {
                        let state = ThreadState::Waiting(Waiting::Call { number, args, wait, seen });
                        self.threads.edit().current_mut().state = state;
                        return Ok(());
                    }
                    other => other,
                }
            }
        };
        let value = self.value_of(result)?;
        self.end_call(machine, index, value)
    }
}
