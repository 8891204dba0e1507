// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly run`: one program, or all tenants of a configuration, over HTTP/1.1.
//!
//! Every thread has its own event loop and its own workers, and all accept from one listening socket. Drogon's loops
//! work the same way, so a program behaves the same there.

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use mayfly_admin::Admin;
use mayfly_tenancy::{Config, HostState, Server, TenantState, logging};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::options::RunOptions;
use crate::run::end::{self, End};
use crate::run::serve::serve;
use crate::run::tenants::Tenants;

/// What is served if the command line names neither a program nor a file.
const TENANTS_FILE: &str = "mayfly.json";
/// Descriptors of the command itself: the listener, and the event loop that waits for signals.
const DESCRIPTORS: u64 = 8;
/// Descriptors of a loop: its event queue, twice, what wakes it, signals, and its copy of the listener.
const DESCRIPTORS_PER_LOOP: u64 = 6;

pub fn run(options: &RunOptions) -> Result<(), Failure> {
    let (mut config, name) = match (&options.config, &options.program) {
        (Some(file), _) => (Config::from_file(file).map_err(Failure::usage)?, file.as_path()),
        (None, Some(program)) => (options.settings.config(program)?, program.as_path()),
        (None, None) => (of_this_directory(options)?, Path::new(TENANTS_FILE)),
    };
    if let Some(engine) = options.engine {
        config.force_engine(engine);
    }
    if let Some(mib) = options.max_memory_mib {
        config.max_memory_bytes = Some(mib << 20);
    }
    let _log = logging::init("info");
    let threads = options.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, Into::into);
    mayfly_tenancy::require_descriptors(DESCRIPTORS + threads as u64 * DESCRIPTORS_PER_LOOP).map_err(Failure::host)?;
    let listener = TcpListener::bind(options.listen)
        .map_err(|error| Failure::Usage(format!("cannot listen on {}: {error}", options.listen)))?;
    let address = listener.local_addr().map_err(Failure::host)?;
    listener.set_nonblocking(true).map_err(Failure::host)?;
    let server = Server::start(config).map_err(Failure::host)?;
    if let HostState::Unusable { reason } = server.report().host.state {
        return Err(Failure::Host(reason));
    }
    if options.program.is_some() {
        wait_until_ready(&server)?;
    }
    let admin = Admin::start(&server).map_err(Failure::usage)?;

    let (stop, stopped) = watch::channel(false);
    let listener_for = |_| listener.try_clone().map_err(Failure::host);
    let listeners: Vec<_> = (0..threads).map(listener_for).collect::<Result<_, _>>()?;
    let mut loops = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let (tenants, stopped) = (Tenants::new(&server), stopped.clone());
        let work = move || block_on(serve(listener, tenants, stopped));
        loops.push(thread::Builder::new().name(format!("loop-{number}")).spawn(work).map_err(Failure::host)?);
    }
    drop(stopped);
    let say = || println!("mayfly: {} answers on http://{address}/ (Ctrl-C ends it)", name.display());
    let waited = block_on(end::on_signals(listener, stop, &server, say));
    drop(admin);
    if matches!(waited, Ok(Ok(End::InOrder))) {
        for thread in loops {
            // The panic hook has logged a panic; the other loops still end in order.
            let _ = thread.join();
        }
    }
    server.shutdown();
    waited.and_then(|outcome| outcome).map(|_| ()).map_err(Failure::host)
}

/// The tenants of the directory in which the command was started. Their file has all settings of programs.
fn of_this_directory(options: &RunOptions) -> Result<Config, Failure> {
    let file = Path::new(TENANTS_FILE);
    if !file.exists() {
        let why = "name a program, or --config and a file";
        return Err(Failure::Usage(format!("there is nothing to run: {why}; there is no {TENANTS_FILE} here either")));
    }
    let set = options.settings.set();
    if !set.is_empty() {
        return Err(Failure::Usage(format!(
            "no program is named, so {TENANTS_FILE} would be served, whose tenants have settings of their own: put {} \
             there, or name the program",
            set.join(", ")
        )));
    }
    Config::from_file(file).map_err(Failure::usage)
}

/// Waits for the only program. If it cannot run, the command ends, since serving nothing but 503 has no use.
fn wait_until_ready(server: &Server) -> Result<(), Failure> {
    loop {
        match server.report().tenants.into_iter().next().map(|tenant| tenant.state) {
            Some(TenantState::Ready { .. }) => return Ok(()),
            Some(TenantState::Failed { reason }) => return Err(Failure::Program(reason)),
            // The boot limit ends this wait.
            Some(TenantState::Unbooted | TenantState::Booting) => thread::sleep(Duration::from_millis(20)),
            None => return Err(Failure::Program("the program is not served".to_owned())),
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}
