// SPDX-License-Identifier: MIT OR Apache-2.0
//! One leg of a request: the part that runs without a pause on one thread, and what ends it.

use crate::abi::{ENOSYS, EPROTO, OP_CALL, OP_HOOKS, OP_RESPOND, OP_WAIT, speaks};
use crate::error::CallError;
use crate::message::ResponseSink;
use crate::response::{Source, Unread};
use crate::run::{Event, Exits, Stop};
use crate::service::ResponseProgress;
use crate::time::host_clock;
use crate::time::watchdog::{self, Leg, RunningLeg};
use crate::worker::peer::{Peer, Refusal};
use crate::worker::progress::{CallStats, Progress, WorkerState};
use crate::worker::state::Pause;
use crate::worker::worker::Worker;

/// The ring of the doorbell that ends a leg.
#[derive(Debug, Clone, Copy)]
enum Ring {
    /// With the address of a response.
    Response(u64),
    Call,
    /// No ring: the response came on a connection.
    Served,
    /// No ring: the hook was answered, and no request follows it yet.
    Restored,
}

/// What the doorbell was rung for is read on a thread that may block.
fn not_here(call: &'static str) -> Stop {
    Stop::Waits { until_ns: Some(host_clock::monotonic_ns()), call }
}

impl Worker {
    /// Runs the request for a slice. `used` says how much CPU time that took.
    #[inline]
    pub(super) fn leg<S: ResponseSink>(
        &mut self,
        now: u64,
        slice_ns: u64,
        sink: &mut S,
        used: impl FnOnce() -> u64,
    ) -> Result<Progress, CallError> {
        self.state = WorkerState::Poisoned;
        let leg = Leg {
            began_ns: now,
            slice_end_ns: now.saturating_add(slice_ns),
            wall_end_ns: self.ongoing.wall_end_ns,
            cpu_end_ns: now.saturating_add(self.ongoing.cpu_left_ns),
            processor_clock: self.machine.cpu_clock(),
        };
        let kicker = self.machine.kicker();
        // SAFETY: the machine is borrowed with `self`.
        let result = unsafe { watchdog::watched(&kicker, &leg, |leg| self.run_to_ring(leg)) };
        match result {
            Ok(Ring::Response(response)) => {
                let Self { runner, machine, .. } = self;
                let source = Source { machine, process: &runner.process, may_block: runner.may_block };
                match self.reader.read(source, response, self.response_bytes, sink) {
                    Ok(()) => {}
                    Err(Unread::Refused(error)) => return self.stopped(Stop::Response(error), used),
                    Err(Unread::Ends(step)) => return self.stopped(step.into(), used),
                    Err(Unread::NotHere) => {
                        self.pause = Pause::Ring;
                        return self.stopped(not_here("a response"), used);
                    }
                }
                self.state = WorkerState::Answered;
                let Exits { all: exits, syscalls, faults } = self.ongoing.exits;
                Ok(Progress::Answered(CallStats { exits, syscalls, faults }))
            }
            Ok(Ring::Served) => {
                self.state = WorkerState::Answered;
                if let Some(served) = &mut self.served {
                    served.deliver(sink);
                }
                let Exits { all: exits, syscalls, faults } = self.ongoing.exits;
                Ok(Progress::Answered(CallStats { exits, syscalls, faults }))
            }
            Ok(Ring::Restored) => {
                self.prepared();
                Ok(Progress::Restored)
            }
            Ok(Ring::Call) => {
                self.pause(Pause::Call, used());
                Ok(Progress::Calls)
            }
            Err(stop) => self.stopped(stop, used),
        }
    }

    /// The result of a leg that ended without a response.
    #[cold]
    pub(super) fn stopped(&mut self, stop: Stop, used: impl FnOnce() -> u64) -> Result<Progress, CallError> {
        match stop {
            Stop::Slice => {
                self.pause(Pause::Slice, used());
                Ok(Progress::Paused)
            }
            Stop::Waits { until_ns, .. } if until_ns.is_some() || self.waits_for().is_some() => {
                let pause = if self.pause == Pause::Ring { Pause::Ring } else { Pause::Wait };
                self.pause(pause, used());
                Ok(Progress::Waits { until_ns: until_ns.unwrap_or(u64::MAX).min(self.ongoing.wall_end_ns) })
            }
            Stop::Response(error) => {
                self.state = WorkerState::Answered;
                Err(error.into())
            }
            Stop::Hook { status } => {
                self.state = WorkerState::Answered;
                Err(CallError::AfterRestore { status })
            }
            stop => {
                let error = self.call_error(stop);
                // The worker will not run again, and others may wait for its locks before it is closed.
                self.runner.process.close_files();
                Err(error)
            }
        }
    }

