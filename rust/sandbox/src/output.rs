// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs write to stdout and stderr.

use std::sync::Arc;

pub use mayfly_linux::Stream;

/// Takes a tenant's output as it is written: pieces of at most a page, not lines.
///
/// It is called on the thread that runs the program, which may be an event loop: it must not block, and it must limit
/// what it keeps. Several workers of a tenant may call it at once.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use mayfly_sandbox::{LogSink, Stream};
///
/// /// Counts what a tenant prints to stderr.
/// struct Errors(AtomicUsize);
///
/// impl LogSink for Errors {
///     fn write(&self, stream: Stream, bytes: &[u8]) {
///         if stream == Stream::Stderr {
///             self.0.fetch_add(bytes.len(), Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait LogSink: Send + Sync {
    /// Takes `bytes`.
    fn write(&self, stream: Stream, bytes: &[u8]);
}

/// Drops all output.
#[derive(Debug, Clone, Copy)]
pub struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: Stream, _: &[u8]) {}
}

/// A shared sink in the form that the personality takes.
#[derive(Clone)]
pub(crate) struct SharedLog(pub(crate) Arc<dyn LogSink>);

impl std::fmt::Debug for SharedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedLog").finish_non_exhaustive()
    }
}

impl mayfly_linux::Output for SharedLog {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.0.write(stream, bytes);
    }
}
