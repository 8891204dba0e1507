// SPDX-License-Identifier: MIT OR Apache-2.0
//! The format of the configuration file, and the checks of it as a whole.
//!
//! The doc comments of these types are the descriptions in the published schema. They address the author of the file.

mod unique;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_sandbox::{Choice, MountPoint, Outbound};
use schemars::JsonSchema;
use serde::Deserialize;

use super::run::{self, Engine, Monotonic, Mount, Serve};
use super::service::{Port, Ready, SETTLE_MS, ServiceKeys, SettleMs, WarmUpRequest};
use super::{
    AdminConfig, BootWhen, Config, ConfigError, HealthConfig, Mode, Route, SharedConfig, StorageConfig, TenantConfig,
};
use crate::config::affinity::Affinity;
use crate::config::client::ClientPatch;
use crate::config::destination::Destination;
use crate::config::json::Key;
use crate::config::limits::{Limits, LimitsPatch};
use crate::config::runtime::Runtime;
use crate::config::schema::SocketAddress;
use crate::config::values::{
    Argument, Bounded, EnvironmentName, FilePath, HostPattern, KeyDigest, MountPath, RequestTarget, RoutePath, SomeOf,
    TenantName,
};
use unique::{PathForm, UsedNames};

/// The default address of the admin listener.
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
const UPLOAD_MIB: u64 = 64;
const OVERFLOW_THREADS: u32 = 4;
const BOOT_AT_START: u32 = 64;
const CALL_MS: u64 = 100;
const HEALTH_STATUS: u16 = 200;

/// Mayfly's tenants: their programs, routes and limits.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The schema of this file, for editors. Mayfly ignores it.
    #[serde(rename = "$schema")]
    _schema: Option<String>,
    /// The directory that paths of programs and other files are relative to. It is itself relative to the directory in
    /// which the server was started.
    #[serde(default)]
    root: PathBuf,
    /// Largest number of workers at a time. When it is reached, the least recently used workers are closed. Default: as
    /// many as descriptors, processes and memory allow.
    max_workers: Option<Bounded<1, 1_000_000>>,
    /// Bound on the process's memory, in MiB. Near the bound, idle workers are closed, and requests that need more
    /// memory are refused with 503. Default: what the limit of its cgroup and the machine's memory allow. Those bounds
    /// hold in any case.
    max_memory_mib: Option<Bounded<32, 16_777_216>>,
    /// Threads for requests that exceed their inline budget.
    #[schemars(extend("default" = OVERFLOW_THREADS))]
    overflow_threads: Option<Bounded<1, 256>>,
    /// How many tenants, from the top of the file, boot when the server starts. The others boot at their first request.
    #[schemars(extend("default" = BOOT_AT_START))]
    boot_at_start: Option<Bounded<0, 1_000_000>>,
    /// Whether a changed tenants file and changed programs take effect automatically. SIGHUP has the same effect in any
    /// case.
    #[serde(default = "yes")]
    #[schemars(extend("default" = true))]
    watch: bool,
    /// Whether responses have the headers x-mayfly-mode and x-mayfly-generation, which show how they were made.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    mode_header: bool,
    /// Whether event loops are bound to processors, each to one. Default: only where the process engine is used on a
    /// kernel without synchronous wake-ups (before Linux 6.6).
    pin_loops: Option<bool>,
    /// Directory, relative to the root, that keeps snapshots of booted programs, so that the next start of the server
    /// does not boot them again. Anyone who can write to it controls the tenants' programs. Without it, programs boot
    /// at each start.
    snapshots: Option<FilePath>,
    /// Where programs run for which neither the tenant nor its group says it.
    #[serde(default)]
    #[schemars(extend("default" = "auto"))]
    engine: Engine,
    /// A listener for operators: status, metrics, uploads. Default: none.
    admin: Option<Admin>,
    /// Settings for all tenants.
    #[serde(default)]
    defaults: Defaults,
    /// Settings that tenants have in common, by the group's name.
    #[serde(default)]
    groups: BTreeMap<TenantName, Group>,
    /// The tenants.
    #[serde(default)]
    tenants: Vec<Tenant>,
}

