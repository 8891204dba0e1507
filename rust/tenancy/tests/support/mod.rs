// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared by the tests of this crate: tenants to run, and the part of an HTTP server.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use mayfly_tenancy::{
    Config, DeferredReply, HostState, LoopPool, Outcome, Request, ResponseSink, Server, TenantReport,
};
use serde_json::{Value, json};

/// What takes longer counts as never. Threads of low priority get little time on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A program that misbehaves on request: see `tenants/faults`.
pub fn faults() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    program
}

/// A tenant that runs `faults`. Its limits are quick to reach, except those on time, since the machine may be busy.
pub fn tenant(name: &str, more: Value) -> Value {
    let mut tenant = json!({
        "name": name, "path": format!("/{name}"), "program": faults(),
        "limits": {"cpu_ms": 20_000, "inline_budget_us": 1_000_000, "memory_mib": 1, "request_kib": 64, "response_kib": 64},
    });
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tenant
}

/// Limits for a tenant whose requests are to reach the limit on CPU time.
pub fn hurried() -> Value {
    json!({"limits": {"cpu_ms": 100, "inline_budget_us": 1_000_000}})
}

pub fn start(tenants: &[Value]) -> Server {
    start_with(json!({ "tenants": tenants }))
}

/// A server whose tenants have booted. By itself, a server waits for three seconds, which is short on a busy machine.
pub fn start_with(config: Value) -> Server {
    let server = start_at_once(config);
    await_boots(&server);
    server
}

pub fn await_boots(server: &Server) {
    wait_until("the tenants boot", || server.readiness().booting == 0);
}

pub fn start_at_once(config: Value) -> Server {
    let server = Server::start(Config::from_value(&config).unwrap()).unwrap();
    let HostState::Usable { .. } = server.report().host.state else { panic!("these tests need a usable engine") };
    server
}

#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Checks the format of one of Mayfly's own answers; returns its status and `error`.
    pub fn error(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let keys: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["error", "reason", "request_id"]);
        let id = body["request_id"].as_str().unwrap();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(self.headers.contains(&("content-type".to_owned(), "application/json".to_owned())));
        assert_eq!(
            self.headers.contains(&("retry-after".to_owned(), "1".to_owned())),
            matches!(self.status, 429 | 503)
        );
        (self.status, body["error"].as_str().unwrap().to_owned())
    }

    pub fn reason(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["reason"].as_str().unwrap().to_owned()
    }
}

impl ResponseSink for Response {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.body = vec![0; len];
        &mut self.body
    }

    fn status(&mut self, status: u16) {
        self.status = status;
        self.headers.clear();
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.headers.push((text(name), text(value)));
    }
}

pub struct Later {
    pub response: Response,
    pub sender: Sender<Response>,
}

impl ResponseSink for Later {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.response.body(len)
    }

    fn status(&mut self, status: u16) {
        self.response.status(status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.response.header(name, value);
    }
}

impl DeferredReply for Later {
    fn send(self: Box<Self>) {
        let _ = self.sender.send(self.response);
    }
}

pub fn request(target: &'static str) -> Request<'static> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request { method: b"GET", path: path.as_bytes(), query: query.as_bytes(), headers: &[], body: b"", client: None }
}

/// Serves a request as an HTTP server does: at once, or later if there is no worker.
pub fn serve(pool: &mut LoopPool, request: &Request<'_>) -> Response {
    let mut response = Response::default();
    match pool.call(request, &mut response) {
        Outcome::Done => response,
        Outcome::Later => {
            assert_eq!(response.status, 0, "the sink is untouched");
            let (sender, receiver) = mpsc::channel();
            pool.call_later(request, Box::new(Later { response, sender }));
            receiver.recv_timeout(PATIENCE).expect("every request is answered")
        }
    }
}

pub fn get(pool: &mut LoopPool, target: &'static str) -> Response {
    serve(pool, &request(target))
}

pub fn report(server: &Server, name: &str) -> TenantReport {
    server.report().tenants.into_iter().find(|tenant| tenant.name == name).unwrap()
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the pool has a worker for the path, so that the next call is served on this thread.
pub fn wait_for_worker(pool: &mut LoopPool, target: &'static str) {
    wait_until("a worker is forked ahead", || pool.call(&request(target), &mut Response::default()) == Outcome::Done);
}
