// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running a program from its entry point to where it is ready for requests.
//!
//! ```text
//! waits at the doorbell     one thread has called mayfly_wait(): the others go on until they all wait
//! serves connections        its application listens, and a thread waits for connections there: warm-up requests, one after the other;
//!                           then again until it waits, for the next request on the same connection if it has kept that open
//! ```
//!
//! A boot has a thread of its own, which sleeps while the program does, or waits for what is outside.

use mayfly_kvm::Machine;
use mayfly_linux::{Application, ConnectionId};

use crate::abi::{ABI_MAX, ABI_MIN, ENOSYS, EPROTO, OP_CALL, OP_HOOKS, OP_RESPOND, OP_WAIT, speaks};
use crate::clock;
use crate::error::{BootError, CallError};
use crate::limits::{Limits, nanoseconds};
use crate::message::{Header, Request};
use crate::output::Stream;
use crate::protocol::{Service, WarmUp};
use crate::run::{Event, Exits, Runner, Stop};
use crate::service::{Served, Taken};
use crate::watchdog::{self, Leg};

/// A boot that gets little of the CPU, or sleeps, may take so many times its limit of it in time.
const PATIENCE: u64 = 4;
/// Threads have turns of this length.
const TURN_NS: u64 = 5_000_000;
/// How long threads may go on beside the one at the doorbell before the program is frozen all the same.
const SETTLE_NS: u64 = 200_000_000;

/// How long a program that is to ring the doorbell may listen for connections, and do nothing else, until it is taken
/// for a server.
const LISTENS_NS: u64 = 2_000_000_000;
/// How long a program whose port is not named, and which has more to do at a time of its own, may have its listeners
/// until they are taken for all that it will have: the first may be a debugger's, and the application's follow.
const COLLECTS_NS: u64 = 1_000_000_000;

/// Turns of another thread until it is interrupted in its own code.
const RELEASES_MAX: u32 = 200;
/// Warm-up requests that cost no more exits than any before, one after the other: then the program is steady. After a
/// burst of work it is so sooner, since the next one is far.
const STEADY_REQUESTS: u32 = 32;
const STEADY_AFTER_BURST: u32 = 8;
/// Most rounds of warm-up requests, and most time, until it is frozen all the same.
const STEADY_REQUESTS_MAX: u32 = 1000;
const STEADY_NS: u64 = 2_000_000_000;

/// A boot under way.
pub(crate) struct Boot<'a> {
    machine: &'a mut Machine,
    runner: &'a mut Runner,
    limits: &'a Limits,
    wall_end_ns: u64,
    cpu_left_ns: u64,
    exits: Exits,
    /// The program is to serve connections.
    is_server: bool,
    /// The port of its application, if it is named.
    port: Option<u16>,
    /// Since when such a program listens on something.
    listens_since_ns: Option<u64>,
    /// It has been said that what listens is not the application.
    is_waited_for: bool,
}

/// What a program is once it is ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// It has hooks for handing its state over.
    pub(crate) has_handover: bool,
    /// The connection that it has kept open after the warm-up requests.
    pub(crate) connection: Option<ConnectionId>,
}

/// Why a program's threads all wait.
struct Wait {
    until_ns: Option<u64>,
    call: &'static str,
    /// What the program listens on may not be all of it yet.
    collects: bool,
}

impl Wait {
    fn new(until_ns: Option<u64>, call: &'static str) -> Self {
        Self { until_ns, call, collects: false }
    }
}

impl<'a> Boot<'a> {
    pub(crate) fn new(machine: &'a mut Machine, runner: &'a mut Runner, limits: &'a Limits) -> Self {
        let time_ns = nanoseconds(limits.boot_time);
        Self {
            machine,
            runner,
            limits,
            wall_end_ns: clock::monotonic_ns().saturating_add(time_ns.saturating_mul(PATIENCE)),
            cpu_left_ns: time_ns,
            exits: Exits::default(),
            is_server: false,
            port: None,
            listens_since_ns: None,
            is_waited_for: false,
        }
    }

    /// Runs the program until it waits at the doorbell, and its other threads wait.
    pub(crate) fn run_to_doorbell(mut self) -> Result<Ready, BootError> {
        let mut ready = Ready::default();
        let abi = self.run_to_wait(&mut ready)?;
        if !speaks(abi) {
            return Err(BootError::Abi { wanted: abi, min: ABI_MIN, max: ABI_MAX });
        }
        self.settle().map_err(|stop| self.error(stop))?;
        Ok(ready)
    }