    #[cold]
    fn pause(&mut self, pause: Pause, used_ns: u64) {
        self.ongoing.cpu_left_ns = self.ongoing.cpu_left_ns.saturating_sub(used_ns);
        self.cpu_meter.pause(used_ns);
        self.pause = pause;
        self.runner.rest(&mut self.machine);
        self.state = WorkerState::Paused;
    }

    /// Chooses the program's thread with which a paused request goes on.
    #[cold]
    pub(super) fn go_on(&mut self) -> Result<(), Stop> {
        let Self { runner, machine, pause, .. } = self;
        match pause {
            Pause::Call | Pause::Ring => Ok(()),
            Pause::Slice => runner.step(|process, context| process.rotate(machine, context)),
            Pause::Wait => runner.step(|process, context| process.wake(machine, context)),
        }
    }

    /// Chooses the thread with which a program goes on that stands between two requests.
    #[inline]
    pub(super) fn go_on_from_rest(&mut self) -> Result<(), Stop> {
        if self.is_interrupted { self.go_on_interrupted() } else { self.wake() }
    }

    #[cold]
    fn go_on_interrupted(&mut self) -> Result<(), Stop> {
        self.is_interrupted = false;
        let Self { runner, machine, .. } = self;
        runner.step(|process, context| process.rotate(machine, context))
    }

    /// Takes what the program has written to its connection; what is complete now.
    fn take_output(&mut self) -> Result<Option<Ring>, Stop> {
        let Some(served) = &mut self.served else {
            return Err(Stop::Failed("output without a connection".into()));
        };
        let process = &mut self.runner.process;
        match served.take(process, self.response_bytes).map_err(Stop::Response)? {
            ResponseProgress::Complete => return Ok(Some(Ring::Served)),
            ResponseProgress::Restored => match served.go_on(process) {
                Ok(true) => {}
                Ok(false) => return Ok(Some(Ring::Restored)),
                Err(CallError::AfterRestore { status }) => return Err(Stop::Hook { status }),
                Err(error) => return Err(Stop::Failed(error.to_string())),
            },
            ResponseProgress::Partial => {}
            ResponseProgress::Stale => served.send_again(process).map_err(|error| Stop::Failed(error.to_string()))?,
        }
        self.wake().map(|()| None)
    }

    /// Wakes threads whose wait is over.
    pub(super) fn wake(&mut self) -> Result<(), Stop> {
        let Self { runner, machine, .. } = self;
        runner.step(|process, context| process.wake(machine, context))
    }

    /// Runs until the program responds or calls.
    #[inline]
    fn run_to_ring(&mut self, leg: &RunningLeg<'_>) -> Result<Ring, Stop> {
        loop {
            let event = if self.pause == Pause::Ring {
                self.pause = Pause::Slice;
                Event::Doorbell
            } else {
                self.runner.run(&mut self.machine, leg, &mut self.ongoing.exits)?
            };
            if event == Event::Output {
                if let Some(complete) = self.take_output()? {
                    return Ok(complete);
                }
                continue;
            }
            let regs = self.machine.regs();
            if regs.rdi == OP_RESPOND && speaks(regs.rdx) {
                return Ok(Ring::Response(regs.rsi));
            }
            // What follows goes on behind the doorbell, which returns to its caller until the next reset.
            self.machine.set_rewinds(false);
            let answer = match regs.rdi {
                OP_CALL if speaks(regs.rdx) => match self.read_call(regs.rsi) {
                    Ok(()) => return Ok(Ring::Call),
                    Err(Refusal::Errno(errno)) => -i64::from(errno),
                    Err(Refusal::Ends(step)) => return Err(step.into()),
                    Err(Refusal::NotHere) => {
                        self.pause = Pause::Ring;
                        return Err(not_here("a call's arguments"));
                    }
                },
                // Waiting again without having answered, hooks after the boot, another ABI.
                OP_WAIT | OP_RESPOND | OP_CALL | OP_HOOKS => EPROTO,
                _ => ENOSYS,
            };
            self.machine.return_from_doorbell(answer as u64);
        }
    }

    #[cold]
    fn read_call(&mut self, address: u64) -> Result<(), Refusal> {
        let peer = self.peer.get_or_insert_with(|| Box::new(Peer::new()));
        peer.read(&self.runner, &mut self.machine, address, self.request_bytes)
    }
}
