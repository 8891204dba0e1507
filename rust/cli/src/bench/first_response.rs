// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time from nothing to the first response, with the program in a snapshot file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly_sandbox::{BufferedResponse, Host, MountAccess, NoLog, Request, Snapshot, Worker};

use crate::bench::plan::within;
use crate::bench::progress::Progress;
use crate::bench::stats::Samples;
use crate::bench::subject::Subject;
use crate::failure::Failure;

/// How often the file is loaded, if there is time.
const LOADS: u32 = 7;

/// Milliseconds from opening the program to the first response: the median of [`LOADS`], with the file in the page
/// cache. After `time` the file is not loaded again. `None` for programs that have no snapshot files: those with shared
/// memory or durable mounts.
pub fn first_response_ms(
    host: &Host,
    subject: &Subject,
    snapshot: &Snapshot,
    request: &Request<'_>,
    time: Duration,
    progress: &mut Progress,
) -> Result<Option<f64>, Failure> {
    let tenant = subject.tenant();
    if tenant.shared.is_some() || tenant.mounts.iter().any(|mount| matches!(mount.access, MountAccess::Durable(_))) {
        return Ok(None);
    }
    let failed = |error: &dyn std::error::Error| Failure::Program(format!("the snapshot file: {error}"));
    let directory = std::env::temp_dir().join(format!("mayfly-bench-{}", std::process::id()));
    std::fs::create_dir(&directory).map_err(|error| failed(&error))?;
    let path = directory.join("snapshot");
    let measured = snapshot.save(&path).map_err(|error| failed(&error)).and_then(|()| {
        let mut times = Samples::with_capacity(LOADS as usize);
        for id in within(time, 1, LOADS) {
            progress.say(|| format!("has loaded the snapshot file {id} of {LOADS} times"));
            times.time(|| first_response(host, subject, request, &path, id.into()))?;
        }
        Ok(times.median().map(|nanoseconds| nanoseconds / 1e6))
    });
    // The file holds the program's memory. If it cannot be removed, the system clears it.
    let _ = std::fs::remove_dir_all(&directory);
    measured
}

fn first_response(host: &Host, subject: &Subject, request: &Request<'_>, path: &Path, id: u64) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Program(format!("from the snapshot file: {error}"));
    let program = subject.tenant().launch().map_err(|error| failed(&error))?;
    let limits = &subject.tenant().limits.machine;
    let snapshot = Snapshot::load(host, &program, limits, Arc::new(NoLog), path).map_err(|error| failed(&error))?;
    let mut worker = Worker::fork(&snapshot).map_err(|error| failed(&error))?;
    let mut response = BufferedResponse::default();
    worker.call(id, request, &mut response).map_err(|error| failed(&error))?;
    Ok(())
}
