// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tenants, good and bad, on real workers, through the interface that an HTTP server uses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use mayfly_tenancy::{
    Config, DeferredReply, Header, HostState, LoopPool, Outcome, Request, ResponseSink, Server, TenantReport,
    TenantState,
};
use serde_json::{Value, json};

/// A program that does what no tenant should: see `tenants/faults`.
fn faults() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/faults/faults");
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    program
}

/// A tenant that runs `faults`, with limits that are quick to reach, but for the one on time: the machine may be busy.
fn tenant(name: &str, more: Value) -> Value {
    let mut tenant = json!({
        "name": name, "path": format!("/{name}"), "program": faults(),
        "limits": {"cpu_ms": 20_000, "memory_mib": 1, "request_kib": 64, "response_kib": 64},
    });
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tenant
}

/// For a tenant whose requests run into the limit on time.
fn hurried() -> Value {
    json!({"limits": {"cpu_ms": 100}})
}

fn start(tenants: &[Value]) -> Server {
    let server = Server::start(Config::from_value(&json!({ "tenants": tenants })).unwrap()).unwrap();
    let HostState::Usable { .. } = server.report().host else { panic!("these tests need a usable KVM") };
    server
}

#[derive(Debug, Clone, Default)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// Status and `error` of one of Mayfly's own answers, after checking its form.
    fn error(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let keys: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["error", "reason", "request_id"]);
        let id = body["request_id"].as_str().unwrap();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(self.headers.contains(&("content-type".to_owned(), "application/json".to_owned())));
        assert_eq!(self.headers.contains(&("retry-after".to_owned(), "1".to_owned())), self.status == 503);
        (self.status, body["error"].as_str().unwrap().to_owned())
    }

    fn reason(&self) -> String {
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

struct Later {
    response: Response,
    sender: Sender<Response>,
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

fn request(target: &'static str) -> Request<'static> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request { method: b"GET", path: path.as_bytes(), query: query.as_bytes(), headers: &[], body: b"" }
}

/// Serves a request as an HTTP server does: at once, or later if there is no worker.
fn serve(pool: &mut LoopPool, request: &Request<'_>) -> Response {
    let mut response = Response::default();
    match pool.call(request, &mut response) {
        Outcome::Done => response,
        Outcome::NeedsWorker => {
            assert_eq!(response.status, 0, "the sink is untouched");
            let (sender, receiver) = mpsc::channel();
            pool.call_later(request, Box::new(Later { response, sender }));
            receiver.recv_timeout(Duration::from_secs(20)).expect("every request is answered")
        }
    }
}

fn get(pool: &mut LoopPool, target: &'static str) -> Response {
    serve(pool, &request(target))
}

fn report(server: &Server, name: &str) -> TenantReport {
    server.report().tenants.into_iter().find(|tenant| tenant.name == name).unwrap()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the pool has a worker for the path, so that the next call is served on this thread.
fn wait_for_worker(pool: &mut LoopPool, target: &'static str) {
    wait_until("a worker is forked ahead", || pool.call(&request(target), &mut Response::default()) == Outcome::Done);
}

#[test]
fn a_request_is_answered_by_the_tenant_of_its_path() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({"path": "/a/b"}))]);
    let mut pool = server.loop_pool();
    for target in ["/a/ok", "/a/b/ok"] {
        assert_eq!(get(&mut pool, target).status, 200);
    }
    assert_eq!(get(&mut pool, "/b/ok").error(), (404, "no-such-route".to_owned()));
    assert_eq!((report(&server, "a").requests, report(&server, "b").requests, server.report().unrouted), (1, 1, 1));
}

