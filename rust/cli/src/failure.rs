// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a command fails, and its exit status.

use std::error::Error;
use std::process::ExitCode;

/// Why a command failed.
///
/// The exit status is 1 for a program that cannot be run, 2 for a wrong command line or configuration (as clap uses
/// it), and 3 for a host that cannot run any program.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Program(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Host(String),
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Program(_) => 1,
            Self::Usage(_) => 2,
            Self::Host(_) => 3,
        })
    }

    /// The host cannot run programs, for this reason.
    pub fn host(error: impl Error) -> Self {
        Self::Host(error.to_string())
    }

    /// The program cannot be run, for this reason.
    pub fn program(error: impl Error) -> Self {
        Self::Program(error.to_string())
    }

    /// The command line or the configuration is wrong, for this reason.
    pub fn usage(error: impl Error) -> Self {
        Self::Usage(error.to_string())
    }
}
