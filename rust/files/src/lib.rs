// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens the host's files that configuration, tenants and operators name: the only crate that does.
//!
//! ```text
//!   path ── open(O_PATH), opens nothing ── fstat: regular? ──> /proc/self/fd/N ── read, mapped ──> bounded content
//!                                             └─ no ──> Problem: "it is a FIFO: …"
//!   all of it on an errand ── no answer for 1 s ──> the caller goes on; the thread is left behind, and its place named
//! ```
//!
//! # What always holds
//!
//! - The file at a path is checked before it is opened, and the file that was checked is the one that is opened: no
//!   name is resolved twice.
//! - Only regular files of file systems that store files are opened (and KVM's device): no FIFO waits for a writer or
//!   wakes one, no device is triggered, and reading consumes none of the kernel's queues.
//! - No read exceeds the caller's limit, nor the size that the file had when it was opened.
//! - Whatever a file system does, a thread that must not block waits for the patience of an [`Errands`] and no longer.
//!
//! `clippy.toml` refuses the standard library's ways to open files everywhere else; decision 0225 has the exceptions.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod errand;
mod lock;
mod open;
mod problem;
mod read;
mod stamp;

pub use errand::{Errands, PATIENCE, Pending, Unfinished, each, is_errand, waiting_for, waiting_for_some};
pub use lock::{FileLock, LockRange, conflicting_lock, set_lock};
pub use open::{create_anew, create_new, open, open_device, open_itself, open_or_create, sync_directory};
pub use problem::{FileError, FileKind, Problem};
pub use read::{cgroup_text, kernel_text, read, read_opened, read_text};
pub use stamp::FileStamp;