#[test]
fn workers_are_forked_ahead_and_kept() {
    let server = start(&[tenant("a", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    for _ in 0..100 {
        assert_eq!(pool.call(&request("/a/ok"), &mut Response::default()), Outcome::Done);
    }
    let report = report(&server, "a");
    assert_eq!((report.requests, report.resets, report.forks), (101, 101, 1));
}

#[test]
fn what_a_program_does_wrong_has_its_status_and_the_next_request_is_served() {
    let server = start(&[tenant("a", json!({})), tenant("hurried", hurried())]);
    let mut pool = server.loop_pool();
    for (target, status, word) in [
        ("/a/exit?3", 502, "exited"),
        ("/a/null", 502, "faulted"),
        ("/a/ud2", 502, "faulted"),
        ("/a/body-unmapped", 502, "bad-response"),
        ("/a/header-content-length", 502, "bad-response"),
        ("/a/status?700", 502, "bad-response"),
        ("/a/body-over", 502, "response-too-large"),
        ("/hurried/loop", 504, "cpu-limit"),
        ("/a/alloc-mmap", 507, "memory-limit"),
    ] {
        // Both ways: on this thread, and on a background thread because the one before cost the worker.
        for _ in 0..2 {
            assert_eq!(get(&mut pool, target).error(), (status, word.to_owned()), "{target}");
        }
        assert_eq!(get(&mut pool, "/a/ok").status, 200, "after {target}");
    }
    let errors = report(&server, "a").errors;
    assert_eq!((errors["exited"], errors["faulted"], errors["bad-response"], errors["memory-limit"]), (2, 4, 6, 2));
    assert_eq!(report(&server, "hurried").errors["cpu-limit"], 2);
}

#[test]
fn state_stays_only_where_that_was_asked_for() {
    let server = start(&[tenant("fresh", json!({})), tenant("keeps", json!({"ephemeral": false}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/fresh/ok");
    wait_for_worker(&mut pool, "/keeps/ok");
    for (state, dirty, keeps) in
        [("/fresh/state", "/fresh/dirty-data", false), ("/keeps/state", "/keeps/dirty-data", true)]
    {
        let before = get(&mut pool, state);
        assert_eq!(get(&mut pool, dirty).status, 200);
        assert_eq!(get(&mut pool, state).body != before.body, keeps, "{state}");
    }
}

#[test]
fn a_poisoned_worker_is_never_called_again_and_another_is_forked_ahead() {
    let server = start(&[tenant("a", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    let forks = report(&server, "a").forks;
    assert_eq!(get(&mut pool, "/a/exit").error().0, 502);
    wait_until("a replacement is forked", || report(&server, "a").forks > forks);
    wait_for_worker(&mut pool, "/a/ok");
    assert_eq!(report(&server, "a").forks, forks + 1);
}

#[test]
fn a_request_that_is_too_large_is_413_at_once_and_later() {
    let server = start(&[tenant("a", json!({}))]);
    let mut pool = server.loop_pool();
    let body = vec![b'x'; 80 << 10];
    let large = Request { body: &body, ..request("/a/ok") };
    wait_for_worker(&mut pool, "/a/ok");
    assert_eq!(serve(&mut pool, &large).error(), (413, "request-too-large".to_owned()));
    let (sender, receiver) = mpsc::channel();
    pool.call_later(&large, Box::new(Later { response: Response::default(), sender }));
    assert_eq!(receiver.recv().unwrap().error(), (413, "request-too-large".to_owned()));
    // It did not cost the worker.
    assert_eq!(pool.call(&request("/a/ok"), &mut Response::default()), Outcome::Done);
}

#[test]
fn a_deferred_request_is_the_same_request() {
    let echo = faults().parent().unwrap().join("../echo/echo");
    let server = start(&[tenant("e", json!({"program": echo}))]);
    let mut pool = server.loop_pool();
    let headers = [Header { name: b"x-a", value: b"1" }, Header { name: b"x-a", value: b"2" }];
    let asked = Request { method: b"PUT", headers: &headers, body: b"\0binary\xff", ..request("/e/x%20y?q=1&r") };
    let (sender, receiver) = mpsc::channel();
    pool.call_later(&asked, Box::new(Later { response: Response::default(), sender }));
    let later = receiver.recv().unwrap();
    let at_once = serve(&mut pool, &asked);
    let without_moments = |response: &Response| {
        let mut echoed: Value = serde_json::from_slice(&response.body).unwrap();
        for field in ["id", "unix_ns", "monotonic_ns", "entropy"] {
            echoed.as_object_mut().unwrap().remove(field);
        }
        echoed
    };
    assert_eq!(without_moments(&later), without_moments(&at_once));
}

#[test]
fn a_tenant_that_does_not_boot_answers_503_with_the_reason_and_others_serve() {
    let server = start(&[
        tenant("good", json!({})),
        tenant("missing", json!({"program": "/nonexistent/program"})),
        tenant("script", json!({"program": file!(), "path": "/script"})),
        tenant("exits", json!({"args": ["boot:exit=7"]})),
        tenant("loops", json!({"args": ["boot:loop"], "limits": {"boot_ms": 300}})),
    ]);
    let mut pool = server.loop_pool();
    for (target, reason) in [
        ("/missing/x", "No such file"),
        ("/script", "No such file"),
        ("/exits", "exited with status 7"),
        ("/loops", "within 300ms"),
    ] {
        let response = get(&mut pool, target);
        assert_eq!(response.error(), (503, "unavailable".to_owned()));
        assert!(response.reason().contains(reason), "{}", response.reason());
    }
    assert_eq!(get(&mut pool, "/good/ok").status, 200);
    assert!(matches!(report(&server, "exits").state, TenantState::Failed { .. }));
    assert!(matches!(report(&server, "good").state, TenantState::Ready { generation: 1, .. }));
}

#[test]
fn the_server_starts_without_a_tenant_that_is_slow_to_boot() {
    let slow = json!({"args": ["boot:loop"], "limits": {"boot_ms": 5000}});
    let server = start(&[tenant("slow", slow), tenant("quick", json!({}))]);
    let mut pool = server.loop_pool();
    let response = get(&mut pool, "/slow");
    assert_eq!(response.error(), (503, "unavailable".to_owned()));
    assert_eq!(response.reason(), "the tenant is still booting");
    assert_eq!(get(&mut pool, "/quick/ok").status, 200);
    wait_until("the boot limit holds", || matches!(report(&server, "slow").state, TenantState::Failed { .. }));
    assert!(get(&mut pool, "/slow").reason().contains("within 5s"));
}

#[test]
fn too_many_waiting_requests_of_one_tenant_are_refused_and_another_tenants_are_not() {
    let server = start(&[tenant("a", hurried()), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    let (sender, receiver) = mpsc::channel();
    let mut later = |target| {
        let reply = Later { response: Response::default(), sender: sender.clone() };
        pool.call_later(&request(target), Box::new(reply));
    };
    (0..40).for_each(|_| later("/a/loop"));
    later("/b/ok");
    drop(sender);
    let statuses: Vec<u16> = receiver.iter().map(|response| response.status).collect();
    let count = |status| statuses.iter().filter(|&&seen| seen == status).count();
    assert_eq!((statuses.len(), count(200)), (41, 1));
    // 16 wait; how many the two threads have begun by then is a matter of time.
    assert!((16..=24).contains(&count(504)), "{statuses:?}");
    assert_eq!(count(503) + count(504), 40);
}

#[test]
fn shutdown_answers_what_waits_and_refuses_the_rest() {
    let server = start(&[tenant("a", hurried())]);
    let mut pool = server.loop_pool();
    let (sender, receiver) = mpsc::channel();
    let mut later = |target| {
        let reply = Later { response: Response::default(), sender: sender.clone() };
        pool.call_later(&request(target), Box::new(reply));
    };
    (0..4).for_each(|_| later("/a/loop"));
    server.shutdown();
    assert_eq!(receiver.try_iter().map(|response| response.status).collect::<Vec<_>>(), [504; 4]);
    later("/a/ok");
    assert_eq!(receiver.try_recv().unwrap().error(), (503, "unavailable".to_owned()));
}

#[test]
fn loop_threads_serve_side_by_side_and_nothing_is_left_behind() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({}))]);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let work = |mut pool: LoopPool| {
        for number in 0..300 {
            let (target, status) = match number % 10 {
                3 => ("/a/exit", 502),
                7 => ("/b/null", 502),
                even if even % 2 == 0 => ("/a/ok", 200),
                _ => ("/b/ok", 200),
            };
            assert_eq!(get(&mut pool, target).status, status);
        }
    };
    let both = || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let pool = server.loop_pool();
                scope.spawn(|| work(pool));
            }
        });
    };
    both();
    std::thread::sleep(Duration::from_millis(200));
    let before = descriptors();
    both();
    // Workers that the other tests of this process hold come and go; 60 more crashes would leave 120 descriptors or more.
    wait_until("descriptors are closed", || descriptors() < before + 60);
    let report = report(&server, "a");
    assert_eq!((report.requests, report.errors["exited"]), (2 * 2 * 180, 2 * 2 * 30));
}
