// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly generate`: shell completions and manual pages, from the definition of the command line.

use std::fs;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::options::{GenerateOptions, Options};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

pub fn generate(options: &GenerateOptions) -> Result<(), Failure> {
    let directory = &options.directory;
    let failed = |error| Failure::Usage(format!("cannot write to {}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut Options::command(), "mayfly", directory).map_err(failed)?;
    }
    clap_mangen::generate_to(Options::command(), directory).map_err(failed)
}
