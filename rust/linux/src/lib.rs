// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mayfly's personality: the Linux system-call layer that the host gives a program inside a machine.
//!
//! A [`Process`] is what Linux would know about a program: its address space, descriptors, signal actions.
//! [`Process::exec`] loads it. Then the embedder passes each exit that concerns Linux to [`Process::handle`], which
//! does the work and returns a [`Step`]: what to do next. [`Process::freeze`] marks the snapshot;
//! [`Process::reset_from`] goes back to it.
//!
//! # Invariants
//!
//! * Nothing that a guest sends can panic, block or grow the host: sizes, addresses, durations and counts are bounded
//!   before use, arithmetic on them is checked, and every loop has a limit of Mayfly's.
//! * A guest reaches no host file and no network but those of its mounts and its list of destinations, and learns no
//!   host identity. A call that would need more fails as it does on a system without it.
//! * State that a request can change is inside a `Tracked` value, so that a reset cannot miss it.
//!
//! # Layout
//!
//! Folders are Linux's subsystems: `mm`, `fs`, `event`, `net`, `sched`, `signal`, `time`, `exec`, `system`. Each has
//! its model, and the handlers of its system calls in `calls`, which lie above `kernel`: the process and the path of a
//! call. `syscalls.rs` is the table from numbers to handlers, `schedule.rs` chooses the next thread, `load.rs` loads a
//! program, `entry.rs` takes the machine's exits. `host` has what the host does for guests, `base` what all of them
//! share. Imports run downwards only (`docs/architecture.md`).
//!
//! `docs/personality.md` lists what each call does. Terms (program, machine, boot, snapshot ...) are those of
//! DESIGN.md.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod base;
mod entry;
mod event;
mod exec;
mod fs;
mod host;
mod kernel;
mod load;
mod mm;
mod net;
mod pollables;
mod sched;
mod schedule;
mod signal;
mod store;
mod syscalls;
mod system;
mod time;

#[cfg(test)]
mod tests;

pub use crate::base::context::Context;
pub use crate::base::context::Output;
pub use crate::base::context::Stream;
pub use crate::base::ids::ConnectionId;
pub use crate::base::limits::Connects;
pub use crate::base::limits::LimitHits;
pub use crate::base::limits::Limits;
pub use crate::base::limits::RefusedProcesses;
pub use crate::base::step::Fault;
pub use crate::base::step::Step;
pub use crate::exec::elf::ElfError;
pub use crate::exec::elf_source::Elf;
pub use crate::exec::program::Program;
pub use crate::exec::stack::StackError;
pub use crate::fs::mounts::{MOUNTS_MAX, MountAccess, MountError, MountPoint, Mounts};
pub use crate::fs::witnesses::NoWitness;
pub use crate::host::quota::DurableLimits;
pub use crate::kernel::process::{CopyError, Process};
pub use crate::kernel::save::{ProcessLoadError, ProcessSaveError, Reopened};
pub use crate::kernel::thread_list::ThreadList;
pub use crate::kernel::unknown::UnknownCall;
pub use crate::load::ExecError;
pub use crate::net::allow_list::{Network, Outbound, OutboundHost};
pub use crate::net::inbound::Closed;
pub use crate::net::inbound::NotListening;
pub use crate::net::inbound::OutputState;
pub use crate::pollables::application::{Application, Listeners};
pub use crate::syscalls::handled_calls;
