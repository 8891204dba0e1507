// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot of a program that waits at the doorbell.

use crate::abi::{ABI_MAX, ABI_MIN, ENOSYS, EPROTO, OP_CALL, OP_HOOKS, OP_RESPOND, OP_WAIT, speaks};
use crate::boot::boot::{Boot, Ready, Wait};
use crate::error::BootError;
use crate::run::{Event, Stop};
use crate::time::host_clock;

/// How long other threads may run beside the one at the doorbell; then the program is frozen anyway.
const SETTLE_NS: u64 = 200_000_000;
/// How long a program that should ring the doorbell may listen for connections and do nothing else; then it counts as a
/// server.
const LISTENS_NS: u64 = 2_000_000_000;
/// Most turns that another thread gets until it is interrupted in its own code.
const RELEASES_MAX: u32 = 200;

impl Boot<'_> {
    /// Runs the program until it waits at the doorbell and its other threads wait.
    pub(crate) fn run_to_doorbell(mut self) -> Result<Ready, BootError> {
        let mut ready = Ready::default();
        let abi = self.run_to_wait(&mut ready)?;
        if !speaks(abi) {
            return Err(BootError::Abi { wanted: abi, min: ABI_MIN, max: ABI_MAX });
        }
        self.settle().map_err(|stop| self.error(stop))?;
        Ok(ready)
    }

    /// Runs until a thread waits for a request. Returns the version of the ABI that it speaks.
    fn run_to_wait(&mut self, ready: &mut Ready) -> Result<u64, BootError> {
        let mut listens_since = None;
        loop {
            match self.run().map_err(|stop| self.error(stop))? {
                Ok(Event::Output) => {
                    // There is no connection at boot.
                    return Err(BootError::Failed("output without a connection".into()));
                }
                Err(wait) => self.wait_at_boot(wait, &mut listens_since)?,
                Ok(Event::Doorbell) => {
                    let regs = self.machine.regs();
                    let answer = match regs.rdi {
                        OP_WAIT => return Ok(regs.rdx),
                        OP_HOOKS if speaks(regs.rdx) => {
                            ready.has_handover = true;
                            0
                        }
                        // There is no request yet to respond to, or to make a call for.
                        OP_RESPOND | OP_CALL | OP_HOOKS => EPROTO,
                        _ => ENOSYS,
                    };
                    self.machine.return_from_doorbell(answer as u64);
                }
            }
        }
    }

    /// Sleeps while all threads wait, then wakes the threads that are due. A program whose threads only wait for
    /// connections is refused.
    fn wait_at_boot(&mut self, mut wait: Wait, listens_since: &mut Option<u64>) -> Result<(), BootError> {
        loop {
            let Self { machine, runner, .. } = self;
            if runner.process.waits_for_connections(machine) && runner.process.remote_events().is_none() {
                let now = host_clock::monotonic_ns();
                let since = *listens_since.get_or_insert(now);
                if wait.until_ns.is_none() || now.saturating_sub(since) >= LISTENS_NS {
                    return Err(BootError::Listens { listeners: runner.process.listeners() });
                }
            }
            match self.sleep_until(&wait) {
                Ok(()) => return Ok(()),
                Err(Stop::Waits { until_ns, call }) => wait = Wait::new(until_ns, call),
                Err(stop) => return Err(self.error(stop)),
            }
        }
    }

    /// Runs the threads other than the one at the doorbell until they wait. Otherwise the snapshot holds their
    /// unfinished work, and every request goes on with it.
    fn settle(&mut self) -> Result<(), Stop> {
        if !self.runner.process.has_other_work() {
            return Ok(());
        }
        let Self { machine, runner, .. } = self;
        runner.step(|process, _| process.hold(machine))?;
        let end_ns = host_clock::monotonic_ns().saturating_add(SETTLE_NS);
        let mut step = runner.step(|process, context| process.wake(machine, context));
        loop {
            match step {
                Ok(()) => {}
                Err(Stop::Waits { .. }) => break,
                Err(stop) => return Err(stop),
            }
            match self.turn() {
                Ok(Event::Doorbell) => {
                    self.machine.return_from_doorbell(EPROTO as u64);
                    step = Ok(());
                }
                Ok(Event::Output) => step = Ok(()),
                Err(Stop::Slice) if host_clock::monotonic_ns() < end_ns => {
                    let Self { machine, runner, .. } = self;
                    step = runner.step(|process, context| process.rotate(machine, context));
                }
                Err(Stop::Slice | Stop::Waits { .. }) => break,
                Err(stop) => return Err(stop),
            }
        }
        for _ in 0..RELEASES_MAX {
            let Self { machine, runner, .. } = self;
            match runner.step(|process, _| process.release(machine)) {
                Err(Stop::Waits { .. }) => {}
                released => return released,
            }
            match self.turn() {
                Ok(Event::Doorbell) => self.machine.return_from_doorbell(EPROTO as u64),
                Ok(Event::Output) | Err(Stop::Slice | Stop::Waits { .. }) => {}
                Err(stop) => return Err(stop),
            }
        }
        Err(Stop::Failed("a thread cannot be interrupted".into()))
    }
}