/// A listener for operators. It speaks plain HTTP.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Admin {
    /// Address and port. Without a key, it must be a loopback address.
    #[schemars(extend("default" = ADMIN_ADDRESS))]
    #[schemars(with = "Option<SocketAddress>")]
    listen: Option<SocketAddr>,
    /// SHA-256 of the operator's key, which everything but the health check then requires.
    key_sha256: Option<KeyDigest>,
    /// Directory, relative to the root, that keeps uploaded programs. Without it there are no uploads.
    uploads: Option<FilePath>,
    /// Largest upload.
    #[schemars(extend("default" = UPLOAD_MIB))]
    upload_mib: Option<Bounded<1, 1024>>,
}

/// Settings for all tenants that do not override them.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Defaults {
    /// Limits of tenants for which neither the tenant nor its group sets them.
    #[serde(default)]
    limits: LimitsPatch,
    /// The host's files that all programs see, including storage programs.
    #[serde(default)]
    mounts: Vec<Mount>,
    /// What programs learn about clients for which neither the tenant nor its group says it.
    #[serde(default)]
    client: ClientPatch,
}

/// Settings that the tenants of a group have in common.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Where the programs of tenants run that do not say it themselves. Default: where the file says.
    engine: Option<Engine>,
    /// Limits of tenants that do not set their own.
    #[serde(default)]
    limits: LimitsPatch,
    /// Environment. A tenant's own variable of the same name takes precedence.
    #[serde(default)]
    env: BTreeMap<EnvironmentName, Argument>,
    /// Destinations that its tenants' programs may connect to.
    #[serde(default)]
    outbound: Vec<Destination>,
    /// The host's files that its tenants' programs see, in addition to the defaults. A tenant's own mount at the same
    /// path takes precedence.
    #[serde(default)]
    mounts: Vec<Mount>,
    /// What its tenants' programs learn about clients, for keys that a tenant does not set itself.
    #[serde(default)]
    client: ClientPatch,
}

