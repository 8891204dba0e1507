// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use mayfly_sandbox::Choice;
use mayfly_tenancy::Config;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// How often `--warm-up` requests a path.
const WARM_UP_TIMES: u32 = 100;

/// Runs every HTTP request in a fresh copy of a sandboxed program.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, propagate_version = true, max_term_width = 100)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one program, or all tenants of a configuration, over HTTP.
    Run(RunOptions),
    /// Call one program, or one tenant of a configuration, many times, without HTTP, and print what a request costs.
    Bench(BenchOptions),
    /// Look up tenants among one and among many, and print what that costs.
    BenchRoutes(BenchRoutesOptions),
    /// Make a project of one program, with all that it needs to run.
    New(NewOptions),
    /// Check a configuration file: Mayfly's own, or Drogon's with the plugin in it.
    Check(CheckOptions),
    /// Boot a tenant's program and save its snapshot, for the next start of a server.
    Snapshot(SnapshotOptions),
    /// Write this command's shell completions and manual pages into a directory, for packages.
    #[command(hide = true)]
    Generate(GenerateOptions),
    /// Print which engines can run programs on this host, which of them `auto` means, and what is missing.
    Info(InfoOptions),
}

#[derive(Debug, Args)]
pub struct RunOptions {
    /// The program: an ELF file for x86-64 that uses the Mayfly SDK, or serves HTTP [default: the tenants of
    /// mayfly.json in this directory]
    pub program: Option<PathBuf>,
    /// Serve the tenants of this file instead, by host and path
    #[arg(long, value_name = "FILE", conflicts_with_all = ["program", "args", "env", "mounts", "serve", "program_port", "ready", "warm_up", "settle_ms", "before_freeze", "after_restore", "limits"])]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: ProgramSettings,
    /// The engine that programs run on, whatever a file says: `auto` is KVM of hardware virtualisation if this host has
    /// it, else processes, else KVM of the paging kind [default: the file's, or auto]
    #[arg(long, value_name = "ENGINE", value_parser = engine())]
    pub engine: Option<Choice>,
    /// Address and port to listen on; with port 0, the system chooses one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Threads that serve requests, each with a worker of its own [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Memory limit of the process, in MiB, besides those of its cgroup and the machine; overrides the file's
    /// `max_memory_mib`
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(32..=16_777_216))]
    pub max_memory_mib: Option<u64>,
}

#[derive(Debug, Args)]
pub struct BenchOptions {
    /// The program: an ELF file for x86-64 that uses the Mayfly SDK, or serves HTTP
    #[arg(required_unless_present = "config")]
    pub program: Option<PathBuf>,
    /// Measure a tenant of this file instead, as a server runs it, but with a reset after every request whatever its
    /// mode
    #[arg(long, value_name = "FILE", requires = "tenant")]
    #[arg(conflicts_with_all = ["program", "args", "env", "mounts", "serve", "program_port", "ready", "warm_up", "settle_ms", "before_freeze", "after_restore", "limits"])]
    pub config: Option<PathBuf>,
    /// Which tenant of the file
    #[arg(long, value_name = "NAME", requires = "config", conflicts_with = "program")]
    pub tenant: Option<String>,
    #[command(flatten)]
    pub settings: ProgramSettings,
    /// The engine that programs run on, whatever a file says: `auto` is KVM of hardware virtualisation if this host has
    /// it, else processes, else KVM of the paging kind [default: the file's, or auto]
    #[arg(long, value_name = "ENGINE", value_parser = engine())]
    pub engine: Option<Choice>,
    /// Requests to measure, exactly, unless `--seconds` is given, too [default: 20000, or fewer if the measurement would
    /// take longer than about 20 seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub requests: Option<u32>,
    /// Measure fewer requests, forks and loads if the measurement would take longer than about this many seconds after
    /// the boot
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Write lines about a long measurement to standard error, even if that is no terminal
    #[arg(long)]
    pub progress: bool,
    /// The path to request, with its query if it has one
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub path: String,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NewOptions {
    /// The project's directory, which is made. Its last component is the name of the tenant
    pub name: PathBuf,
    /// The program's language
    #[arg(long, value_name = "LANGUAGE", value_enum)]
    pub lang: Language,
}

/// The language of a new project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// A program at the doorbell, by the SDK's header.
    C,
    /// The same in C++.
    Cpp,
    /// The same by the SDK's crate.
    Rust,
    /// An HTTP server for Node.js.
    Js,
    /// A program at the doorbell, by the SDK's module.
    Python,
    /// Python that Pythran translates to C++.
    Pythran,
}

