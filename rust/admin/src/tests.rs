// SPDX-License-Identifier: MIT OR Apache-2.0
//! The listener and the watch with fake tenants: what is asked of them, and what they answer.

mod watching;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mayfly_tenancy::{Applied, Config, Readiness, ReloadError, Reloaded};
use sha2::{Digest, Sha256};

use super::*;

/// Tenants that record their calls.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    config: Mutex<Arc<Config>>,
    calls: Mutex<Vec<String>>,
    /// The result of the next changes.
    outcome: Mutex<Result<Reloaded, ReloadError>>,
    readiness: Mutex<Readiness>,
    /// Changes wait while it is closed.
    gate: Mutex<bool>,
    opened: Condvar,
}

impl Fake {
    fn new(config: Config) -> Self {
        Self(Arc::new(Inner {
            config: Mutex::new(Arc::new(config)),
            calls: Mutex::default(),
            outcome: Mutex::new(Ok(Reloaded { generation: 7, boot_ms: 1.500_04 })),
            readiness: Mutex::new(Readiness { ready: true, failed: 1, ..Readiness::default() }),
            gate: Mutex::new(true),
            opened: Condvar::new(),
        }))
    }

    fn change(&self, call: String) -> Result<Reloaded, ReloadError> {
        self.0.calls.lock().unwrap().push(call);
        let gate = self.0.gate.lock().unwrap();
        let (gate, waited) = self.0.opened.wait_timeout_while(gate, WAIT, |open| !*open).unwrap();
        assert!(!waited.timed_out());
        drop(gate);
        self.0.outcome.lock().unwrap().clone()
    }

    fn set_gate(&self, open: bool) {
        *self.0.gate.lock().unwrap() = open;
        self.0.opened.notify_all();
    }

    fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    fn fails_with(&self, error: ReloadError) {
        *self.0.outcome.lock().unwrap() = Err(error);
    }
}

impl Tenants for Fake {
    fn config(&self) -> Arc<Config> {
        self.0.config.lock().unwrap().clone()
    }

    fn readiness(&self) -> Readiness {
        *self.0.readiness.lock().unwrap()
    }

    fn status(&self) -> String {
        "{\"status\": 1}".to_owned()
    }

    fn metrics(&self) -> String {
        "metric 1\n".to_owned()
    }

    fn apply(&self, config: Config) -> Applied {
        let names: Vec<_> = config.tenants.iter().map(|tenant| tenant.name.to_string()).collect();
        *self.0.config.lock().unwrap() = Arc::new(config);
        self.0.calls.lock().unwrap().push(format!("apply {}", names.join(" ")));
        Applied { added: names, ..Applied::default() }
    }

    fn reload(&self, tenant: &str) -> Result<Reloaded, ReloadError> {
        self.change(format!("reload {tenant}"))
    }

    fn reload_changed(&self) -> Vec<(String, Result<Reloaded, ReloadError>)> {
        vec![("a".to_owned(), self.change("reload changed".to_owned()))]
    }

    fn upload(&self, tenant: &str, elf: Vec<u8>) -> Result<Reloaded, ReloadError> {
        self.change(format!("upload {tenant} {} {:?}", elf.len(), elf.last()))
    }

    fn rollback(&self, tenant: &str) -> Result<Reloaded, ReloadError> {
        self.change(format!("rollback {tenant}"))
    }
}

/// What takes longer than this counts as never.
const WAIT: Duration = Duration::from_secs(20);

fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < end, "it does not happen in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tenants `a` and `b` with the keys `key-a` and `key-b`, and `admin`.
fn config(admin: &str) -> Config {
    Config::from_json(&format!(
        r#"{{"watch": false, "admin": {{"listen": "127.0.0.1:0"{admin}}}, "tenants": [
            {{"name": "a", "program": "p", "path": "/a", "upload_key_sha256": "{}"}},
            {{"name": "b", "program": "p", "path": "/b", "upload_key_sha256": "{}"}}]}}"#,
        digest("key-a"),
        digest("key-b")
    ))
    .unwrap()
}

