// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `mayfly bench` measures: a program from the command line, or a tenant of a file, as a server would boot it.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use mayfly_sandbox::{Host, LogSink, Program, SharedMemory, Snapshot, Stream, Worker};
use mayfly_tenancy::{Config, TenantConfig};

use crate::failure::Failure;
use crate::options::BenchOptions;

/// How much of a program's output is kept, to show why it did not boot.
const OUTPUT_BYTES: usize = 4 << 10;

/// A program and how to run it.
pub struct Subject {
    pub config: Config,
    /// The tenant's index in the configuration.
    index: usize,
    /// Whether it comes from a configuration file.
    pub is_of_file: bool,
}

impl Subject {
    pub fn new(options: &BenchOptions) -> Result<Self, Failure> {
        let mut subject = Self::of(options)?;
        if let Some(engine) = options.engine {
            subject.config.force_engine(engine);
        }
        Ok(subject)
    }

    fn of(options: &BenchOptions) -> Result<Self, Failure> {
        if let Some(program) = &options.program {
            return Ok(Self { config: options.settings.config(program)?, index: 0, is_of_file: false });
        }
        let (Some(file), Some(name)) = (&options.config, &options.tenant) else {
            return Err(Failure::Usage("there is nothing to measure".to_owned()));
        };
        let config = Config::from_file(file).map_err(Failure::usage)?;
        let index = config.tenants.iter().position(|tenant| tenant.name.as_str() == name);
        let index = index.ok_or_else(|| Failure::Usage(format!("{}: no tenant is called {name}", file.display())))?;
        if config.tenants[index].storage.is_some() {
            return Err(Failure::Usage(format!("{name} has a storage program, whose part would not be measured")));
        }
        Ok(Self { config, index, is_of_file: true })
    }

    pub fn tenant(&self) -> &TenantConfig {
        &self.config.tenants[self.index]
    }

    /// Boots the program. If that fails, the reason includes the program's output. Lines of Mayfly's own about a long
    /// boot go to standard error at once if `shows_progress`.
    pub fn boot(&self, host: &Host, shows_progress: bool) -> Result<Snapshot, Failure> {
        let tenant = self.tenant();
        let program = tenant.launch().map_err(Failure::program)?;
        // Not the tenant's file: a measurement must not change its content.
        let shared = tenant.shared.as_ref().map(|shared| SharedMemory::anonymous(shared.bytes));
        let program = Program { shared: shared.transpose().map_err(Failure::host)?, ..program };
        let output = Arc::new(Tail { shows_progress, ..Tail::default() });
        let log = Arc::clone(&output) as Arc<dyn LogSink>;
        Snapshot::boot(host, &program, &tenant.limits.machine, log)
            .map_err(|error| Failure::Program(format!("{}{error}", output.text())))
    }
}

/// Forks a worker.
pub fn fork(snapshot: &Snapshot) -> Result<Worker, Failure> {
    Worker::fork(snapshot).map_err(Failure::host)
}

/// What Mayfly's own lines in a program's log begin with.
const OWN: &[u8] = b"mayfly: ";

/// The last of what a program writes.
#[derive(Default)]
struct Tail {
    output: Mutex<VecDeque<u8>>,
    shows_progress: bool,
}

impl Tail {
    /// The output as complete lines; empty if there was none.
    fn text(&self) -> String {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from_utf8_lossy(output.make_contiguous()).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

impl LogSink for Tail {
    fn write(&self, _: Stream, bytes: &[u8]) {
        if self.shows_progress && bytes.starts_with(OWN) {
            // It fails if standard error is closed.
            let _ = io::stderr().write_all(bytes);
        }
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.extend(bytes);
        let surplus = output.len().saturating_sub(OUTPUT_BYTES);
        output.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_output_is_kept() {
        let tail = Tail::default();
        assert_eq!(tail.text(), "");
        tail.write(Stream::Stderr, &[b'a'; 3 * OUTPUT_BYTES]);
        tail.write(Stream::Stdout, b"\nwhy");
        let text = tail.text();
        assert_eq!(text.len(), OUTPUT_BYTES + 1);
        assert!(text.ends_with("a\nwhy\n"), "{text}");
    }
}