#[derive(Debug, Args)]
pub struct CheckOptions {
    /// The configuration file
    #[arg(required_unless_present = "schema")]
    pub config: Option<PathBuf>,
    /// Print the JSON Schema of a tenants file instead
    #[arg(long, conflicts_with = "config")]
    pub schema: bool,
}

#[derive(Debug, Args)]
pub struct SnapshotOptions {
    /// The configuration file with the tenant
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The tenant's name
    #[arg(long, value_name = "NAME")]
    pub tenant: String,
    /// The engine that programs run on, whatever a file says: `auto` is KVM of hardware virtualisation if this host has
    /// it, else processes, else KVM of the paging kind [default: the file's, or auto]
    #[arg(long, value_name = "ENGINE", value_parser = engine())]
    pub engine: Option<Choice>,
    /// The snapshot file [default: in the directory that `snapshots` in the file names, where the next start finds it]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BenchRoutesOptions {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct GenerateOptions {
    /// The directory
    pub directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct InfoOptions {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// How to run a program.
#[derive(Debug, Args)]
pub struct ProgramSettings {
    /// Arguments for the program, after `--`
    #[arg(last = true)]
    pub args: Vec<String>,
    /// Set a variable in the program's environment, which is otherwise empty
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Show the program a directory of the host: read-only unless the value ends in `:rw` (private
    /// to a request) or `:durable`, and at the same path unless
    /// PLACE names another. Dynamic programs need /lib, /lib64 and /usr
    #[arg(long = "mount", value_name = "HOST[:PLACE[:rw|:durable]]", value_parser = mount)]
    pub mounts: Vec<Value>,
    /// How requests reach the program: `doorbell`, by the SDK, or `connections`, for an HTTP server
    #[arg(long, value_name = "HOW")]
    pub serve: Option<String>,
    /// With `--serve connections`: the port that the program listens on inside its machine, needed if it listens on
    /// several
    #[arg(long, value_name = "PORT")]
    pub program_port: Option<u64>,
    /// With `--serve connections`: the program is ready once it answers a request for this path with status 200
    /// [default: once it listens and has nothing to do]
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// With `--serve connections`: request this path before the program is frozen, so that its code is compiled and its
    /// first-use initialisation is done. The path is requested TIMES times (100 by default), and then until the cost
    /// stops falling
    #[arg(long = "warm-up", value_name = "[TIMES:]PATH", value_parser = warm_up)]
    pub warm_up: Vec<Value>,
    /// With `--serve connections`: let the program idle for this time before it is frozen, so that its timers and
    /// threads come to rest [default: 2000]
    #[arg(long, value_name = "MS")]
    pub settle_ms: Option<u64>,
    /// With `--serve connections`: request this path just before the program is frozen
    #[arg(long, value_name = "PATH")]
    pub before_freeze: Option<String>,
    /// With `--serve connections`: request this path of each fork, and after each reset, before its first request
    #[arg(long, value_name = "PATH")]
    pub after_restore: Option<String>,
    /// Set a limit by its name in a configuration: boot_ms, boot_memory_mib, cpu_ms, wall_ms, memory_mib, request_kib,
    /// response_kib, work_set_kib, descriptors, threads, mappings, files_mib, log_bytes_per_second,
    /// inline_budget_us, concurrent_requests
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = limit)]
    pub limits: Vec<(String, u64)>,
}

impl ProgramSettings {
    /// The options that are set, as they are written on the command line.
    pub fn set(&self) -> Vec<&'static str> {
        let Self {
            args,
            env,
            mounts,
            serve,
            program_port,
            ready,
            warm_up,
            settle_ms,
            before_freeze,
            after_restore,
            limits,
        } = self;
        [
            ("--env", !env.is_empty()),
            ("--mount", !mounts.is_empty()),
            ("--serve", serve.is_some()),
            ("--program-port", program_port.is_some()),
            ("--ready", ready.is_some()),
            ("--warm-up", !warm_up.is_empty()),
            ("--settle-ms", settle_ms.is_some()),
            ("--before-freeze", before_freeze.is_some()),
            ("--after-restore", after_restore.is_some()),
            ("--limit", !limits.is_empty()),
            ("arguments after --", !args.is_empty()),
        ]
        .into_iter()
        .filter_map(|(option, is_set)| is_set.then_some(option))
        .collect()
    }