fn with_operator() -> Config {
    config(&format!(r#", "key_sha256": "{}", "uploads": "up", "upload_mib": 1"#, digest("operator")))
}

/// An admin listener for fake tenants.
struct Listening {
    admin: Admin,
    tenants: Fake,
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{body}");
        body["error"].as_str().unwrap().to_owned()
    }
}

impl Listening {
    fn start(config: Config) -> Self {
        Self::with_patience(config, Patience::default())
    }

    fn with_patience(config: Config, patience: Patience) -> Self {
        let tenants = Fake::new(config);
        Self { admin: Admin::start_for(tenants.clone(), patience).unwrap(), tenants }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.admin.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }

    /// Sends raw bytes and reads to the end.
    fn talk(&self, request: &[u8]) -> Response {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read(stream)
    }

    fn ask(&self, request: &str, key: Option<&str>) -> Response {
        let authorization = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        self.talk(format!("{request} HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n").as_bytes())
    }

    fn put(&self, tenant: &str, key: &str, body: &[u8]) -> Response {
        let size = body.len();
        let head = format!(
            "PUT /_mayfly/tenants/{tenant}/program HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {size}\r\n\r\n"
        );
        self.talk(&[head.as_bytes(), body].concat())
    }
}

fn read(mut stream: TcpStream) -> Response {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_lowercase(), body: body.to_owned() }
}

#[test]
fn everything_but_the_health_check_asks_for_the_right_key() {
    let listening = Listening::start(with_operator());
    // Status for: no key, a wrong key, another tenant's key, the tenant's key, the operator's.
    for (request, statuses) in [
        ("GET /_mayfly/health", [200, 200, 200, 200, 200]),
        ("HEAD /_mayfly/health", [200, 200, 200, 200, 200]),
        ("GET /_mayfly/ready", [200, 200, 200, 200, 200]),
        ("GET /_mayfly/status", [401, 401, 401, 401, 200]),
        ("GET /_mayfly/metrics?x", [401, 401, 401, 401, 200]),
        ("POST /_mayfly/reload", [401, 401, 401, 401, 200]),
        ("POST /_mayfly/tenants/a/reload", [401, 401, 401, 200, 200]),
        ("POST /_mayfly/tenants/a/rollback", [401, 401, 401, 200, 200]),
        ("PUT /_mayfly/tenants/a/program", [401, 401, 401, 200, 200]),
        ("PUT /_mayfly/tenants/c/program", [401, 401, 401, 401, 404]),
        ("POST /_mayfly/tenants/c/reload", [401, 401, 401, 401, 404]),
    ] {
        let keys = [None, Some("guess"), Some("key-b"), Some("key-a"), Some("operator")];
        for (key, status) in keys.into_iter().zip(statuses) {
            let response = listening.ask(request, key);
            assert_eq!(response.status, status, "{request} {key:?}: {}", response.body);
            if status == 401 {
                assert_eq!(response.error(), "unauthorized");
                assert!(response.head.contains("www-authenticate: bearer"), "{}", response.head);
            }
        }
    }
    let operator = Some("operator");
    assert_eq!(listening.ask("GET /_mayfly/status", operator).body, "{\"status\": 1}");
    let metrics = listening.ask("GET /_mayfly/metrics", operator);
    assert_eq!(metrics.body, "metric 1\n");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert_eq!(listening.ask("HEAD /_mayfly/status", operator).body, "");
    assert_eq!(listening.ask("POST /_mayfly/tenants/c/rollback", operator).error(), "unknown-tenant");
}

#[test]
fn without_an_operators_key_only_reports_are_served() {
    let listening = Listening::start(config(""));
    for (request, status) in
        [("GET /_mayfly/status", 200), ("GET /_mayfly/metrics", 200), ("POST /_mayfly/reload", 401)]
    {
        assert_eq!(listening.ask(request, None).status, status, "{request}");
        assert_eq!(listening.ask(request, Some("")).status, status, "{request}");
    }
    for (host, status) in [
        ("127.0.0.1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("LOCALHOST:1", 200),
        ("evil.example", 421),
        ("", 421),
    ] {
        let request = format!("GET /_mayfly/status HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(listening.talk(request.as_bytes()).status, status, "{host}");
    }
    assert!(listening.tenants.calls().is_empty());
}

#[test]
fn other_paths_and_methods_are_refused() {
    let listening = Listening::start(with_operator());
    for path in [
        "/",
        "/_mayfly",
        "/_mayfly/",
        "/_mayfly/tenants//program",
        "/_mayfly/tenants/a",
        "/_mayfly/tenants/a/b/program",
    ] {
        assert_eq!(listening.ask(&format!("GET {path}"), Some("operator")).status, 404, "{path}");
    }
    for (request, allow) in [
        ("POST /_mayfly/status", "get, head"),
        ("GET /_mayfly/reload", "post"),
        ("POST /_mayfly/tenants/a/program", "put"),
        ("DELETE /_mayfly/tenants/a/rollback", "post"),
    ] {
        let response = listening.ask(request, Some("operator"));
        assert_eq!((response.status, response.error().as_str()), (405, "method-not-allowed"), "{request}");
        assert!(response.head.contains(&format!("allow: {allow}\r\n")), "{}", response.head);
    }
    assert!(listening.tenants.calls().is_empty());
}

#[test]
fn an_upload_arrives_whole_and_its_result_is_reported() {
    let listening = Listening::start(with_operator());
    let program: Vec<u8> = (0..1 << 20).map(|byte| (byte % 251) as u8).collect();
    let response = listening.put("a", "key-a", &program);
    assert_eq!(response.status, 200, "{}", response.body);
    let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(body, serde_json::json!({"tenant": "a", "generation": 7, "boot_ms": 1.5}));
    let chunked = b"PUT /_mayfly/tenants/b/program HTTP/1.1\r\nhost: x\r\nauthorization: Bearer operator\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(listening.talk(chunked).status, 200);
    assert_eq!(listening.tenants.calls(), ["upload a 1048576 Some(148)", "upload b 5 Some(101)"]);
}

#[test]
fn an_upload_that_is_too_large_is_refused_before_it_is_held() {
    let listening = Listening::start(with_operator());
    let large = vec![0; (1 << 20) + 1];
    let response = listening.put("a", "key-a", &large);
    assert_eq!((response.status, response.error().as_str()), (413, "program-too-large"));
    assert!(response.body.contains("1048576 bytes"), "{}", response.body);
    let mut chunked = b"PUT /_mayfly/tenants/a/program HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-a\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n", large.len()).as_bytes());
    chunked.extend_from_slice(&large);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(listening.talk(&chunked).status, 413);
    assert!(listening.tenants.calls().is_empty());
    // Without the right to upload, the body is not read, whatever length it announces.
    let head = b"PUT /_mayfly/tenants/a/program HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
    assert_eq!(listening.talk(head).status, 401);
}

