// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mayfly's personality: the Linux system-call layer that the host gives a program inside a machine.
//!
//! A [`Process`] is what Linux would know of a program: its address space, descriptors, signal actions. It is loaded with
//! [`Process::exec`]; then whoever runs the machine hands each exit that concerns Linux to [`Process::handle`], which does the
//! work and says with a [`Step`] how to go on. [`Process::freeze`] marks the snapshot; [`Process::reset_from`] goes back to it.
//!
//! # What always holds
//!
//! * Nothing that a guest sends can panic, block or grow the host: sizes, addresses, durations and counts are bounded before
//!   they are used, arithmetic on them is checked, and every loop is bounded by a limit of ours.
//! * No host file and no network but what the program's mounts and its list of destinations give it, and no host identity: a call that
//!   would need one fails as it does where there is none.
//! * State that a request can change is inside a `Tracked` value, so that reset cannot forget it.
//!
//! `docs/personality.md` lists what each call does. The words (program, machine, boot, snapshot ...) are those of DESIGN.md.
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

mod address_space;
mod calls;
mod clock;
mod cpu_time;
mod delivery;
mod elf;
mod errno;
mod exec;
mod fault;
mod file_fault;
mod files;
mod frame;
mod host;
mod identity;
mod made_up;
mod mounts;
mod names;
mod net;
mod outbound;
mod overlay;
mod pages;
mod pollables;
mod process;
mod resolve;
mod resolver;
mod saved;
mod schedule;
mod signals;
mod source;
mod stack;
mod table;
mod threads;
mod timers;
mod tracked;
mod unknown;
mod user;
mod vma;
mod witnesses;

#[cfg(test)]
mod tests;

pub use elf::ElfError;
pub use exec::{ExecError, Program};
pub use fault::Fault;
pub use mounts::{MOUNTS_MAX, MountError, MountPoint, Mounts};
pub use outbound::{Network, Outbound, OutboundHost};
pub use pollables::{Application, Closed, ConnectionId, Listeners, NotListening, OutputState};
pub use process::{Connects, Context, CopyError, LimitHits, Limits, Output, Process, Step, Stream};
pub use saved::{ProcessLoadError, ProcessSaveError, Reopened};
pub use source::Elf;
pub use stack::StackError;
pub use table::handled_calls;
pub use unknown::UnknownCall;
pub use witnesses::NoWitness;
