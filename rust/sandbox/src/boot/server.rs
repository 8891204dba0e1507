// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot of a program that serves connections.

use mayfly_linux::{Application, ConnectionId};

use crate::boot::boot::{Boot, Ready, Wait};
use crate::error::BootError;
use crate::message::{Header, Request};
use crate::output::Stream;
use crate::protocol::{Service, WarmUp};
use crate::run::Event;
use crate::service::Served;
use crate::time::host_clock;

/// How long Mayfly waits for further listeners of a program whose port is not named and which has timed work of its
/// own. The first listener may be a debugger's, and the application's may follow.
const COLLECTS_NS: u64 = 1_000_000_000;
/// A program that serves connections has no use for the doorbell.
pub(super) fn rang() -> BootError {
    BootError::Failed("the program rang the doorbell, and is to serve connections".into())
}

impl Boot<'_> {
    /// Runs the program until its application waits for connections and has answered the warm-up requests.
    pub(crate) fn run_to_service(mut self, service: &Service) -> Result<Ready, BootError> {
        let mut served = Served::new(&service.protocol, None, None);
        (self.is_server, self.port) = (true, service.port);
        if let Some(port) = self.port {
            self.runner.process.serve_at(port);
        }
        self.run_to_idle(None)?;
        if let Some(ready) = &service.ready {
            self.await_ready(&mut served, ready)?;
        }
        for warm_up in &service.warm_up {
            self.progress.warms_up(warm_up);
            for _ in 0..warm_up.times {
                self.warm_up(&mut served, warm_up)?;
                self.progress.answered();
                self.rest(&mut served)?;
            }
        }
        let steady: Vec<&WarmUp> = service.warm_up.iter().filter(|warm_up| warm_up.steady).collect();
        self.run_until_steady(&mut served, &steady)?;
        self.progress.settles();
        self.idle_before_freeze(&mut served, service.settle)?;
        if let Some(hook) = &service.before_freeze {
            self.ask_before_freeze(&mut served, hook)?;
        }
        // On a connection that the program kept open, or without one.
        let kept = served.connection();
        if self.run_to_idle(kept)? {
            return self.stand(kept);
        }
        served.close(&mut self.runner.process);
        self.run_to_idle(None)?;
        self.stand(None)
    }

    /// Puts the machine into the thread that a request will wake.
    fn stand(mut self, connection: Option<ConnectionId>) -> Result<Ready, BootError> {
        let Self { machine, runner, .. } = &mut self;
        let waiter = runner.process.input_waiter(machine, connection).unwrap_or(0);
        let stood = runner.step(|process, _| process.stand_at(machine, waiter));
        stood.map_err(|stop| self.error(stop))?;
        self.runner.process.keep_application();
        Ok(Ready { has_handover: false, connection })
    }

    /// Runs until all threads wait, one of them for a connection to the application, or for input on `connection`.
    /// Returns `false` if none does that any more because the program has closed the connection.
    pub(super) fn run_to_idle(&mut self, connection: Option<ConnectionId>) -> Result<bool, BootError> {
        // The program may be idle already, unless a thread is woken here.
        let mut woken = self.wake();
        loop {
            let wait = match self.run_on(woken)? {
                // The program closes the connection, or writes without having been asked.
                Ok(Event::Output) if connection.is_some() => return Ok(false),
                Ok(Event::Output) => return Err(BootError::Failed("output without a connection".into())),
                Ok(Event::Doorbell) => return Err(rang()),
                Err(wait) => wait,
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
    /// follow while the program has more to do: the boot waits for it.
    fn collect(&mut self, mut wait: Wait) -> Result<Wait, BootError> {
        let process = &self.runner.process;
        let application = process.application();
        let now = host_clock::monotonic_ns();
        let listeners = process.listeners();
        if listeners.is_empty() {
            return Ok(wait);
        }
        let since = *self.listens_since_ns.get_or_insert(now);
        let end = since.saturating_add(COLLECTS_NS);
        let is_missing = application == Application::Missing;
        // What is still undecided until the time is over.
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

    pub(super) fn ambiguous(&self) -> BootError {
        BootError::Ambiguous { port: self.port, listeners: self.runner.process.listeners() }
    }

    /// Makes a warm-up request. The answer is not checked further.
    pub(super) fn warm_up(&mut self, served: &mut Served, warm_up: &WarmUp) -> Result<(), BootError> {
        let headers: Vec<Header<'_>> = warm_up.headers.iter().map(|(name, value)| Header { name, value }).collect();
        let (method, path, query) = (&warm_up.method[..], &warm_up.path[..], &warm_up.query[..]);
        let request = Request { method, path, query, headers: &headers, body: &warm_up.body, client: None };
        let path = || String::from_utf8_lossy(path).into_owned();
        self.ask(served, &request)?.map_err(|error| BootError::WarmUp { path: path(), error })
    }
}
