// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread that lives as long as the process.
//!
//! `PR_SET_PDEATHSIG` kills a child when the *thread* that made it ends (prctl(2)). Zygotes are therefore started from
//! this thread, whatever thread asks for them.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};

type Job = Box<dyn FnOnce() + Send>;

static THREAD: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

/// Runs `job` on the thread, which is started when it is first needed, and returns its result.
///
/// # Errors
///
/// The thread cannot be started, or it panicked in this job.
pub(crate) fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (reply, result) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || drop(reply.send(job())));
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match &*thread {
        Some(sender) => sender,
        None => thread.insert(start()?),
    };
    if sender.send(job).is_err() {
        // It panicked earlier; its zygotes died with it. The next caller gets another.
        *thread = None;
    }
    drop(thread);
    result.recv().map_err(|_| io::Error::other("the thread that starts zygotes ended"))
}

fn start() -> io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("mayfly-zygotes".into()).spawn(move || jobs.into_iter().for_each(|job| job()))?;
    Ok(sender)
}
