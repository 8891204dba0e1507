// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a program to its end inside a sandbox, for suites of tests that were not written for Mayfly.
//!
//! usage: `run_to_end [--mount GUEST=HOST[:w]]... [--env NAME=VALUE]... [--seconds N] PROGRAM [ARGUMENT]...`
//!
//! What the program writes goes to this process's stdout and stderr. The status is the program's; 125 if it did not run
//! to its end, whose reason is on stderr after `run_to_end:`. `MAYFLY_ENGINE` chooses the engine.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mayfly_sandbox::{BootError, Host, Limits, LogSink, MountAccess, MountPoint, Mounts, Program, Snapshot, Stream};

/// The status if the program did not run to its end.
const NOT_ENDED: u8 = 125;

/// Passes the output on; only this process runs here, so the sink may block.
struct PassOn;

impl LogSink for PassOn {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        // A reader that has gone is no reason to end the program otherwise than by its limit.
        let _ = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
    }
}

/// Limits that only a program without an end reaches. `seconds` of CPU time are four times as many by the wall clock.
fn limits(seconds: u64) -> Limits {
    Limits {
        boot_time: Duration::from_secs(seconds),
        boot_memory_bytes: 4 << 30,
        descriptors: 1024,
        threads: 512,
        mappings: 65_536,
        files_bytes: 1 << 30,
        ..Limits::default()
    }
}

fn mount_point(argument: &str) -> Result<MountPoint, Box<dyn Error>> {
    let (guest, host) = argument.split_once('=').ok_or("--mount: GUEST=HOST[:w]")?;
    let (host, access) =
        host.strip_suffix(":w").map_or((host, MountAccess::ReadOnly), |host| (host, MountAccess::Private));
    Ok(MountPoint { guest: guest.into(), host: host.into(), access })
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut mounts, mut env, mut seconds) = (Vec::new(), Vec::new(), 60);
    let path = loop {
        let argument = arguments.next().ok_or("no program")?;
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: no value"));
        match argument.as_str() {
            "--mount" => mounts.push(mount_point(&value()?)?),
            "--env" => {
                let variable = value()?;
                let (name, content) = variable.split_once('=').ok_or("--env: NAME=VALUE")?;
                env.push((name.to_owned(), content.to_owned()));
            }
            "--seconds" => seconds = value()?.parse()?,
            _ => break argument,
        }
    };
    let mut program = Program::load(Path::new(&path))?;
    program.name = path;
    program.args = arguments.collect();
    program.env = env;
    program.mounts = Mounts::open(&mounts)?;
    match Snapshot::boot(&Host::open()?, &program, &limits(seconds), Arc::new(PassOn)) {
        Err(BootError::Exited { status }) => Ok(ExitCode::from(u8::try_from(status & 0xff)?)),
        Err(error) => Err(error.into()),
        Ok(_) => Err("the program waits for a request".into()),
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("\nrun_to_end: {error}");
        ExitCode::from(NOT_ENDED)
    })
}