/// A tenant. It needs at least one of `path`, `paths`, `hosts` and `default`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [
        { "required": ["path"] },
        { "required": ["paths"] },
        { "required": ["hosts"] },
        { "required": ["default"], "properties": { "default": { "const": true } } },
    ],
    "not" = { "anyOf": [
        { "required": ["path", "paths"] },
        { "required": ["ephemeral", "reset_every"] },
        { "required": ["workers", "ephemeral"], "properties": { "ephemeral": { "const": true } } },
        { "required": ["workers"], "not": { "anyOf": [{ "required": ["ephemeral"] }, { "required": ["reset_every"] }] } },
        { "required": ["affinity"], "not": { "required": ["workers"], "properties": { "workers": { "minimum": 2 } } } },
        { "required": ["port"], "not": { "required": ["serve"], "properties": { "serve": { "const": "connections" } } } },
        { "required": ["ready"], "not": { "required": ["serve"], "properties": { "serve": { "const": "connections" } } } },
        { "required": ["warm_up"], "not": { "required": ["serve"], "properties": { "serve": { "const": "connections" } } } },
        { "required": ["settle_ms"], "not": { "required": ["serve"], "properties": { "serve": { "const": "connections" } } } },
        { "required": ["before_freeze"], "not": { "required": ["serve"], "properties": { "serve": { "const": "connections" } } } },
        { "required": ["after_restore"], "not": { "required": ["serve"], "properties": { "serve": { "const": "connections" } } } },
    ] },
))]
struct Tenant {
    /// Its name in logs, reports and errors. No two tenants have the same name.
    name: TenantName,
    /// The group that it belongs to.
    group: Option<TenantName>,
    /// The ELF file, relative to the root.
    program: FilePath,
    /// Where the program runs, and its storage program. Default: where the group says, else where the file says.
    engine: Option<Engine>,
    /// Arguments after the program's name.
    #[serde(default)]
    args: Vec<Argument>,
    /// The whole environment, together with that of the group. Tenants get nothing of the server's own environment.
    #[serde(default)]
    env: BTreeMap<EnvironmentName, Argument>,
    /// The host's files that the program sees, together with the mounts of the group and the defaults. Without any, it
    /// sees none.
    #[serde(default)]
    mounts: Vec<Mount>,
    /// Files and directories in the mounts, as the program sees them. When one changes, a new generation boots.
    watch: Option<SomeOf<MountPath>>,
    /// Hosts and ports that the program may connect to by TCP, together with those of the group. Without any, it may
    /// not connect.
    #[serde(default)]
    outbound: Vec<Destination>,
    /// What the program learns about the client of a request. Keys that it leaves out are the group's, else the
    /// defaults'.
    #[serde(default)]
    client: ClientPatch,
    /// How requests reach the program. Default: "doorbell".
    serve: Option<Serve>,
    /// The port that the program's application listens on, inside its machine. Only with "connections". Required if the
    /// program listens on several ports.
    port: Option<Port>,
    /// What the program's monotonic clock does while the program is frozen. Default: "suspends" with "connections",
    /// else "runs".
    monotonic_clock: Option<Monotonic>,
    /// A request that the program must answer before its warm-up. Mayfly repeats it until then. Only with "connections".
    /// Default: the program is ready when it listens and all its threads wait.
    ready: Option<Ready>,
    /// Requests that the program serves before it is frozen, one after another. Only with "connections".
    warm_up: Option<Vec<WarmUpRequest>>,
    /// How long the program idles after the warm-up before it is frozen, in milliseconds. Its timers run meanwhile. It
    /// is frozen earlier if none is due until then. Only with "connections".
    #[schemars(extend("default" = SETTLE_MS))]
    settle_ms: Option<SettleMs>,
    /// The path, with the query if there is one, that Mayfly requests just before it freezes the program. Only with
    /// "connections".
    before_freeze: Option<RequestTarget>,
    /// The path, with the query if there is one, that Mayfly requests of each worker before the first request after the
    /// freeze, and after each reset. Only with "connections".
    after_restore: Option<RequestTarget>,
    /// The hosts that the tenant answers. Default: every host.
    hosts: Option<SomeOf<HostPattern>>,
    /// The prefix of the paths that the tenant answers. Default with hosts: "/".
    path: Option<RoutePath>,
    /// The prefixes, if there are several.
    paths: Option<SomeOf<RoutePath>>,
    /// Whether the tenant answers requests that match no tenant's host and path. Only one tenant may.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    default: bool,
    /// true: every request starts from the frozen state. false: a worker keeps its state from request to request.
    #[schemars(extend("default" = true))]
    ephemeral: Option<bool>,
    /// A worker keeps its state for this many requests. Cannot be combined with `ephemeral`.
    reset_every: Option<Bounded<1, 4_294_967_295>>,
    /// Number of workers that serve all event loops, for a tenant that keeps state (`"ephemeral": false`,
    /// `reset_every`). Requests wait until one is idle. Default: each event loop has its own worker.
    workers: Option<Bounded<1, 256>>,
    /// What decides which of the `workers` gets a request: the client's "connection", the value of a cookie
    /// ("cookie:NAME"), or that of a header ("header:NAME"). Default: any idle worker. Needs `workers` of at least 2.
    affinity: Option<Affinity>,
    /// When the program boots for the first time. Default: when the server starts, for as many tenants as
    /// `boot_at_start` says.
    boot: Option<Boot>,
    /// The tenant's own limits.
    #[serde(default)]
    limits: LimitsPatch,
    /// Memory that all workers of the tenant see at the same address, and that is never reset.
    shared_memory: Option<SharedMemory>,
    /// A second, long-lived program, whose functions the tenant's workers may call.
    storage: Option<Storage>,
    /// A request that a new generation must answer before it takes over.
    health: Option<Health>,
    /// SHA-256 of the key with which the tenant's program may be uploaded.
    upload_key_sha256: Option<KeyDigest>,
}

/// When a program boots for the first time.
#[derive(Deserialize, Clone, Copy, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Boot {
    /// When the server starts.
    Start,
    /// At the tenant's first request.
    FirstCall,
}

