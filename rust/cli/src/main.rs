// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly`: sandboxed programs without Drogon. See `docs/cli.md`.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod bench;
mod check;
mod host;
mod info;
mod options;
mod run;
mod snapshot;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

/// Why a command ended without success.
///
/// The exit status is 1 for a program that cannot be run, 2 for a wrong command line or configuration (as clap has it), and 3 for a
/// host that cannot run programs at all.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Program(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Host(String),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Program(_) => 1,
            Self::Usage(_) => 2,
            Self::Host(_) => 3,
        })
    }
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::BenchRoutes(options) => bench::bench_routes(&options),
        Command::Check(options) => check::check(&options),
        Command::Snapshot(options) => snapshot::snapshot(&options),
        Command::Info(options) => info::info(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mayfly: {failure}");
            failure.exit_code()
        }
    }
}
