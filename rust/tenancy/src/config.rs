// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration: the tenants, their programs, routes and limits.
//!
//! A configuration is checked as a whole before any of it takes effect ([`mod@file`] has the format and the checks). An
//! error names the file, the line, the key and what was expected. `docs/configuration.md` describes the keys for users.

mod advice;
pub(crate) mod affinity;
pub(crate) mod client;
pub(crate) mod cpu_share;
mod destination;
mod error;
mod file;
pub(crate) mod json;
pub(crate) mod launch;
pub(crate) mod limits;
pub(crate) mod network;
mod run;
mod runtime;
pub(crate) mod schema;
mod service;
#[cfg(test)]
mod tests;
pub(crate) mod values;
pub(crate) mod watched_files;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_files::{Errands, Pending};
use mayfly_sandbox::{Choice, MonotonicClock, MountPoint, Outbound, Readiness, Target, WarmUp};

use crate::config::affinity::Affinity;
use crate::config::client::ClientConfig;
use crate::config::cpu_share::CpuShare;
use crate::config::json::{Key, blank_comments, locate};
use crate::config::limits::Limits;
use crate::config::values::{HostPattern, KeyDigest, RoutePath, TenantName};

pub use error::{ConfigError, Position};
pub(crate) use file::File;

/// Largest file, in bytes. A file with ten thousand tenants has about a tenth of it.
const FILE_MAX: u64 = 64 << 20;
/// How long a call of the configuration's file system may take at start. A share that is mounted on demand takes
/// seconds.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The `name` under which Drogon's configuration lists the plugin.
pub const PLUGIN_NAME: &str = "mayfly::SandboxPlugin";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// In file order. Names are unique, and so are routes over all tenants.
    pub tenants: Vec<TenantConfig>,
    /// Largest number of workers in the process at a time. `None`: as many as its descriptors and memory allow.
    pub max_workers: Option<u32>,
    /// Bound on the process's memory in bytes, in addition to the bounds of its cgroup and of the machine. `None`: only
    /// those.
    pub max_memory_bytes: Option<u64>,
    /// Threads for requests that exceed their inline budget.
    pub overflow_threads: u32,
    /// How many of the tenants that do not configure it boot when the server starts, from the top of the file. The
    /// others boot at their first request.
    pub boot_at_start: u32,
    /// Whether changes of the tenants file and of programs take effect automatically.
    pub watch: bool,
    /// The listener for operators and uploads. `None`: there is none.
    pub admin: Option<AdminConfig>,
    /// The directory that keeps snapshots of booted programs for the next start. `None`: programs boot at each start.
    pub snapshots: Option<PathBuf>,
    /// Whether responses have the headers `x-mayfly-mode` and `x-mayfly-generation`.
    pub mode_header: bool,
    /// Whether event loops are bound to processors. `None`: as the engines that are used prefer.
    pub pin_loops: Option<bool>,
    /// The engine that the command line asks for, whatever the file says: see [`Config::force_engine`].
    pub forced_engine: Option<Choice>,
    /// The file that the configuration was read from, if any; it is watched for changes.
    pub source: Option<PathBuf>,
}

/// The listener for operators and uploads. It speaks plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address that it listens on. Without a `key`, it must be a loopback address.
    pub listen: SocketAddr,
    /// The operator's key. Without one, no client may reload or roll back as the operator, and any client that
    /// reaches the listener may read the status and the metrics.
    pub key: Option<KeyDigest>,
    /// The directory that keeps uploaded programs. `None`: there are no uploads.
    pub uploads: Option<PathBuf>,
    /// Largest upload, in bytes.
    pub upload_bytes: u64,
}

/// One tenant of a checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantConfig {
    /// The name in logs, reports and errors.
    pub name: TenantName,
    /// The ELF file, joined to the configuration's `root`.
    pub program: PathBuf,
    /// Where it runs, and its storage program: its own setting, else its group's, else the file's.
    pub engine: Choice,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment: tenants get nothing of the server's own. Sorted by name; names are unique.
    pub env: Vec<(String, String)>,
    /// The host's files that the program sees, in no particular order; mount points are unique.
    pub mounts: Vec<MountPoint>,
    /// Files and directories in the mounts, as host paths. When one changes, the program boots again.
    pub watch: Vec<PathBuf>,
    /// The destinations that the program may connect to, in no particular order; elements are unique.
    pub outbound: Vec<Outbound>,
    /// What the program learns about its clients.
    pub client: ClientConfig,
    /// What the program's monotonic clock does while the program is frozen.
    pub monotonic: MonotonicClock,
    /// For a program that serves connections itself. `None`: it waits at the doorbell.
    pub service: Option<ServiceConfig>,
    /// The routes of the tenant. Empty only for the default tenant.
    pub routes: Vec<Route>,
    /// Whether the tenant gets requests that no route matches. At most one tenant does.
    pub is_default: bool,
    /// What happens to a worker's state after a request.
    pub mode: Mode,
    /// Number of workers that serve all loops, for a tenant that keeps state. `None`: each loop has its own.
    pub workers: Option<NonZeroU32>,
    /// What decides which of those workers gets a request. `None`: any that is idle.
    pub affinity: Option<Affinity>,
    /// When the program boots for the first time.
    pub boot: BootWhen,
    /// The tenant's own limits, completed by those of its group, of the file, and of Mayfly.
    pub limits: Limits,
    /// Memory that all workers of the tenant see, and that is never reset.
    pub shared: Option<SharedConfig>,
    /// A second, long-lived program, whose functions the tenant's workers may call.
    pub storage: Option<StorageConfig>,
    /// A request that a new generation must answer before it takes over.
    pub health: Option<HealthConfig>,
    /// Digest of the key with which a client may upload the program.
    pub upload_key: Option<KeyDigest>,
}