/// Memory that all workers of a tenant see.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SharedMemory {
    /// Its size.
    kib: Bounded<4, 4_194_304, 4>,
    /// The file, relative to the root, that keeps it across restarts. Without it, the memory ends with the server.
    file: Option<FilePath>,
}

/// A storage program: one long-lived program per tenant that keeps its state.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Storage {
    /// The ELF file, relative to the root.
    program: FilePath,
    /// Arguments after the program's name.
    #[serde(default)]
    args: Vec<Argument>,
    /// The whole environment.
    #[serde(default)]
    env: BTreeMap<EnvironmentName, Argument>,
    /// The host's files that it sees, together with the mounts of the group and the defaults.
    #[serde(default)]
    mounts: Vec<Mount>,
    /// Its own limits. Those of the group and the defaults apply to it, too.
    #[serde(default)]
    limits: LimitsPatch,
    /// Longest time that a caller waits for one call.
    #[schemars(extend("default" = CALL_MS))]
    call_ms: Option<Bounded<1, 60_000>>,
}

/// The request that checks whether a generation works: a GET.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Health {
    /// The path, with the query if there is one.
    path: RequestTarget,
    /// The expected status.
    #[schemars(extend("default" = HEALTH_STATUS))]
    status: Option<Bounded<200, 599>>,
}

fn yes() -> bool {
    true
}

/// The settings that a tenant's own ones are merged into.
struct Base {
    engine: Engine,
    limits: LimitsPatch,
    env: BTreeMap<EnvironmentName, Argument>,
    mounts: Vec<MountPoint>,
    outbound: Vec<Outbound>,
    client: ClientPatch,
}

impl File {
    /// Checks what a single value does not show, and fills in defaults.
    pub(super) fn check(self) -> Result<Config, ConfigError> {
        let root = self.root.as_path();
        let in_defaults = |error: ConfigError| error.below(&["defaults".into()]);
        let mounts = run::mounts(self.defaults.mounts, &[], root).map_err(in_defaults)?;
        let defaults = Base {
            engine: self.engine,
            limits: self.defaults.limits,
            env: BTreeMap::new(),
            mounts,
            outbound: vec![],
            client: self.defaults.client,
        };
        let mut groups: HashMap<TenantName, Base> = HashMap::new();
        for (name, group) in self.groups {
            let in_group = |error: ConfigError| error.below(&["groups".into(), name.as_str().into()]);
            let mounts = run::mounts(group.mounts, &defaults.mounts, root).map_err(in_group)?;
            let outbound = run::outbound(group.outbound, &[]);
            let (engine, limits) = (group.engine.unwrap_or(defaults.engine), group.limits.or(defaults.limits));
            let client = group.client.or(&defaults.client);
            groups.insert(name, Base { engine, limits, env: group.env, mounts, outbound, client });
        }
        let admin = self.admin.map(|admin| admin.check(root)).transpose()?;
        let mut used = UsedNames::default();
        let mut tenants = Vec::with_capacity(self.tenants.len());
        for (index, tenant) in self.tenants.into_iter().enumerate() {
            let place = [Key::from("tenants"), Key::from(index)];
            let base = match &tenant.group {
                None => &defaults,
                Some(name) => groups.get(name).ok_or_else(|| unknown_group(name, &groups).below(&place))?,
            };
            let forms = PathForm::of(tenant.path.is_some(), tenant.paths.as_ref().map(|paths| paths.as_slice().len()));
            let tenant = tenant.check(root, base).map_err(|error| error.below(&place))?;
            used.claim(index, &tenant, forms).map_err(|error| error.below(&place))?;
            tenants.push(tenant);
        }
        let max_workers = self.max_workers.map(Bounded::u32);
        check_workers(&tenants, max_workers)?;
        Ok(Config {
            tenants,
            max_workers,
            max_memory_bytes: self.max_memory_mib.map(|mib| u64::from(mib.u32()) << 20),
            overflow_threads: self.overflow_threads.map_or(OVERFLOW_THREADS, Bounded::u32),
            boot_at_start: self.boot_at_start.map_or(BOOT_AT_START, Bounded::u32),
            watch: self.watch,
            admin,
            snapshots: self.snapshots.map(|directory| root.join(directory.as_str())),
            mode_header: self.mode_header,
            pin_loops: self.pin_loops,
            forced_engine: None,
            source: None,
        })
    }
}