    /// The configuration of a server with this program as its only tenant, for all paths.
    ///
    /// The values go through the same checks as those of a file, so the rules and messages are the same.
    pub fn config(&self, program: &Path) -> Result<Config, Failure> {
        let name = name(program);
        let program = program.to_str().ok_or_else(|| Failure::Usage("PROGRAM: not valid UTF-8".to_owned()))?;
        let env: Map<String, Value> = self.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let limits: Map<String, Value> =
            self.limits.iter().map(|(name, number)| (name.clone(), json!(number))).collect();
        let mut tenant = json!({
            "name": name, "program": program, "path": "/", "args": self.args, "env": env, "mounts": self.mounts, "limits": limits,
        });
        if let Some(serve) = &self.serve {
            tenant["serve"] = json!(serve);
        }
        if let Some(port) = self.program_port {
            tenant["port"] = json!(port);
        }
        if let Some(path) = &self.ready {
            tenant["ready"] = json!({ "path": path });
        }
        if !self.warm_up.is_empty() {
            tenant["warm_up"] = json!(self.warm_up);
        }
        if let Some(settle_ms) = self.settle_ms {
            tenant["settle_ms"] = json!(settle_ms);
        }
        for (key, path) in [("before_freeze", &self.before_freeze), ("after_restore", &self.after_restore)] {
            if let Some(path) = path {
                tenant[key] = json!(path);
            }
        }
        let config = json!({ "tenants": [tenant] });
        Config::from_value(&config).map_err(|error| {
            let message = error.to_string();
            Failure::Usage(message.strip_prefix("tenants[0].").map(str::to_owned).unwrap_or(message))
        })
    }
}

