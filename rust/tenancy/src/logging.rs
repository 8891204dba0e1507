// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process's log: lines on standard error, written by a dedicated thread.

use std::io::{IsTerminal, stderr};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::host::resources::room_for_a_thread;

/// Lines that may wait for a slow reader of standard error; more are dropped. About 32 MiB at the longest lines.
const WAITING_LINES: usize = 8192;

/// Ends the log when dropped, after writing the waiting lines.
#[derive(Debug)]
pub struct LogGuard {
    _writer: Option<WorkerGuard>,
}

/// Sends `tracing`'s events to standard error, unless the process has a subscriber already.
///
/// `MAYFLY_LOG` selects what is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`. `default` applies if it is
/// unset or invalid. Threads that log never wait for standard error: a full pipe must not hold up a request.
#[must_use = "the log ends when the guard is dropped"]
pub fn init(default: &str) -> LogGuard {
    let filter = EnvFilter::try_from_env("MAYFLY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // The log's constructor panics if no thread can be created. In that case the caller's next start of a thread fails
    // with a message.
    if room_for_a_thread().is_err() {
        return LogGuard { _writer: None };
    }
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).finish(stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(writer)
        .finish();
    LogGuard { _writer: tracing::subscriber::set_global_default(subscriber).is_ok().then_some(guard) }
}
