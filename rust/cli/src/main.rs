// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly`: runs sandboxed programs without Drogon. See `docs/cli.md`.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod bench;
mod check;
mod failure;
mod generate;
mod host;
mod info;
mod new;
mod options;
mod run;
mod snapshot;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::BenchRoutes(options) => bench::bench_routes(&options),
        Command::New(options) => new::new(&options),
        Command::Check(options) => check::check(&options),
        Command::Snapshot(options) => snapshot::snapshot(&options),
        Command::Generate(options) => generate::generate(&options),
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
