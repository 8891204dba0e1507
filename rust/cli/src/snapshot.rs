// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly snapshot`: boots a tenant's program and saves its snapshot, from which servers start.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use mayfly_sandbox::{LogSink, Stream};
use mayfly_tenancy::{Config, ReloadError};

use crate::failure::Failure;
use crate::options::SnapshotOptions;

/// Shows the program's output while it boots.
struct Shown;

impl LogSink for Shown {
    fn write(&self, _: Stream, bytes: &[u8]) {
        // It fails if standard error is closed.
        let _ = std::io::stderr().write_all(bytes);
    }
}

pub fn snapshot(options: &SnapshotOptions) -> Result<(), Failure> {
    let mut config = Config::from_file(&options.config).map_err(Failure::usage)?;
    if let Some(engine) = options.engine {
        config.force_engine(engine);
    }
    let started = Instant::now();
    let saved = config.save_snapshot(&options.tenant, options.out.as_deref(), Arc::new(Shown));
    let path = saved.map_err(|error| match error {
        ReloadError::UnknownTenant => Failure::Usage(format!("no tenant is named \"{}\"", options.tenant)),
        ReloadError::Host(reason) => Failure::Host(reason),
        error => Failure::Program(format!("tenant {}: {error}", options.tenant)),
    })?;
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    println!("{}: {} KiB, booted and saved in {} ms", path.display(), bytes >> 10, started.elapsed().as_millis());
    Ok(())
}
