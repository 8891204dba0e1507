// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engines of this host: which there are, and which one to use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mayfly_machine::EnginePage;
use mayfly_memory::layout::Reach;
use mayfly_memory::ledger::Account;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// KVM: virtual machines.
    Kvm,
    /// Processes of the host below a seccomp filter.
    Process,
}

impl Engine {
    /// All engines.
    pub const ALL: [Self; 2] = [Self::Kvm, Self::Process];

    /// Its name in configurations and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Process => "process",
        }
    }
}

/// Which engine is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Choice {
    /// Hardware KVM where it works, else processes, else paging KVM.
    #[default]
    Auto,
    /// This one.
    Only(Engine),
}

impl Choice {
    /// The choice of this name: `auto`, `kvm`, `process`.
    ///
    /// ```
    /// use mayfly_engine::{Choice, Engine};
    ///
    /// assert_eq!(Choice::from_name("process"), Some(Choice::Only(Engine::Process)));
    /// assert_eq!(Choice::from_name("xen"), None);
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "kvm" => Some(Self::Only(Engine::Kvm)),
            "process" => Some(Self::Only(Engine::Process)),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Only(engine) => engine.name(),
        }
    }
}

/// Why an engine cannot be used here.
#[derive(Debug, Clone)]
pub struct HostError {
    /// Each engine that was tried, and what is wrong with it and what to do.
    tried: Vec<(Engine, Arc<str>)>,
}

impl HostError {
    fn new(engine: Engine, why: &impl fmt::Display) -> Self {
        Self { tried: vec![(engine, why.to_string().into())] }
    }

    /// There is no engine of this name.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        let why = format!("`{name}` is no engine: use auto, kvm or process");
        Self { tried: vec![(Engine::Process, why.into())] }
    }

    /// Each engine that was tried, and why it cannot be used.
    pub fn tried(&self) -> impl Iterator<Item = (Engine, &str)> {
        self.tried.iter().map(|(engine, why)| (*engine, &**why))
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (engine, why)) in self.tried().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            match self.tried.len() {
                1 => write!(f, "{why}")?,
                _ => write!(f, "{separator}{}: {why}", engine.name())?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for HostError {}

/// An opened and probed engine, on which machines can be made; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) engine: EngineHost,
    /// The account that is charged for the memory of machines on this host.
    account: Account,
}

/// One engine's host.
#[derive(Debug, Clone)]
pub(crate) enum EngineHost {
    /// Virtual machines.
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::Host),
    /// Stub processes.
    #[cfg(feature = "process")]
    Process(mayfly_process::Host),
}

impl Host {
    fn new(engine: EngineHost) -> Self {
        Self { engine, account: Account::default() }
    }

    /// Opens the best engine of this host, with `/dev/kvm` as the KVM device. Probes run programs, once a process.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is missing for each engine.
    pub fn open() -> Result<Self, HostError> {
        static HOSTS: OnceLock<Hosts> = OnceLock::new();
        HOSTS.get_or_init(|| Hosts::new("/dev/kvm".as_ref())).choose(Choice::Auto)
    }

    /// The same host, for machines whose memory is charged to `account`.
    #[must_use]
    pub fn on_account(&self, account: &Account) -> Self {
        Self { engine: self.engine.clone(), account: account.clone() }
    }