/// The program's name in logs and reports: its file name, without characters that a tenant's name cannot have.
fn name(program: &Path) -> String {
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    let allowed = |char: &char| char.is_ascii_alphanumeric() || "._-".contains(*char);
    let name: String = file.chars().filter(allowed).take(64).collect();
    if name.starts_with(|first: char| first.is_ascii_alphanumeric()) { name } else { "program".to_owned() }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn mount(text: &str) -> Result<Value, String> {
    let (rest, writable) = if let Some(rest) = text.strip_suffix(":durable") {
        (rest, json!("durable"))
    } else {
        text.strip_suffix(":rw").map_or((text, json!(false)), |rest| (rest, json!(true)))
    };
    Ok(match rest.split_once(':') {
        Some((host, at)) => json!({ "host": host, "at": at, "writable": writable }),
        None => json!({ "host": rest, "writable": writable }),
    })
}

/// A path starts with a slash, so a colon after digits cannot be part of it.
fn warm_up(text: &str) -> Result<Value, String> {
    let (times, path) = match text.split_once(':') {
        Some((times, path)) if !text.starts_with('/') => {
            (times.parse().map_err(|_| format!("\"{times}\" is not a whole number"))?, path)
        }
        _ => (WARM_UP_TIMES, text),
    };
    Ok(json!({ "path": path, "times": times, "steady": true }))
}

fn engine() -> impl TypedValueParser<Value = Choice> {
    PossibleValuesParser::new(["auto", "kvm", "process"]).map(|name| Choice::from_name(&name).unwrap_or_default())
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    let number = number.parse().map_err(|_| format!("\"{number}\" is not a whole number"))?;
    Ok((name.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use mayfly_sandbox::{DurableLimits, MountAccess};

    use super::*;
    use clap::CommandFactory;
    use mayfly_sandbox::Engine;
    use mayfly_tenancy::Limits;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    fn config(arguments: &[&str]) -> Result<Config, Failure> {
        let arguments = ["mayfly", "run"].iter().chain(arguments);
        match Options::try_parse_from(arguments).unwrap().command {
            Command::Run(options) => options.settings.config(&options.program.unwrap()),
            _ => panic!(),
        }
    }

    #[test]
    fn an_engine_is_one_of_three() {
        let engine = |arguments: &[&str]| {
            let options =
                Options::try_parse_from(["mayfly"].iter().chain(arguments)).map_err(|error| error.to_string())?;
            Ok(match options.command {
                Command::Run(options) => options.engine,
                Command::Bench(options) => options.engine,
                Command::Snapshot(options) => options.engine,
                _ => panic!(),
            })
        };
        let only = |engine| Ok::<_, String>(Some(Choice::Only(engine)));
        assert_eq!(engine(&["run", "p"]), Ok(None));
        assert_eq!(engine(&["run", "--config", "f", "--engine", "kvm"]), only(Engine::Kvm));
        assert_eq!(engine(&["bench", "p", "--engine", "process"]), only(Engine::Process));
        assert_eq!(engine(&["snapshot", "--config", "f", "--tenant", "t", "--engine", "auto"]), Ok(Some(Choice::Auto)));
        let message = engine(&["run", "p", "--engine", "xen"]).unwrap_err();
        assert!(message.contains("'xen'") && message.contains("auto, kvm, process"), "{message}");
    }

    #[test]
    fn options_become_a_configuration() {
        let config = config(&["dir/he llo!", "--env", "A=b=c", "--limit", "cpu_ms=5", "--", "-x", "--limit"]);
        let tenant = &config.unwrap().tenants[0];
        assert_eq!(tenant.name.as_str(), "hello");
        assert_eq!(tenant.env, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(tenant.args, ["-x", "--limit"]);
        assert_eq!(tenant.limits.machine.cpu_time.as_millis(), 5);
        assert_eq!(tenant.limits.log_bytes_per_second, Limits::default().log_bytes_per_second);
    }

    #[test]
    fn mounts_and_serve_become_a_configuration() {
        let config = config(&[
            "p",
            "--serve",
            "connections",
            "--mount",
            "/usr",
            "--mount",
            "d:/data:rw",
            "--mount=/a:/b",
            "--mount=e:/e:durable",
        ]);
        let tenant = &config.unwrap().tenants[0];
        assert!(tenant.service.is_some());
        let mounts: Vec<_> = tenant
            .mounts
            .iter()
            .map(|mount| (mount.host.to_str().unwrap(), mount.guest.as_str(), mount.access))
            .collect();
        let durable = MountAccess::Durable(DurableLimits { bytes: 1 << 30, files: 10_000 });
        let expected = [
            ("/usr", "/usr", MountAccess::ReadOnly),
            ("d", "/data", MountAccess::Private),
            ("/a", "/b", MountAccess::ReadOnly),
            ("e", "/e", durable),
        ];
        assert_eq!(mounts, expected);
        for (option, value, problem) in [
            ("--mount", "/proc", "mounts[0].host: "),
            ("--mount", "/usr:usr", "mounts[0].at: "),
            ("--serve", "http", "serve: unknown variant"),
        ] {
            let message = self::config(&["p", option, value]).unwrap_err().to_string();
            assert!(message.starts_with(problem), "{message}");
        }
    }

    #[test]
    fn the_programs_port_is_not_the_listening_port() {
        let port = |arguments: &[&str]| {
            config(arguments).map(|config| config.tenants[0].service.as_ref().and_then(|service| service.port))
        };
        assert_eq!(port(&["p", "--serve", "connections", "--program-port", "8000"]).unwrap(), Some(8000));
        assert_eq!(port(&["p", "--serve", "connections", "--listen", "127.0.0.1:9000"]).unwrap(), None);
        for (arguments, problem) in [
            (&["p", "--serve", "connections", "--program-port", "65536"][..], "port: invalid value: integer `65536`"),
            (&["p", "--serve", "connections", "--program-port", "0"], "port: invalid value: integer `0`"),
            (&["p", "--program-port", "80"], "port: only for programs with"),
        ] {
            let message = port(arguments).unwrap_err().to_string();
            assert!(message.starts_with(problem), "{message}");
        }
    }

    #[test]
    fn warm_up_requests_become_a_configuration() {
        let server = |value: &str| config(&["p", "--serve", "connections", "--warm-up", value, "--warm-up", "/b"]);
        let warmed = |value: &str| server(value).unwrap().tenants[0].service.clone().unwrap().warm_up;
        let requests: Vec<_> = ["/a:b?c=1", "7:/a"].map(warmed).into_iter().flatten().collect();
        let requests: Vec<_> = requests
            .iter()
            .map(|request| (&request.path[..], &request.query[..], request.times, request.steady))
            .collect();
        let b = (&b"/b"[..], &b""[..], 100, true);
        assert_eq!(requests, [(&b"/a:b"[..], &b"c=1"[..], 100, true), b, (b"/a", b"", 7, true), b]);
        for (value, problem) in [("a", "warm_up[0].path: "), ("0:/", "warm_up[0].times: ")] {
            let message = server(value).unwrap_err().to_string();
            assert!(message.starts_with(problem), "{message}");
        }
        assert!(config(&["p", "--warm-up", "/"]).is_err(), "a program at the doorbell");
        assert!(Options::try_parse_from(["mayfly", "run", "p", "--warm-up", "x:/"]).is_err());
    }

    #[test]
    fn the_moment_of_the_freeze_becomes_a_configuration() {
        let moment = ["--ready", "/ready?deep", "--settle-ms", "7", "--before-freeze", "/b", "--after-restore", "/a"];
        let service =
            config(&[&["p", "--serve", "connections"][..], &moment].concat()).unwrap().tenants[0].service.clone();
        let service = service.unwrap();
        assert_eq!(service.ready.unwrap().target.to_string(), "GET /ready?deep");
        assert_eq!(service.settle.as_millis(), 7);
        let hooks = [service.before_freeze, service.after_restore].map(|hook| hook.unwrap().to_string());
        assert_eq!(hooks, ["GET /b", "GET /a"]);
        for (option, value, problem) in [
            ("--ready", "ready", "ready.path: "),
            ("--settle-ms", "600001", "settle_ms: invalid value"),
            ("--before-freeze", "x", "before_freeze: "),
            ("--after-restore", "", "after_restore: "),
        ] {
            let message = config(&["p", "--serve", "connections", option, value]).unwrap_err().to_string();
            assert!(message.starts_with(problem), "{message}");
            let message = config(&["p", option, value]).unwrap_err().to_string();
            assert!(message.contains(problem.trim_end_matches(": ")), "{message}");
        }
    }

    #[test]
    fn a_configuration_file_excludes_options_of_a_program() {
        assert!(Options::try_parse_from(["mayfly", "run", "--config", "f", "--threads", "2"]).is_ok());
        for more in [
            &["p"][..],
            &["--limit", "cpu_ms=5"],
            &["--env", "A=b"],
            &["--mount", "/a"],
            &["--serve", "doorbell"],
            &["--program-port", "80"],
            &["--warm-up", "/"],
            &["--", "-x"],
        ] {
            assert!(
                Options::try_parse_from(["mayfly", "run", "--config", "f"].iter().chain(more)).is_err(),
                "{more:?}"
            );
        }
    }

    #[test]
    fn bench_takes_a_program_or_a_tenant_of_a_file() {
        assert!(
            Options::try_parse_from(["mayfly", "bench", "--config", "f", "--tenant", "t", "--seconds", "5"]).is_ok()
        );
        for wrong in [
            &[][..],
            &["--config", "f"],
            &["p", "--tenant", "t"],
            &["p", "--config", "f", "--tenant", "t"],
            &["--config", "f", "--tenant", "t", "--limit", "cpu_ms=5"],
            &["--config", "f", "--tenant", "t", "--", "-x"],
            &["p", "--seconds", "0"],
        ] {
            assert!(Options::try_parse_from(["mayfly", "bench"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_wrong_limit_is_named() {
        let message = config(&["p", "--limit", "cpu=5"]).unwrap_err().to_string();
        assert!(message.starts_with("limits.cpu: unknown field"), "{message}");
        let message = config(&["p", "--limit", "cpu_ms=0"]).unwrap_err().to_string();
        assert!(message.starts_with("limits.cpu_ms: ") && message.contains("from 1 to 60000"), "{message}");
        for text in ["cpu_ms", "cpu_ms=", "cpu_ms=x", "cpu_ms=-1"] {
            assert!(Options::try_parse_from(["mayfly", "run", "p", "--limit", text]).is_err());
        }
    }
}
