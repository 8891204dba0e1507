// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fresh virtual machine for every request.
//!
//! A tenant's program is booted once into a [`Snapshot`]. [`Worker`]s are copy-on-write forks of it; [`Worker::call`]
//! gives one a request, takes the response, and rolls the worker back, so that the next request finds the snapshot
//! again, exactly.
//!
//! ```no_run
//! use std::sync::Arc;
//! use mayfly_sandbox::{BufferedResponse, Host, Limits, NoLog, Program, Request, Snapshot, Worker};
//!
//! let host = Host::open()?;
//! let program = Program::load("build/tenants/hello/hello".as_ref())?;
//! let snapshot = Snapshot::boot(&host, &program, &Limits::default(), Arc::new(NoLog))?;
//! let mut worker = Worker::fork(&snapshot)?;
//! let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"" };
//! let mut response = BufferedResponse::default();
//! worker.call(1, &request, &mut response)?;
//! assert_eq!(response.status, 200);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing above this crate knows that KVM exists; nothing in it knows HTTP.
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
pub use host::{DEVICE_VARIABLE, Host, HostError, HostReport};
pub use limits::Limits;
pub use mayfly_kvm::heap;
pub use mayfly_kvm::{Account, Allowance, Held, Hold, Ledger, Purpose, ResetReport};
pub use mayfly_linux::{
    Connects, Fault, LimitHits, MOUNTS_MAX, MountError, MountPoint, Mounts, Outbound, OutboundHost, UnknownCall,
};
pub use mayfly_machine::layout::SHARED_MAX;
pub use mayfly_machine::{PAGE_SIZE, SharedMemory};
pub use message::{BufferedResponse, Header, Request, ResponseSink};
pub use output::{LogSink, NoLog, Stream};
pub use program::{Elf, MAPPED_FROM, MonotonicClock, Program, ProgramFile};
pub use protocol::{Decoded, Decoder, Protocol, Service, WarmUp};
pub use response::ResponseError;
pub use snapshot::file::{SnapshotFileError, SnapshotSaveError};
pub use snapshot::snapshot::{BootedFrom, Snapshot};
pub use time::watchdog::WatchdogError;
pub use worker::peer::{PeerCall, PeerError};
pub use worker::progress::{CallStats, Progress, Slice, WorkerState};
pub use worker::worker::Worker;