    /// The account that is charged for the memory of machines on this host.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => Engine::Kvm,
            #[cfg(feature = "process")]
            EngineHost::Process(_) => Engine::Process,
        }
    }

    /// The kind of the engine, in a word: `hardware` or `paging` for KVM, `process`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => host.kind().name(),
            #[cfg(feature = "process")]
            EngineHost::Process(_) => Engine::Process.name(),
        }
    }

    /// What the probe found, in a few words: how machines run here.
    #[must_use]
    pub fn details(&self) -> String {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => match host.kind() {
                mayfly_kvm::HostKind::Hardware => "virtual machines, by hardware virtualisation".to_owned(),
                mayfly_kvm::HostKind::Paging => {
                    "virtual machines, by paging, without hardware virtualisation".to_owned()
                }
            },
            #[cfg(feature = "process")]
            EngineHost::Process(host) => host.report().to_string(),
        }
    }

    /// Whether machines are those of hardware virtualisation.
    #[must_use]
    pub fn is_hardware(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => host.kind() == mayfly_kvm::HostKind::Hardware,
            #[cfg(feature = "process")]
            EngineHost::Process(_) => false,
        }
    }

    /// The extended state components that programs see enabled in XCR0.
    #[must_use]
    pub fn guest_xcr0(&self) -> u64 {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => host.guest_xcr0(),
            #[cfg(feature = "process")]
            EngineHost::Process(_) => mayfly_process::vector_components(),
        }
    }

    /// Whether a handler of signals must interrupt the system call of a thread that runs a machine, instead of having
    /// it made again: on kernels where a stub cannot be signalled while it waits for its server.
    #[must_use]
    pub fn needs_interrupted_calls(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => false,
            #[cfg(feature = "process")]
            EngineHost::Process(host) => !host.report().killable,
        }
    }

    /// Whether threads that run machines should be bound to processors: where the kernel does not keep a stub on the
    /// processor of the thread that waits for it.
    #[must_use]
    pub fn prefers_bound_threads(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => false,
            #[cfg(feature = "process")]
            EngineHost::Process(host) => host.report().wake == mayfly_process::Wake::Pinned,
        }
    }

    /// Whether programs can compute the time from the host's time-stamp counter.
    #[must_use]
    pub fn shares_tsc(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => host.shares_tsc(),
            #[cfg(feature = "process")]
            EngineHost::Process(_) => true,
        }
    }

    /// How processors reach memory here.
    pub(crate) fn reach(&self) -> Reach {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => Reach::Mapping,
            #[cfg(feature = "process")]
            EngineHost::Process(_) => Reach::Files,
        }
    }

    /// Pages to map into every machine that boots.
    pub(crate) fn engine_pages(&self) -> Vec<EnginePage> {
        match &self.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(host) => mayfly_kvm::pages(host),
            #[cfg(feature = "process")]
            EngineHost::Process(_) => mayfly_process::pages(),
        }
    }
}

/// What is known of an engine here.
#[derive(Debug, Clone)]
pub enum EngineState {
    /// It has not been opened: nothing has needed it.
    Unopened,
    /// It has run a program.
    Usable(Host),
    /// It cannot run programs.
    Unusable(HostError),
}

/// What [`Choice::Auto`] means here.
#[derive(Debug, Clone)]
pub struct Auto {
    /// The best engine of this host.
    pub host: Result<Host, HostError>,
    /// Why it is this one, in one sentence without its full stop.
    pub why: String,
}

/// The engines of this machine, each opened when it is first asked for.
#[derive(Debug)]
pub struct Hosts {
    device: PathBuf,
    kvm: OnceLock<Result<Host, HostError>>,
    process: OnceLock<Result<Host, HostError>>,
}

impl Hosts {
    /// Nothing is opened yet. `device` is the KVM device, normally `/dev/kvm`.
    #[must_use]
    pub fn new(device: &Path) -> Self {
        Self { device: device.into(), kvm: OnceLock::new(), process: OnceLock::new() }
    }

    /// The engine, opened and probed once.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is missing.
    pub fn get(&self, engine: Engine) -> Result<Host, HostError> {
        match engine {
            Engine::Kvm => self.kvm.get_or_init(|| open_kvm(&self.device)).clone(),
            Engine::Process => self.process.get_or_init(open_process).clone(),
        }
    }

    /// What is known of the engine. Does not open it.
    ///
    /// ```
    /// use mayfly_engine::{Engine, EngineState, Hosts};
    ///
    /// let hosts = Hosts::new("/dev/kvm".as_ref());
    /// assert!(matches!(hosts.state(Engine::Process), EngineState::Unopened));
    /// ```
    #[must_use]
    pub fn state(&self, engine: Engine) -> EngineState {
        let opened = match engine {
            Engine::Kvm => self.kvm.get(),
            Engine::Process => self.process.get(),
        };
        match opened {
            None => EngineState::Unopened,
            Some(Ok(host)) => EngineState::Usable(host.clone()),
            Some(Err(error)) => EngineState::Unusable(error.clone()),
        }
    }

    /// The engine that this choice means here.
    ///
    /// # Errors
    ///
    /// [`HostError`] of each engine that was tried.
    pub fn choose(&self, choice: Choice) -> Result<Host, HostError> {
        match choice {
            Choice::Auto => self.auto().host,
            Choice::Only(engine) => self.get(engine),
        }
    }

