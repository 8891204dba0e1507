// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts background threads and waits for their end.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::host::affinity;

/// How often [`Threads::join`] checks.
const TICK: Duration = Duration::from_millis(2);

/// Threads that end together.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    pub(crate) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(|| {
            // A loop that starts it may be bound to a processor.
            affinity::release();
            work();
        })?;
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Waits for the threads to end, up to `at_most`. Threads that are blocked on a file are abandoned.
    pub(crate) fn join(&self, at_most: Duration) {
        let end = Instant::now() + at_most;
        let mut threads = std::mem::take(&mut *self.threads());
        // The calling thread may be one of them, if it is the last to hold the server.
        threads.retain(|thread| thread.thread().id() != thread::current().id());
        loop {
            let (done, left): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
            for thread in done {
                // The threads catch the panics of the requests that they serve.
                let _ = thread.join();
            }
            if left.is_empty() {
                return;
            }
            if Instant::now() >= end {
                let names: Vec<_> = left.iter().filter_map(|thread| thread.thread().name()).collect();
                return tracing::warn!(
                    target: "mayfly::server", threads = ?names, "threads are abandoned: the files that they wait for do not respond"
                );
            }
            threads = left;
            thread::sleep(TICK);
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // The list is consistent even if a thread panicked while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