    /// Runs until a thread waits for a request; the ABI that it speaks.
    fn run_to_wait(&mut self, ready: &mut Ready) -> Result<u64, BootError> {
        let mut listens_since = None;
        loop {
            match self.run().map_err(|stop| self.error(stop))? {
                Ok(Event::Output) => {
                    // Nobody is connected.
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
                        // There is no request yet that it could respond to, or call for.
                        OP_RESPOND | OP_CALL | OP_HOOKS => EPROTO,
                        _ => ENOSYS,
                    };
                    self.machine.return_from_doorbell(answer as u64);
                }
            }
        }
    }

    /// Sleeps while all threads wait, and wakes those whose time it is; unless they do nothing but wait for
    /// connections.
    fn wait_at_boot(&mut self, mut wait: Wait, listens_since: &mut Option<u64>) -> Result<(), BootError> {
        loop {
            let Self { machine, runner, .. } = self;
            if runner.process.waits_for_connections(machine) && runner.process.remote_events().is_none() {
                let now = clock::monotonic_ns();
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

    /// Lets the threads besides the one at the doorbell go on until they wait: what they are at is in the snapshot
    /// otherwise, and goes on with every request.
    fn settle(&mut self) -> Result<(), Stop> {
        if !self.runner.process.has_other_work() {
            return Ok(());
        }
        let Self { machine, runner, .. } = self;
        runner.step(|process, _| process.hold(machine))?;
        let end_ns = clock::monotonic_ns().saturating_add(SETTLE_NS);
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
                Err(Stop::Slice) if clock::monotonic_ns() < end_ns => {
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

    /// Runs the program until its application waits for connections, and has answered the warm-up requests.
    pub(crate) fn run_to_service(mut self, service: &Service) -> Result<Ready, BootError> {
        let mut served = Served::new(&service.protocol, None);
        (self.is_server, self.port) = (true, service.port);
        if let Some(port) = self.port {
            self.runner.process.serve_at(port);
        }
        self.run_to_idle(None)?;
        for warm_up in &service.warm_up {
            for _ in 0..warm_up.times {
                self.warm_up(&mut served, warm_up)?;
            }
        }
        let steady: Vec<&WarmUp> = service.warm_up.iter().filter(|warm_up| warm_up.steady).collect();
        self.run_until_steady(&mut served, &steady)?;
        // On a connection that it has kept open, or without one.
        let kept = served.connection();
        if self.run_to_idle(kept)? {
            return self.stand(kept);
        }
        served.close(&mut self.runner.process);
        self.run_to_idle(None)?;
        self.stand(None)
    }

    /// Goes on with the warm-up requests until they cost what they cost at least. Compilers and collectors work in
    /// bursts, on threads of their own, and leave the last step to the next request: frozen before it, a program would
    /// take that step in every request.
    fn run_until_steady(&mut self, served: &mut Served, warm_ups: &[&WarmUp]) -> Result<(), BootError> {
        let end_ns = clock::monotonic_ns().saturating_add(STEADY_NS);
        let mut all_least = vec![u64::MAX; warm_ups.len()];
        let (mut steady, mut burst) = (0, false);
        for round in 0..STEADY_REQUESTS_MAX as usize {
            let which = round % warm_ups.len().max(1);
            let (Some(warm_up), Some(least)) = (warm_ups.get(which), all_least.get_mut(which)) else { break };
            let enough = if burst { STEADY_AFTER_BURST } else { STEADY_REQUESTS };
            if steady >= enough || clock::monotonic_ns() >= end_ns {
                break;
            }
            // The other threads have done what the last request left them.
            if !self.run_to_idle(served.connection())? {
                served.close(&mut self.runner.process);
            }
            let before = self.exits.all;
            self.warm_up(served, warm_up)?;
            let exits = self.exits.all.saturating_sub(before);
            steady = if exits <= *least { steady + 1 } else { 0 };
            burst |= exits > *least;
            *least = exits.min(*least);
        }
        Ok(())
    }

    /// Has the machine stand at the thread that a request will wake.
    fn stand(mut self, connection: Option<ConnectionId>) -> Result<Ready, BootError> {
        let Self { machine, runner, .. } = &mut self;
        let waiter = runner.process.input_waiter(machine, connection).unwrap_or(0);
        let stood = runner.step(|process, _| process.stand_at(machine, waiter));
        stood.map_err(|stop| self.error(stop))?;
        self.runner.process.keep_application();
        Ok(Ready { has_handover: false, connection })
    }

    /// Runs until all threads wait, and one of them for a connection to the application, or for input on this one.
    /// `false`: none does that any more, since it has closed this one.
    fn run_to_idle(&mut self, connection: Option<ConnectionId>) -> Result<bool, BootError> {
        // It may be idle already; whatever has been woken is not.
        let Self { machine, runner, .. } = self;
        let mut woken = runner.step(|process, context| process.wake(machine, context));
        loop {
            let wait = match woken {
                Err(Stop::Waits { until_ns, call }) => Wait::new(until_ns, call),
                Err(stop) => return Err(self.error(stop)),
                Ok(()) => match self.run().map_err(|stop| self.error(stop))? {
                    Ok(Event::Output) => {
                        if connection.is_some() {
                            // It closes the connection, or says something that nobody asked for.
                            return Ok(false);
                        }
                        return Err(BootError::Failed("output without a connection".into()));
                    }
                    Ok(Event::Doorbell) => {
                        let wrong = "the program rang the doorbell, and is to serve connections";
                        return Err(BootError::Failed(wrong.into()));
                    }
                    Err(wait) => wait,
                },
            };
            let wait = self.collect(wait)?;
            let Self { machine, runner, .. } = self;
            let is_idle = !wait.collects && runner.process.application() == Application::Listens;
            if is_idle && runner.process.input_waiter(machine, connection).is_some() {
                return Ok(true);
            }
            if connection.is_some() && wait.until_ns.is_none() && self.runner.process.remote_events().is_none() {
                return Ok(false);
            }
            woken = self.sleep_until(&wait);
        }
    }

    /// Looks at what the program listens on while all its threads wait. Where no port is named, another listener may
    /// follow as long as the program has more to do: that is waited for.
    fn collect(&mut self, mut wait: Wait) -> Result<Wait, BootError> {
        let process = &self.runner.process;
        let application = process.application();
        let now = clock::monotonic_ns();
        let listeners = process.listeners();
        if listeners.is_empty() {
            return Ok(wait);
        }
        let since = *self.listens_since_ns.get_or_insert(now);
        let end = since.saturating_add(COLLECTS_NS);
        let is_missing = application == Application::Missing;
        // What is looked at when the time is over.
        let is_open = if self.port.is_some() { is_missing && !self.is_waited_for } else { !is_missing };
        let may_follow = wait.until_ns.is_some() || process.remote_events().is_some();
        if is_open && may_follow && now < end {
            wait.until_ns = Some(wait.until_ns.map_or(end, |until| until.min(end)));
            wait.collects = true;
            return Ok(wait);
        }
        if application == Application::Ambiguous {
            return Err(self.ambiguous());
        }
        if let Some(port) = self.port.filter(|_| is_open && may_follow) {
            self.is_waited_for = true;
            let line = format!("mayfly: the program listens on {listeners}, and not yet on its \"port\" {port}\n");
            self.runner.log.0.write(Stream::Stderr, line.as_bytes());
        }
        Ok(wait)
    }

    fn ambiguous(&self) -> BootError {
        BootError::Ambiguous { port: self.port, listeners: self.runner.process.listeners() }
    }

    /// One request at boot. What it answers is looked at no further.
    fn warm_up(&mut self, served: &mut Served, warm_up: &WarmUp) -> Result<(), BootError> {
        let headers: Vec<Header<'_>> = warm_up.headers.iter().map(|(name, value)| Header { name, value }).collect();
        let (method, path, query) = (&warm_up.method[..], &warm_up.path[..], &warm_up.query[..]);
        let request = Request { method, path, query, headers: &headers, body: &warm_up.body };
        let name = || String::from_utf8_lossy(path).into_owned();
        let refuse = |error: String| BootError::WarmUp { path: name(), error };
        let begun = served.begin(&mut self.runner.process, &request, u64::MAX);
        begun.map_err(|error| match (&error, self.runner.process.application()) {
            // The program has another listener than before, or none.
            (CallError::NotListening, Application::Ambiguous) => self.ambiguous(),
            (CallError::NotListening, Application::Missing) => self.not_listening(),
            _ => refuse(error.to_string()),
        })?;
        let Self { machine, runner, .. } = self;
        let mut woken = runner.step(|process, context| process.wake(machine, context));
        loop {
            let event = match woken {
                Ok(()) => self.run().map_err(|stop| self.error(stop))?,
                Err(Stop::Waits { until_ns, call }) => Err(Wait::new(until_ns, call)),
                Err(stop) => return Err(self.error(stop)),
            };
            match event {
                Ok(Event::Doorbell) => return Err(refuse("it rang the doorbell".into())),
                Err(wait) => woken = self.sleep_until(&wait),
                Ok(Event::Output) => {
                    let taken = served.take(&mut self.runner.process, self.limits.response_bytes);
                    match taken.map_err(|error| refuse(error.to_string()))? {
                        Taken::Complete => return Ok(()),
                        Taken::Partial => {}
                        Taken::Stale => {
                            let again = served.send_again(&mut self.runner.process);
                            again.map_err(|error| refuse(error.to_string()))?;
                        }
                    }
                    let Self { machine, runner, .. } = self;
                    woken = runner.step(|process, context| process.wake(machine, context));
                }
            }
        }
    }

    /// Runs, turn by turn, until something happens, or all threads wait.
    fn run(&mut self) -> Result<Result<Event, Wait>, Stop> {
        loop {
            match self.turn() {
                Ok(event) => return Ok(Ok(event)),
                Err(Stop::Waits { until_ns, call }) => return Ok(Err(Wait::new(until_ns, call))),
                Err(Stop::Slice) => {
                    let Self { machine, runner, .. } = self;
                    runner.step(|process, context| process.rotate(machine, context))?;
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Runs for one turn.
    fn turn(&mut self) -> Result<Event, Stop> {
        let (began_ns, cpu_before_ns) = (clock::monotonic_ns(), clock::own_cpu_ns());
        if self.cpu_left_ns == 0 || began_ns >= self.wall_end_ns {
            return Err(Stop::CpuLimit);
        }
        let leg = Leg {
            began_ns,
            slice_end_ns: began_ns.saturating_add(TURN_NS),
            wall_end_ns: self.wall_end_ns,
            cpu_end_ns: began_ns.saturating_add(self.cpu_left_ns),
        };
        clock::tell(self.machine, began_ns, 0);
        let kicker = self.machine.kicker();
        let Self { machine, runner, exits, .. } = self;
        // SAFETY: the machine is borrowed for as long.
        let result = unsafe { watchdog::watched(&kicker, &leg, |watched| runner.run(machine, watched, exits)) };
        let used_ns = clock::own_cpu_ns().saturating_sub(cpu_before_ns);
        self.cpu_left_ns = self.cpu_left_ns.saturating_sub(used_ns);
        result
    }

    /// Sleeps while all threads wait, and wakes those whose time it is.
    fn sleep_until(&mut self, wait: &Wait) -> Result<(), Stop> {
        let outside = self.runner.process.remote_events();
        let until_ns = match (wait.until_ns, outside) {
            (None, None) => return Err(Stop::Stuck { call: wait.call }),
            (until_ns, _) => until_ns.unwrap_or(u64::MAX),
        };
        let now = clock::monotonic_ns();
        if now >= self.wall_end_ns {
            return Err(Stop::WallLimit);
        }
        clock::sleep_until(until_ns.min(self.wall_end_ns), outside);
        let Self { machine, runner, .. } = self;
        runner.step(|process, context| process.wake(machine, context))
    }

    fn not_listening(&self) -> BootError {
        BootError::NotListening { port: self.port, listeners: self.runner.process.listeners() }
    }

    fn error(&self, stop: Stop) -> BootError {
        let process = &self.runner.process;
        let is_missing = process.application() == Application::Missing;
        match stop {
            // It is told by what there is instead.
            Stop::CpuLimit | Stop::WallLimit | Stop::Stuck { .. } | Stop::Waits { .. }
                if is_missing && self.is_server && (self.port.is_some() || !process.listeners().is_empty()) =>
            {
                self.not_listening()
            }
            Stop::Exited { status } => BootError::Exited { status },
            Stop::Faulted(fault) => BootError::Faulted(fault),
            Stop::CpuLimit | Stop::WallLimit | Stop::Slice => BootError::TimedOut { limit: self.limits.boot_time },
            Stop::Stuck { call } | Stop::Waits { call, .. } => BootError::Stuck { call },
            Stop::MemoryLimit if self.machine.is_refused() => BootError::ServerMemory,
            Stop::MemoryLimit => BootError::MemoryLimit { limit_bytes: self.limits.boot_memory_bytes },
            Stop::Response(error) => BootError::Failed(error.to_string()),
            Stop::Violation(what) => BootError::Violation(what),
            Stop::Failed(why) => BootError::Failed(why),
        }
    }
}
