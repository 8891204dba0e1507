// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a machine until its program rings the doorbell or its leg must end.

use mayfly_engine::{Machine, RunError};
use mayfly_linux::{Context, CopyError, Fault, Process, Step};
use mayfly_machine::{Blame, Exit};

use crate::entropy::Entropy;
use crate::output::SharedLog;
use crate::response::ResponseError;
use crate::time::clock;
use crate::time::watchdog::{RunningLeg, ThreadEnds, Verdict};

/// Why a run ended without the doorbell.
#[derive(Debug)]
pub(crate) enum Stop {
    Exited {
        status: i32,
    },
    Faulted(Fault),
    /// The slice is over; the machine can go on.
    Slice,
    CpuLimit,
    WallLimit,
    MemoryLimit,
    Stuck {
        call: &'static str,
    },
    /// All threads wait; the machine can go on.
    Waits {
        until_ns: Option<u64>,
        call: &'static str,
    },
    /// What the program wrote to its connection is not a response.
    Response(ResponseError),
    /// The program has answered its hook with this status.
    Hook {
        status: u16,
    },
    /// The program has put its machine into a state that no program needs.
    Violation(String),
    Failed(String),
}

impl From<ThreadEnds> for Stop {
    fn from(_: ThreadEnds) -> Self {
        Self::Failed("the thread is ending".into())
    }
}

impl From<Step> for Stop {
    fn from(step: Step) -> Self {
        match step {
            Step::Continue => Self::Failed("the personality stopped without a reason".into()),
            Step::Exited { status } => Self::Exited { status },
            Step::Faulted(fault) => Self::Faulted(fault),
            Step::MemoryLimit => Self::MemoryLimit,
            Step::Waits { until_ns, call } => Self::Waits { until_ns, call },
            Step::Violation(what) => Self::Violation(what),
            Step::Poison(why) => Self::Failed(why),
        }
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Counts of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Exits {
    /// All exits, the doorbell's included.
    pub(crate) all: u64,
    /// System calls among them.
    pub(crate) syscalls: u64,
    /// Page faults among them.
    pub(crate) faults: u64,
}

/// What a run ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The program rang the doorbell.
    Doorbell,
    /// It has written to, or closed, a connection to the outside.
    Output,
}

/// What a program needs besides its machine.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) process: Process,
    pub(crate) entropy: Entropy,
    pub(crate) log: SharedLog,
    /// Whether the thread of the present leg may block.
    pub(crate) may_block: bool,
}

impl Runner {
    /// Runs until the doorbell rings, or a program that serves connections has written to one.
    #[inline]
    pub(crate) fn run(
        &mut self,
        machine: &mut Machine,
        leg: &RunningLeg<'_>,
        exits: &mut Exits,
    ) -> Result<Event, Stop> {
        loop {
            exits.all += 1;
            if !self.may_block && machine.has_shared_files() {
                // What has touched them could not be repeated elsewhere. The program itself must not.
                machine.unmap_shared_files().map_err(|error| Stop::Failed(error.to_string()))?;
            }
            match machine.run()? {
                Exit::Doorbell => return Ok(Event::Doorbell),
                exit => {
                    let served = self.serve(machine, &exit, leg, exits);
                    clock::tell_on(machine, self.process.suspended_ns());
                    // The program's output comes first, whatever happened to the program after it.
                    if self.process.has_output() && matches!(served, Ok(()) | Err(Stop::Waits { .. })) {
                        return Ok(Event::Output);
                    }
                    served?;
                }
            }
        }
    }

    /// A leg begins on a thread that may block, or that may not. There the program has no pages of files that it has
    /// mapped shared from durable mounts: its own access would wait for a disk. It gets them where it may.
    #[inline]
    pub(crate) fn begin_leg(&mut self, machine: &mut Machine, may_block: bool) {
        machine.forget_losses();
        // Pages that cannot be taken away may make this thread wait, at worst.
        self.may_block = may_block || machine.unmap_shared_files().is_err();
    }

    /// The program stands still until another leg, and has no pages of files that it has mapped shared meanwhile: their
    /// windows are few in the process, and a thread that may block removes them better than the next, which may not.
    pub(crate) fn rest(&mut self, machine: &mut Machine) {
        self.process.rest();
        // The next leg tries again.
        let _ = machine.unmap_shared_files();
    }

    /// Has the personality act without an exit of the program.
    pub(crate) fn step(&mut self, act: impl FnOnce(&mut Process, &mut Context<'_>) -> Step) -> Result<(), Stop> {
        let Self { process, entropy, log, may_block } = self;
        let mut rng = |bytes: &mut [u8]| entropy.fill(bytes);
        match act(process, &mut Context { output: log, rng: &mut rng, may_block: *may_block }) {
            Step::Continue => Ok(()),
            step => Err(step.into()),
        }
    }

    /// Copies from the program's memory. Waits for pages that are not in memory only if the leg's thread may block.
    pub(crate) fn copy_in(&self, machine: &mut Machine, address: u64, out: &mut [u8]) -> Result<(), CopyError> {
        self.process.copy_in(machine, address, out, self.may_block)
    }

    /// Serves an exit other than the doorbell.
    fn serve(
        &mut self,
        machine: &mut Machine,
        exit: &Exit,
        leg: &RunningLeg<'_>,
        exits: &mut Exits,
    ) -> Result<(), Stop> {
        match exit {
            Exit::Syscall => exits.syscalls += 1,
            Exit::PageFault { .. } => exits.faults += 1,
            // The watchdog kicked it, or another signal did.
            Exit::Kicked => {
                return match leg.verdict() {
                    Verdict::GoOn => Ok(()),
                    Verdict::Slice => Err(Stop::Slice),
                    Verdict::Cpu => Err(Stop::CpuLimit),
                    Verdict::Wall => Err(Stop::WallLimit),
                };
            }
            Exit::Unexpected(what) => {
                return Err(match what.blame() {
                    Blame::Fault => Stop::Faulted(port_fault(machine)),
                    Blame::Program => Stop::Violation(what.to_string()),
                    Blame::Host => Stop::Failed(what.to_string()),
                });
            }
            Exit::Doorbell | Exit::Exception { .. } => {}
        }
        self.step(|process, context| process.handle(machine, exit, context))
    }
}

fn port_fault(machine: &Machine) -> Fault {
    Fault { signal: libc::SIGSEGV, vector: Some(13), address: None, rip: machine.regs().rip }
}
