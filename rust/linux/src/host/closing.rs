// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closes files of durable mounts on a thread of their own: the last close of a file without a name frees its blocks,
//! and a file system may begin to write out what was written. A reset, which closes a request's files, runs on loops.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::host::permits::Permit;
use crate::host::quota::Inode;

/// What is left of a file that nothing uses any more. Fields are dropped in this order: the count of a file without a
/// name ends before its number can be another file's.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) _inode: Arc<Inode>,
    pub(crate) _fd: OwnedFd,
    pub(crate) _permit: Option<Permit>,
}

static CLOSER: OnceLock<Sender<Closing>> = OnceLock::new();

/// Starts the thread, if it does not run yet. It ends with the process: it holds nothing that must be written.
pub(crate) fn start() -> std::io::Result<()> {
    if CLOSER.get().is_some() {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel::<Closing>();
    thread::Builder::new().name("mayfly-closer".into()).spawn(move || receiver.into_iter().for_each(drop))?;
    // Another thread may have been faster; this one's then ends at once.
    let _ = CLOSER.set(sender);
    Ok(())
}

/// Closes a file, soon. There are no more files than permits, so the queue is bounded.
pub(crate) fn close(closing: Closing) {
    if let Some(closer) = CLOSER.get() {
        // Without a receiver the file is closed here.
        let _ = closer.send(closing);
    }
}