    /// What [`Choice::Auto`] means here: KVM of hardware virtualisation, else processes, else KVM of the paging kind.
    #[must_use]
    pub fn auto(&self) -> Auto {
        let kvm = self.get(Engine::Kvm);
        if kvm.as_ref().is_ok_and(Host::is_hardware) {
            return Auto { host: kvm, why: "KVM has hardware virtualisation here".to_owned() };
        }
        match (self.get(Engine::Process), kvm) {
            (Ok(process), Ok(_)) => Auto {
                host: Ok(process),
                why: "KVM has no hardware virtualisation here, and processes work without it".to_owned(),
            },
            (Ok(process), Err(missing)) => Auto { host: Ok(process), why: format!("KVM cannot be used: {missing}") },
            (Err(missing), Ok(kvm)) => Auto {
                host: Ok(kvm),
                why: format!("KVM works, without hardware virtualisation, and processes do not: {missing}"),
            },
            (Err(process), Err(kvm)) => Auto {
                host: Err(HostError { tried: [kvm.tried, process.tried].concat() }),
                why: "no engine can be used".to_owned(),
            },
        }
    }
}

#[cfg(feature = "kvm")]
fn open_kvm(device: &Path) -> Result<Host, HostError> {
    mayfly_kvm::Host::open(device)
        .map(|host| Host::new(EngineHost::Kvm(host)))
        .map_err(|error| HostError::new(Engine::Kvm, &error))
}

#[cfg(not(feature = "kvm"))]
fn open_kvm(_: &Path) -> Result<Host, HostError> {
    Err(HostError::new(Engine::Kvm, &"this build has no KVM engine"))
}

#[cfg(feature = "process")]
fn open_process() -> Result<Host, HostError> {
    mayfly_process::Host::probe()
        .map(|host| Host::new(EngineHost::Process(host)))
        .map_err(|missing| HostError::new(Engine::Process, &missing))
}

#[cfg(not(feature = "process"))]
fn open_process() -> Result<Host, HostError> {
    Err(HostError::new(Engine::Process, &"this build has no process engine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_has_a_name_that_is_understood() {
        for choice in [Choice::Auto, Choice::Only(Engine::Kvm), Choice::Only(Engine::Process)] {
            assert_eq!(Choice::from_name(choice.name()), Some(choice));
        }
        for name in ["", "KVM", "kvm ", "processes"] {
            assert_eq!(Choice::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn without_kvm_auto_means_processes_and_says_why() {
        let hosts = Hosts::new("/nowhere".as_ref());
        assert!(Engine::ALL.iter().all(|&engine| matches!(hosts.state(engine), EngineState::Unopened)));
        let auto = hosts.auto();
        assert!(matches!(hosts.state(Engine::Kvm), EngineState::Unusable(_)));
        // The hardware lane has an old kernel, which may have no process engine.
        match auto.host {
            Ok(host) => {
                assert_eq!(host.engine(), Engine::Process);
                assert!(auto.why.starts_with("KVM cannot be used: /nowhere does not exist"), "{}", auto.why);
                assert!(matches!(hosts.state(Engine::Process), EngineState::Usable(_)));
            }
            Err(error) => {
                let tried: Vec<_> = error.tried().map(|(engine, _)| engine).collect();
                assert_eq!(tried, [Engine::Kvm, Engine::Process], "{error}");
            }
        }
    }

    #[test]
    fn an_engine_that_is_forced_and_missing_is_not_replaced() {
        let hosts = Hosts::new("/nowhere".as_ref());
        let error = hosts.choose(Choice::Only(Engine::Kvm)).unwrap_err();
        assert_eq!(error.tried().map(|(engine, _)| engine).collect::<Vec<_>>(), [Engine::Kvm]);
        assert!(matches!(hosts.state(Engine::Process), EngineState::Unopened), "it was not tried");
    }

    #[test]
    fn only_hardware_virtualisation_comes_before_processes() {
        let hosts = Hosts::new("/dev/kvm".as_ref());
        let auto = hosts.auto().host.unwrap();
        let is_hardware = hosts.get(Engine::Kvm).is_ok_and(|host| host.is_hardware());
        let has_processes = hosts.get(Engine::Process).is_ok();
        assert_eq!(auto.engine(), if is_hardware || !has_processes { Engine::Kvm } else { Engine::Process });
    }

    #[test]
    fn an_error_of_several_engines_names_each() {
        let one = HostError::new(Engine::Kvm, &"no device");
        assert_eq!(one.to_string(), "no device");
        let tried = [one.tried, HostError::new(Engine::Process, &"no calls").tried].concat();
        assert_eq!(HostError { tried }.to_string(), "kvm: no device; process: no calls");
    }
}
