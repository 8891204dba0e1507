// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stub processes: programs run in processes of the host that can make no system call on their own.
//!
//! A [`Stub`] has a program's memory and nothing else: no descriptor that it could use, no vDSO, no C library. Below
//! its filter each system call ends at the server, as a seccomp notification or as a SIGSYS; the server answers with a
//! value, with registers, or with [`Order`]s: calls for the stub to make, which are compared with what arrives before
//! they are let through.
//!
//! No privilege is needed, and no device. A [`Processor`] runs a machine's program in a stub; `mayfly-engine` makes
//! machines of it, as it does of `mayfly-kvm`'s. What is missing is in `docs/engines.md`.
//!
//! The parts, the highest first; imports run downwards (`docs/architecture.md`):
//!
//! | part | subject |
//! |---|---|
//! | [`floor`] | the least that a switch costs here, for benchmarks |
//! | `processor` | a machine's processor: what the stub has mapped, where it stands |
//! | `fingerprint` | what a saved image depends on |
//! | `probe` | what the host can do |
//! | `stub` | a stub from its birth to its end |
//! | `zygote` | the process that stubs are copies of; its start, its scripts |
//! | `resume` | the pages that hold a frozen state |
//! | `ring` | the world switch: events, answers, orders, and kicks, the checks on all of them |
//! | `code` | the host code, in assembly |
//! | `sys` | system calls that the standard library does not have |
//! | `host` | the result of the probe |
//! | `filter` | the seccomp filter as data |
//! | `error`, `poison` | errors of operations; what no stub does |
//! | `layout` | where the engine's own pages lie |
//!
//! # Safety of the server
//!
//! Everything that a stub passes is hostile. The kernel tells which process made a call, by which convention and behind
//! which instruction; all else is used to compute what the program itself does next.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read /proc"))]

mod code;
mod error;
mod filter;
mod fingerprint;
pub mod floor;
mod host;
pub mod layout;
mod poison;
mod probe;
mod processor;
mod resume;
mod ring;
mod stub;
mod sys;
mod zygote;

pub use code::{KICK, doorbell_page, frozen_rip};
pub use error::{ForkError, RingError, ScriptTooLong, StartError};
pub use filter::asm::AssembleError;
pub use fingerprint::{Fingerprint, FingerprintMismatch};
pub use host::{Host, HostReport, Missing, Wake};
pub use poison::Poison;
pub use processor::kicker::Kicker;
pub use processor::processor::Processor;
pub use processor::source::{ImageSource, pages};
pub use resume::resume_pages;
pub use ring::context::Interrupted;
pub use ring::order::Order;
pub use ring::ring::Event;
pub use ring::vector::vector_components;
pub use stub::{Nursery, Stub, StubFiles};
pub use zygote::zygote::{ExitStatus, Region};
#[cfg(test)]
mod tests;
