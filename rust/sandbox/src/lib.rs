// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fresh machine for every request.
//!
//! A tenant's program is booted once into a [`Snapshot`]. [`Worker`]s are copy-on-write forks of it; [`Worker::call`]
//! gives one a request, takes the response, and rolls the worker back, so that the next request finds the snapshot
//! again, exactly.
//!
//! ```
//! use std::sync::Arc;
//! use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
//!
//! # let path = std::path::Path::new("../../build/tenants/hello/hello"); // `make tenants` builds it.
//! # let (Ok(host), true) = (Host::open(), path.exists()) else { return Ok(()) }; // Or no engine runs here.
//! let host = Host::open()?;
//! let program = Program::load(path)?;
//! let snapshot = Snapshot::boot(&host, &program, &Limits::default(), Arc::new(NoLog))?;
//! let mut worker = Worker::fork(&snapshot)?;
//! let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
//! let mut response = BufferedResponse::default();
//! worker.call(1, &request, &mut response)?;
//! assert_eq!((response.status, &response.body[..]), (200, &b"Hello World!"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing above this crate knows that KVM exists. Of HTTP, the crate knows only the syntax of header fields.
//!
//! The folders, the highest first; imports run downwards (`docs/architecture.md`):
//!
//! | folder | subject |
//! |---|---|
//! | `worker` | forks, requests leg by leg, resets, calls of storage programs |
//! | `snapshot` | frozen programs, in memory and in files |
//! | `boot` | from a program's entry point to where it can be frozen |
//! | `time` | clocks, and the watchdog that ends legs |
//! | [`fields`] | header fields that a program may send |
//! | [`inventory`], [`ways`] | tables: what a reset restores, and what the next request meets |
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod abi;
pub mod bench;
mod boot;
mod entropy;
mod error;
pub mod fields;
mod host;
pub mod inventory;
mod limits;
mod message;
mod output;
mod program;
mod protocol;
mod response;
mod run;
mod service;
mod snapshot;
mod time;
pub mod ways;
mod worker;

pub use abi::METHOD_CALL;
pub use entropy::EntropyError;
pub use error::{BootError, CallError, ForkError, ProgramError};
pub use host::{
    Auto, Choice, DEVICE_VARIABLE, ENGINE_VARIABLE, Engine, EngineReport, Host, HostError, HostReport, Hosts,
};
pub use limits::Limits;
pub use mayfly_engine::heap;
pub use mayfly_engine::{Account, Allowance, Held, Hold, Ledger, Purpose, ResetReport};
pub use mayfly_linux::{
    Connects, DurableLimits, Fault, LimitHits, MOUNTS_MAX, MountAccess, MountError, MountPoint, Mounts, Outbound,
    OutboundHost, RefusedProcesses, UnknownCall,
};
pub use mayfly_machine::layout::SHARED_MAX;
pub use mayfly_machine::{PAGE_SIZE, SharedMemory};
pub use message::{BufferedResponse, Client, Header, Request, ResponseSink};
pub use output::{LogSink, NoLog, Stream};
pub use program::{Elf, MAPPED_FROM, MonotonicClock, Program, ProgramFile};
pub use protocol::{Decoded, Decoder, Protocol, Readiness, Service, Target, WarmUp};
pub use response::ResponseError;
pub use snapshot::file::{SnapshotFileError, SnapshotSaveError};
pub use snapshot::snapshot::{BootedFrom, Snapshot};
pub use time::watchdog::WatchdogError;
pub use worker::peer::{PeerCall, PeerError};
pub use worker::progress::{BackgroundProgress, CallStats, Progress, Slice, WorkerState};
pub use worker::worker::Worker;
