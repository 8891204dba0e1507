// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of whole workers share.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod plain;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, CallStats, Host, Limits, LogSink, NoLog, Program, Request, Snapshot,
    Stream, WarmUp, Worker,
};

/// A built tenant; `make tenants` builds them.
pub fn tenant(name: &str) -> PathBuf {
    let root = std::env::var_os("MAYFLY_TENANTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants"), PathBuf::from);
    root.join(name).join(name)
}

pub fn program(name: &str, args: &[&str]) -> Program {
    let mut program = Program::load(&tenant(name)).expect("`make tenants` builds it");
    program.args = args.iter().map(ToString::to_string).collect();
    program
}

pub fn boot(name: &str, args: &[&str], limits: &Limits) -> Result<Snapshot, BootError> {
    Snapshot::boot(&Host::open().expect("these tests need an engine"), &program(name, args), limits, Arc::new(NoLog))
}

pub fn snapshot(name: &str) -> Snapshot {
    // The hardware lane is an emulation on a shared machine: a limit on time must not be what a test of something else
    // hits.
    boot(name, &[], &patient()).unwrap()
}

/// Limits that only an endless program reaches.
pub fn patient() -> Limits {
    Limits {
        boot_time: Duration::from_secs(120),
        cpu_time: Duration::from_secs(60),
        wall_time: Duration::from_secs(600),
        ..Limits::default()
    }
}

/// Calls with a method, a path with query, and a body.
/// Asks for `target` as often, before the freeze.
pub fn warm_up(target: &str, times: u32) -> WarmUp {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.as_bytes().to_vec(), query.as_bytes().to_vec());
    WarmUp { method: b"GET".to_vec(), path, query, headers: vec![], body: vec![], times, steady: false }
}

pub fn call(worker: &mut Worker, target: &str, body: &[u8]) -> Result<(CallStats, BufferedResponse), CallError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request =
        Request { method: b"POST", path: path.as_bytes(), query: query.as_bytes(), headers: &[], body, client: None };
    let mut response = BufferedResponse::default();
    let stats = worker.call(7, &request, &mut response)?;
    Ok((stats, response))
}

pub fn text(worker: &mut Worker, target: &str) -> String {
    String::from_utf8(call(worker, target, b"").unwrap().1.body).unwrap()
}

/// Keeps what programs print.
#[derive(Default)]
pub struct Kept(pub Mutex<Vec<u8>>);

impl LogSink for Kept {
    fn write(&self, _: Stream, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}
