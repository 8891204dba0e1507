// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines on standard error about a measurement that takes long.
//!
//! They appear on a terminal, or with `--progress`. None appears in the first second, and at most one in each second
//! after it, so a fast program's run has none. None is written while the steady state is served, where a tracer counts
//! system calls.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::options::BenchOptions;

/// Time without a line.
const QUIET: Duration = Duration::from_secs(1);

/// Writes the lines.
#[derive(Debug)]
pub struct Progress {
    is_shown: bool,
    began: Instant,
    said: Instant,
}

impl Progress {
    pub fn new(options: &BenchOptions) -> Self {
        let now = Instant::now();
        Self { is_shown: is_shown(options), began: now, said: now }
    }

    /// Says what goes on, unless it has said something within the last second.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if self.is_shown && self.said.elapsed() >= QUIET {
            self.said = Instant::now();
            let line = format!("mayfly: {}, after {} s\n", what(), self.began.elapsed().as_secs());
            // It fails if standard error is closed.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Whether progress is shown.
pub fn is_shown(options: &BenchOptions) -> bool {
    options.progress || io::stderr().is_terminal()
}