#[test]
fn slow_clients_are_disconnected() {
    // A whole head arrives within this, on a busy machine, too.
    let moment = Duration::from_secs(1);
    let patience = Patience { head: moment, pause: moment, body: moment * 3, ..Patience::default() };
    let listening = Listening::with_patience(with_operator(), patience);
    let mut silent = listening.connect();
    silent.write_all(b"GET /_mayfly/he").unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");

    let head = b"PUT /_mayfly/tenants/a/program HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-a\r\ncontent-length: 9\r\n\r\nabc";
    let response = listening.talk(head);
    assert_eq!((response.status, response.error().as_str()), (408, "too-slow"));
    // A byte now and then does not extend the time.
    let mut dripping = listening.connect();
    let head = "PUT /_mayfly/tenants/a/program HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-a\r\ncontent-length: 9999\r\n\r\n";
    dripping.write_all(head.as_bytes()).unwrap();
    let mut writer = dripping.try_clone().unwrap();
    let drip = thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    // The server may reset the connection, since it has not read all: the first line of the answer is enough.
    let mut status = [0; 12];
    dripping.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    drop(dripping);
    drip.join().unwrap();
    assert!(listening.tenants.calls().is_empty());
}

#[test]
fn a_failure_is_reported_to_the_caller() {
    let listening = Listening::start(with_operator());
    let text = || "why".to_owned();
    for (error, status, word) in [
        (ReloadError::Program(text()), 422, "bad-program"),
        (ReloadError::Boot(text()), 422, "boot-failed"),
        (ReloadError::Violation(text()), 422, "boot-failed"),
        (ReloadError::Unhealthy(text()), 422, "unhealthy"),
        (ReloadError::Persist(text()), 500, "internal"),
        (ReloadError::Host(text()), 503, "unavailable"),
    ] {
        listening.tenants.fails_with(error);
        let response = listening.put("a", "key-a", b"x");
        assert_eq!((response.status, response.error().as_str()), (status, word));
        assert!(response.body.contains("why"), "{}", response.body);
    }
    listening.tenants.fails_with(ReloadError::NoPrevious);
    let response = listening.ask("POST /_mayfly/tenants/a/rollback", Some("key-a"));
    assert_eq!((response.status, response.error().as_str()), (409, "no-previous"));
    let response = listening.ask("POST /_mayfly/reload", Some("operator"));
    assert_eq!(response.status, 422);
    let body: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!((&body["file"]["changed"], &body["programs"][0]["error"]), (&false.into(), &"no-previous".into()));
}

#[test]
fn without_a_directory_there_are_no_uploads() {
    let listening = Listening::start(config(""));
    let response = listening.put("a", "key-a", b"x");
    assert_eq!((response.status, response.error().as_str()), (403, "uploads-are-off"));
    assert!(listening.tenants.calls().is_empty());
}