/// One of a tenant's routes: a host pattern and a path prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The hosts.
    pub host: HostPattern,
    /// The paths of those hosts.
    pub path: RoutePath,
}

impl fmt::Display for Route {
    /// As a person would write it: `shop.example/cart`, `*.example/`, `/cart`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// What happens to a worker's state after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is rolled back: every request starts from the frozen state.
    Ephemeral,
    /// It is kept from request to request.
    Stateful,
    /// It is kept for this many requests, then it is rolled back.
    ResetEvery(NonZeroU32),
}

impl fmt::Display for Mode {
    /// `ephemeral`, `stateful`, or as in `reset-every-100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ephemeral => f.write_str("ephemeral"),
            Self::Stateful => f.write_str("stateful"),
            Self::ResetEvery(requests) => write!(f, "reset-every-{requests}"),
        }
    }
}

/// When a tenant's program boots for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootWhen {
    /// When the server starts, if the tenant is among the first [`Config::boot_at_start`] with this setting; else like
    /// `FirstCall`.
    Auto,
    /// When the server starts.
    Start,
    /// At the tenant's first request.
    FirstCall,
}

/// A program that is an HTTP server of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The port that its application listens on. `None`: the only port that the program listens on.
    pub port: Option<u16>,
    /// What it must answer before the warm-up. `None`: it is ready when it listens and all its threads wait.
    pub ready: Option<Readiness>,
    /// Requests that it serves before it is frozen.
    pub warm_up: Vec<WarmUp>,
    /// How long it idles after that.
    pub settle: Duration,
    /// What it is asked for just before the freeze.
    pub before_freeze: Option<Target>,
    /// What a worker is asked for before the first request after the freeze, and after each reset.
    pub after_restore: Option<Target>,
}

/// Memory that all workers of a tenant see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedConfig {
    /// Its size: whole pages.
    pub bytes: u64,
    /// The file that keeps it across restarts, joined to the configuration's `root`; unique to the tenant. `None`: it
    /// ends with the server.
    pub file: Option<PathBuf>,
}

/// A tenant's storage program.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageConfig {
    /// The ELF file, joined to the configuration's `root`.
    pub program: PathBuf,
    /// Where it runs: as the tenant's program.
    pub engine: Choice,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment. Sorted by name; names are unique.
    pub env: Vec<(String, String)>,
    /// The host's files that it sees; the tenant's own mounts are not included.
    pub mounts: Vec<MountPoint>,
    /// The storage program's own limits, completed by those of the tenant's group, of the file, and of Mayfly.
    pub limits: Limits,
    /// Longest time that a caller waits for one call.
    pub call_time: Duration,
}

/// The request that checks whether a generation works: a `GET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// The path, with the query if there is one.
    pub path: String,
    /// The expected status.
    pub status: u16,
}

impl TenantConfig {
    /// How much of a processor its workers may use between requests.
    #[must_use]
    pub fn background_cpu(&self) -> CpuShare {
        if self.mode == Mode::Ephemeral || self.service.is_none() { CpuShare::NONE } else { self.limits.background_cpu }
    }

    /// Whether a generation that was booted for `self` can serve `other`: everything that a snapshot or a worker is
    /// made from is equal.
    ///
    /// Programs are compared by path, not by content.
    #[must_use]
    pub fn same_program(&self, other: &Self) -> bool {
        // Destructured, so that a new field requires a decision here.
        let Self {
            name: _,
            program,
            engine,
            args,
            env,
            mounts,
            watch,
            outbound,
            client: _,
            monotonic,
            service,
            routes: _,
            is_default: _,
            mode,
            workers,
            affinity: _,
            boot: _,
            limits,
            shared,
            storage,
            health,
            upload_key: _,
        } = self;
        *program == other.program
            && *engine == other.engine
            && *args == other.args
            && *env == other.env
            && *mounts == other.mounts
            // No snapshot is made from it, but the files that it names are compared with those at the time of the boot.
            && *watch == other.watch
            && *outbound == other.outbound
            && *monotonic == other.monotonic
            && *service == other.service
            && *mode == other.mode
            && *workers == other.workers
            && *limits == other.limits
            && *shared == other.shared
            && *storage == other.storage
            && *health == other.health
    }
}