/// Workers that keep state are never closed for others, so all of them must fit.
fn check_workers(tenants: &[TenantConfig], most: Option<u32>) -> Result<(), ConfigError> {
    let all: u64 = tenants.iter().filter_map(|tenant| tenant.workers).map(|workers| u64::from(workers.get())).sum();
    match most {
        Some(most) if all > most.into() => {
            Err(refused("max_workers", format!("the tenants' `workers` are {all} together: expected at least as many")))
        }
        _ => Ok(()),
    }
}

fn refused(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::new(&[Key::from(key)], problem)
}

fn unknown_group(name: &TenantName, groups: &HashMap<TenantName, Base>) -> ConfigError {
    let mut names: Vec<&str> = groups.keys().map(TenantName::as_str).collect();
    names.sort_unstable();
    let known = if names.is_empty() {
        "there are no `groups`".to_owned()
    } else {
        format!("expected one of: {}", names.join(", "))
    };
    refused("group", format!("no group is named \"{name}\"; {known}"))
}

impl Admin {
    fn check(self, root: &Path) -> Result<AdminConfig, ConfigError> {
        let listen = self.listen.unwrap_or(ADMIN_ADDRESS);
        if !listen.ip().is_loopback() && self.key_sha256.is_none() {
            let problem =
                format!("{listen} is not a loopback address: expected `key_sha256` as well, or a loopback address");
            return Err(ConfigError::new(&["admin".into(), "listen".into()], problem));
        }
        Ok(AdminConfig {
            listen,
            key: self.key_sha256,
            uploads: self.uploads.map(|directory| root.join(directory.as_str())),
            upload_bytes: self.upload_mib.map_or(UPLOAD_MIB, Bounded::get) << 20,
        })
    }
}

impl Tenant {
    fn check(self, root: &Path, base: &Base) -> Result<TenantConfig, ConfigError> {
        let mode = self.mode()?;
        let workers = self.workers(mode)?;
        let routes = self.routes()?;
        let mut env = base.env.clone();
        env.extend(self.env);
        let service = ServiceKeys {
            port: self.port,
            ready: self.ready,
            warm_up: self.warm_up,
            settle_ms: self.settle_ms,
            before_freeze: self.before_freeze,
            after_restore: self.after_restore,
        };
        let service = service.check(self.serve.unwrap_or_default())?;
        let engine = Choice::from(self.engine.unwrap_or(base.engine));
        let storage = self.storage.map(|storage| storage.check(root, base, engine)).transpose();
        let mounts = run::mounts(self.mounts, &base.mounts, root)?;
        let watch = run::watch(self.watch.as_ref().map_or(&[], SomeOf::as_slice), &mounts)?;
        if self.limits.wants_background() && (mode == Mode::Ephemeral || service.is_none()) {
            let problem = "only for a tenant that keeps its state and serves connections: \
                expected `\"serve\": \"connections\"` and `\"ephemeral\": false` or `reset_every` as well";
            return Err(ConfigError::new(&[Key::from("limits"), Key::from("background_cpu")], problem));
        }
        let program = root.join(self.program.as_str());
        let is_runtime = Runtime::of(&program).is_some();
        let built_in = if service.is_some() || is_runtime { Limits::of_a_server() } else { Limits::default() };
        Ok(TenantConfig {
            name: self.name,
            program,
            engine,
            args: strings(self.args),
            env: variables(env),
            mounts,
            watch,
            outbound: run::outbound(self.outbound, &base.outbound),
            client: self.client.or(&base.client).into(),
            monotonic: run::monotonic(self.monotonic_clock, service.is_some()),
            service,
            routes,
            is_default: self.default,
            mode,
            workers,
            affinity: self.affinity,
            boot: match self.boot {
                None => BootWhen::Auto,
                Some(Boot::Start) => BootWhen::Start,
                Some(Boot::FirstCall) => BootWhen::FirstCall,
            },
            limits: self.limits.or(base.limits).over(&built_in),
            shared: self.shared_memory.map(|shared| SharedConfig {
                bytes: shared.kib.get() << 10,
                file: shared.file.map(|file| root.join(file.as_str())),
            }),
            storage: storage.map_err(|error| error.below(&["storage".into()]))?,
            health: self.health.map(|health| HealthConfig {
                path: health.path.into(),
                status: health.status.map_or(HEALTH_STATUS, Bounded::u16),
            }),
            upload_key: self.upload_key_sha256,
        })
    }

