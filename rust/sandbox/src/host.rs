// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host, as the floors above see it: they do not know how an engine runs programs.

use std::path::{Path, PathBuf};

use mayfly_engine::EngineState;
pub use mayfly_engine::{Choice, Engine, HostError};

use crate::time::{timekeeping, watchdog};

/// The environment variable that names another KVM device than `/dev/kvm`, as containers and tests need.
pub const DEVICE_VARIABLE: &str = "MAYFLY_KVM_PATH";

/// The environment variable that names the engine that [`Choice::Auto`] is to mean: `kvm` or `process`. For tests and
/// comparisons; a server's configuration says it better.
pub const ENGINE_VARIABLE: &str = "MAYFLY_ENGINE";

/// The engines of this host, each opened when it is first asked for.
#[derive(Debug)]
pub struct Hosts {
    hosts: mayfly_engine::Hosts,
    auto: Result<Choice, HostError>,
}

/// What [`Choice::Auto`] means here.
#[derive(Debug, Clone)]
pub struct Auto {
    /// The best engine of this host.
    pub host: Result<Host, HostError>,
    /// Why it is this one, in one sentence without its full stop.
    pub why: String,
}

/// What is known of an engine here, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineReport {
    /// It has not been opened: nothing has needed it.
    Unopened,
    /// It has run a program.
    Usable {
        /// `hardware` or `paging` for KVM, `process` for processes.
        kind: &'static str,
        /// What the probe found, in a few words.
        details: String,
    },
    /// It cannot run programs.
    Unusable {
        /// What is missing and what an operator can do.
        reason: String,
    },
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new()
    }
}

impl Hosts {
    /// Nothing is opened yet. [`DEVICE_VARIABLE`] and [`ENGINE_VARIABLE`] are looked at now.
    #[must_use]
    pub fn new() -> Self {
        let path = std::env::var_os(DEVICE_VARIABLE).map_or_else(|| PathBuf::from("/dev/kvm"), PathBuf::from);
        let auto = match std::env::var(ENGINE_VARIABLE) {
            Ok(name) => Choice::from_name(&name).ok_or_else(|| HostError::unknown(&name)),
            Err(_) => Ok(Choice::Auto),
        };
        Self { auto, ..Self::of_device(&path) }
    }

    /// Nothing is opened yet. `device` is the KVM device; no environment variable is looked at.
    #[must_use]
    pub fn of_device(device: &Path) -> Self {
        Self { hosts: mayfly_engine::Hosts::new(device), auto: Ok(Choice::Auto) }
    }

    /// Opens the engine of this choice, if it is not open yet, and probes it by running a program.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is missing and what an operator can do.
    pub fn choose(&self, choice: Choice) -> Result<Host, HostError> {
        match choice {
            Choice::Auto => self.auto().host,
            Choice::Only(engine) => open(|| self.hosts.get(engine)),
        }
    }

    /// What [`Choice::Auto`] means here. Opens the engines that it has to look at.
    ///
    /// ```
    /// use mayfly_sandbox::Hosts;
    ///
    /// let auto = Hosts::new().auto();
    /// println!("{:?}: {}", auto.host.map(|host| host.engine()), auto.why);
    /// ```
    #[must_use]
    pub fn auto(&self) -> Auto {
        match &self.auto {
            Ok(Choice::Auto) => {
                watchdog::survive_file_size_limit();
                let auto = self.hosts.auto();
                Auto { host: open(|| auto.host), why: auto.why }
            }
            Ok(choice @ Choice::Only(_)) => {
                Auto { host: self.choose(*choice), why: format!("{ENGINE_VARIABLE} asks for {}", choice.name()) }
            }
            Err(unknown) => Auto { host: Err(unknown.clone()), why: format!("{ENGINE_VARIABLE} names none") },
        }
    }

    /// Whether threads that call workers should be bound to processors, as an engine that has been opened prefers.
    #[must_use]
    pub fn prefer_bound_threads(&self) -> bool {
        Engine::ALL.iter().any(|engine| match self.hosts.state(*engine) {
            EngineState::Usable(host) => host.prefers_bound_threads(),
            EngineState::Unopened | EngineState::Unusable(_) => false,
        })
    }

    /// What is known of the engine. Does not open it.
    #[must_use]
    pub fn report(&self, engine: Engine) -> EngineReport {
        match self.hosts.state(engine) {
            EngineState::Unopened => EngineReport::Unopened,
            EngineState::Usable(host) => EngineReport::Usable { kind: host.kind(), details: host.details() },
            EngineState::Unusable(error) => EngineReport::Unusable { reason: error.to_string() },
        }
    }
}

/// What comes before the first machine on any engine, and after its probe.
fn open(host: impl FnOnce() -> Result<mayfly_engine::Host, HostError>) -> Result<Host, HostError> {
    watchdog::survive_file_size_limit();
    let machine = host()?;
    if machine.needs_interrupted_calls() {
        watchdog::interrupt_calls();
    }
    timekeeping::begin();
    Ok(Host { machine })
}

/// A host that can run machines; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) machine: mayfly_engine::Host,
}

/// What kind of host this is, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// `hardware` or `paging` for KVM, `process` for processes.
    pub kind: &'static str,
    /// Extended state components that programs can use, as XCR0 has them.
    pub xcr0: u64,
    /// Whether programs read the time without a system call.
    pub clocks: bool,
}

impl Host {
    /// Opens the engine that [`ENGINE_VARIABLE`] names, and the best one of this host if it is not set.
    ///
    /// ```
    /// use mayfly_sandbox::Host;
    ///
    /// match Host::open() {
    ///     Ok(host) => println!("{:?}", host.report()),
    ///     Err(error) => println!("cannot run programs here: {error}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is missing and what an operator can do.
    pub fn open() -> Result<Self, HostError> {
        Hosts::new().choose(Choice::Auto)
    }

    /// The same host, for machines whose memory is charged to `account`.
    #[must_use]
    pub fn on_account(&self, account: &mayfly_engine::Account) -> Self {
        Self { machine: self.machine.on_account(account) }
    }

    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.machine.engine()
    }

    /// What kind of host this is.
    #[must_use]
    pub fn report(&self) -> HostReport {
        HostReport {
            kind: self.machine.kind(),
            xcr0: self.machine.guest_xcr0(),
            clocks: self.machine.shares_tsc() && timekeeping::line().is_some_and(|line| line.rate != 0),
        }
    }
}
