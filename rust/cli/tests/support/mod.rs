// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared by the tests of the command.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn mayfly() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mayfly"))
}

pub fn tenant(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants").join(name).join(name);
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    program
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs a command that is expected to fail; returns its standard error.
pub fn fails(command: &mut Command, status: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{}{}", stdout(&output), stderr(&output));
    stderr(&output).to_owned()
}