    fn mode(&self) -> Result<Mode, ConfigError> {
        match (self.ephemeral, self.reset_every) {
            (Some(_), Some(_)) => Err(refused("reset_every", "cannot be combined with `ephemeral`")),
            (None | Some(true), None) => Ok(Mode::Ephemeral),
            (Some(false), None) => Ok(Mode::Stateful),
            (None, Some(requests)) => Ok(NonZeroU32::new(requests.u32()).map_or(Mode::Ephemeral, Mode::ResetEvery)),
        }
    }

    /// The number of workers for all loops.
    fn workers(&self, mode: Mode) -> Result<Option<NonZeroU32>, ConfigError> {
        let workers = self.workers.and_then(|workers| NonZeroU32::new(workers.u32()));
        if workers.is_some() && mode == Mode::Ephemeral {
            let problem =
                "only for a tenant that keeps state: expected `\"ephemeral\": false` or `reset_every` as well";
            return Err(refused("workers", problem));
        }
        if self.affinity.is_some() && workers.is_none_or(|workers| workers.get() < 2) {
            let problem = "there is no choice of workers: expected `workers` of at least 2 as well";
            return Err(refused("affinity", problem));
        }
        Ok(workers)
    }

    /// The routes: every host combined with every path.
    fn routes(&self) -> Result<Vec<Route>, ConfigError> {
        let whole = RoutePath::root();
        let (hosts, paths): (&[HostPattern], &[RoutePath]) = match (&self.hosts, &self.path, &self.paths) {
            (_, Some(_), Some(_)) => return Err(refused("paths", "cannot be combined with `path`")),
            (None, None, None) if self.default => return Ok(Vec::new()),
            (None, None, None) => {
                let problem = "nothing is routed to it: expected `path`, `paths`, `hosts`, or `\"default\": true`";
                return Err(ConfigError::new(&[], problem));
            }
            (hosts, path, paths) => (
                hosts.as_ref().map_or(&[HostPattern::Any], SomeOf::as_slice),
                match (path, paths) {
                    (Some(path), _) => std::slice::from_ref(path),
                    (None, Some(paths)) => paths.as_slice(),
                    (None, None) => std::slice::from_ref(&whole),
                },
            ),
        };
        let route = |host: &HostPattern, path: &RoutePath| Route { host: host.clone(), path: path.clone() };
        Ok(hosts.iter().flat_map(|host| paths.iter().map(move |path| route(host, path))).collect())
    }
}

impl Storage {
    fn check(self, root: &Path, base: &Base, engine: Choice) -> Result<StorageConfig, ConfigError> {
        if self.limits.wants_background() {
            let problem = "a storage program stands still between calls";
            return Err(ConfigError::new(&[Key::from("limits"), Key::from("background_cpu")], problem));
        }
        Ok(StorageConfig {
            program: root.join(self.program.as_str()),
            engine,
            args: strings(self.args),
            env: variables(self.env),
            mounts: run::mounts(self.mounts, &base.mounts, root)?,
            limits: self.limits.or(base.limits).over(&Limits::default()),
            call_time: Duration::from_millis(self.call_ms.map_or(CALL_MS, Bounded::get)),
        })
    }
}

fn strings(args: Vec<Argument>) -> Vec<String> {
    args.into_iter().map(String::from).collect()
}

fn variables(env: BTreeMap<EnvironmentName, Argument>) -> Vec<(String, String)> {
    env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}