#[test]
fn concurrent_changes_are_bounded_and_reports_go_on() {
    let listening = Listening::start(with_operator());
    listening.tenants.set_gate(false);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| listening.ask("POST /_mayfly/tenants/a/reload", Some("key-a")).status))
            .collect();
        until(|| listening.tenants.calls().len() == 4);
        let response = listening.ask("POST /_mayfly/tenants/b/reload", Some("key-b"));
        assert_eq!((response.status, response.error().as_str()), (503, "busy"));
        assert!(response.head.contains("retry-after: 1"), "{}", response.head);
        assert_eq!(listening.put("b", "key-b", b"x").status, 503);
        assert_eq!(listening.ask("GET /_mayfly/status", Some("operator")).status, 200);
        listening.tenants.set_gate(true);
        for request in waiting {
            assert_eq!(request.join().unwrap(), 200);
        }
    });
    assert_eq!(listening.ask("POST /_mayfly/tenants/b/reload", Some("key-b")).status, 200);
}

#[test]
fn a_client_that_disconnects_frees_no_room_for_more_changes() {
    let listening = Listening::start(with_operator());
    listening.tenants.set_gate(false);
    for number in 1..=4 {
        let mut stream = listening.connect();
        let head = "POST /_mayfly/tenants/a/reload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-a\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        until(|| listening.tenants.calls().len() == number);
    }
    for _ in 0..3 {
        assert_eq!(listening.ask("POST /_mayfly/tenants/a/reload", Some("key-a")).status, 503);
    }
    assert_eq!(listening.tenants.calls().len(), 4);
    listening.tenants.set_gate(true);
    until(|| listening.ask("POST /_mayfly/tenants/a/reload", Some("key-a")).status == 200);
}

#[test]
fn readiness_needs_no_key() {
    let listening = Listening::start(with_operator());
    let ready = listening.ask("GET /_mayfly/ready", None);
    assert_eq!((ready.status, ready.body.trim_end()), (200, r#"{"booting":0,"ending":false,"failed":1,"ready":true}"#));
    *listening.tenants.0.readiness.lock().unwrap() = Readiness { booting: 3, ..Readiness::default() };
    let ready = listening.ask("GET /_mayfly/ready", None);
    assert_eq!(
        (ready.status, ready.body.trim_end()),
        (503, r#"{"booting":3,"ending":false,"failed":0,"ready":false}"#)
    );
    assert!(ready.head.contains("retry-after: 1"), "{}", ready.head);
}

#[test]
fn a_new_key_is_in_force_from_the_next_request_on() {
    let listening = Listening::start(with_operator());
    assert_eq!(listening.ask("GET /_mayfly/status", Some("operator")).status, 200);
    *listening.tenants.0.config.lock().unwrap() = Arc::new(config(&format!(r#", "key_sha256": "{}""#, digest("new"))));
    assert_eq!(listening.ask("GET /_mayfly/status", Some("operator")).status, 401);
    assert_eq!(listening.ask("GET /_mayfly/status", Some("new")).status, 200);
    let none = Config { admin: None, ..with_operator() };
    *listening.tenants.0.config.lock().unwrap() = Arc::new(none);
    assert_eq!(listening.ask("GET /_mayfly/status", Some("new")).status, 404);
    assert_eq!(listening.ask("GET /_mayfly/health", None).status, 200);
}

#[test]
fn a_public_listener_needs_its_key_until_it_has_moved() {
    let mut everywhere = with_operator();
    everywhere.admin.as_mut().unwrap().listen = "0.0.0.0:0".parse().unwrap();
    let listening = Listening::start(everywhere);
    *listening.tenants.0.config.lock().unwrap() = Arc::new(config(""));
    let port = listening.admin.address().unwrap().port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /_mayfly/status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
    assert_eq!(read(stream).status, 401);
}

#[test]
fn it_ends_while_clients_and_programs_are_slow() {
    let Listening { admin, tenants } = Listening::start(with_operator());
    let listening = Listening { admin, tenants: tenants.clone() };
    tenants.set_gate(false);
    let mut asked = listening.connect();
    asked
        .write_all(b"POST /_mayfly/tenants/a/reload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-a\r\n\r\n")
        .unwrap();
    let _silent = listening.connect();
    until(|| tenants.calls().len() == 1);
    let address = listening.admin.address().unwrap();
    let start = Instant::now();
    drop(listening);
    assert!(start.elapsed() < WAIT, "{:?}", start.elapsed());
    assert!(TcpStream::connect(address).is_err());
    tenants.set_gate(true);
}

#[test]
fn an_address_in_use_is_named() {
    let first = Listening::start(config(""));
    let mut config = config("");
    let address = first.admin.address().unwrap();
    config.admin.as_mut().unwrap().listen = address;
    let error = Admin::start_for(Fake::new(config), Patience::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("admin.listen: cannot listen on {address}: ")), "{error}");
}