impl Config {
    /// Parses and checks a configuration. Comments (`//`, `/* */`) are allowed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with line and column. Nothing has taken effect in that case.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let text = blank_comments(text);
        Self::from_part(&text, &text, &[]).map_err(|error| error.placed(&text))
    }

    /// Checks a parsed configuration, such as the plugin's `config` in Drogon's file: the configuration itself, or
    /// `{"tenants_file": "…"}`, a path relative to the current directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; with file, line and column if there is a tenants file.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, ConfigError> {
        match tenants_file(value, &[])? {
            Some(path) => Self::from_tenants_file(&path),
            // Without a text there are no positions.
            None => Self::from_part("", &value.to_string(), &[]),
        }
    }

    /// Reads a configuration from a file: either Mayfly's own, or one for Drogon that lists the plugin. Follows
    /// `tenants_file`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with file, line and column.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        Self::from_text(path, &text).map_err(|error| error.placed(&text).in_file(path))
    }

    fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let outline: serde_json::Value = serde_json::from_str(text).map_err(ConfigError::syntax)?;
        let mut config = match outline.get("plugins").and_then(|plugins| plugins.as_array()) {
            None => Self::from_part(text, text, &[])?,
            Some(plugins) => {
                let (index, plugin) = plugins
                    .iter()
                    .enumerate()
                    .find(|(_, plugin)| plugin["name"] == PLUGIN_NAME)
                    .ok_or_else(|| ConfigError::new(&[Key::from("plugins")], no_plugin()))?;
                let place = [Key::from("plugins"), Key::from(index), Key::from("config")];
                if let Some(path) = tenants_file(&plugin["config"], &place)? {
                    return Self::from_tenants_file(&path);
                }
                // From the text and not from the outline, which has lost duplicate keys.
                let part = locate(text, &place).map_or("{}", |found| &text[found.value]);
                Self::from_part(text, part, &place)?
            }
        };
        config.source = Some(path.to_owned());
        Ok(config)
    }

    /// Reads the file that the plugin's configuration names. It has the whole configuration and names no further file.
    fn from_tenants_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let config = Self::from_part(&text, &text, &[]).map_err(|error| error.placed(&text).in_file(path))?;
        Ok(Self { source: Some(path.to_owned()), ..config })
    }

    /// Has all tenants run on `engine`, whatever they configure, and those of configurations that replace this one.
    pub fn force_engine(&mut self, engine: Choice) {
        self.forced_engine = Some(engine);
        for tenant in &mut self.tenants {
            tenant.engine = engine;
            if let Some(storage) = &mut tenant.storage {
                storage.engine = engine;
            }
        }
    }

    /// Checks `part`, which is at `place` in `text`.
    fn from_part(text: &str, part: &str, place: &[Key]) -> Result<Self, ConfigError> {
        let mut json = serde_json::Deserializer::from_str(part);
        let file: File =
            serde_path_to_error::deserialize(&mut json).map_err(|error| ConfigError::refused(place, error))?;
        json.end().map_err(ConfigError::syntax)?;
        file.check().map_err(|error| error.below(place)).map_err(|error| error.placed(text))
    }
}

/// The file's text without its comments.
fn read(path: &Path) -> Result<String, ConfigError> {
    let file = path.to_owned();
    let text = move || mayfly_files::read_text(&file, FILE_MAX).map_err(|problem| problem.to_string());
    let text = if mayfly_files::is_errand() {
        text()
    } else {
        // At start. If the file system hangs, the start fails: nothing else would end it, not even a signal.
        let read = Errands::with_patience(START_PATIENCE).begin(START_PATIENCE * 10, text).and_then(Pending::wait);
        read.unwrap_or_else(|unfinished| Err(unfinished.to_string()))
    };
    text.map(|text| blank_comments(&text)).map_err(|problem| ConfigError::unread(path, problem))
}

fn no_plugin() -> String {
    format!("none is named \"{PLUGIN_NAME}\"")
}

/// The path that `{"tenants_file": …}` names; `None` if `config` is the configuration itself.
fn tenants_file(config: &serde_json::Value, place: &[Key]) -> Result<Option<PathBuf>, ConfigError> {
    const KEY: &str = "tenants_file";
    let Some(path) = config.get(KEY) else { return Ok(None) };
    let refused = |key: &str, problem: &str| Err(ConfigError::new(&[Key::from(key)], problem.to_owned()).below(place));
    if let Some(other) = config.as_object().into_iter().flat_map(|keys| keys.keys()).find(|key| *key != KEY) {
        return refused(other, "cannot be combined with `tenants_file`, which has the whole configuration");
    }
    match path.as_str() {
        Some(path) if !path.is_empty() => Ok(Some(path.into())),
        _ => refused(KEY, "expected the path of a file"),
    }
}
