// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real server's programs, changed from outside: by upload, by file, by signal.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mayfly_admin::Admin;
use mayfly_tenancy::{Config, DeferredReply, LoopPool, Outcome, Request, ResponseSink, Server};
use serde_json::{Value, json};

/// SHA-256 of `key`.
const DIGEST: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
const WAIT: Duration = Duration::from_secs(30);

fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants").join(name).join(name);
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    program
}

/// A server with the tenant `shop`, whose program `shop` is a copy of `hello`.
struct Running {
    folder: tempfile::TempDir,
    server: Server,
    pool: LoopPool,
    admin: Admin,
}

impl Running {
    fn start(watch: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(program("hello"), folder.path().join("shop")).unwrap();
        let file = folder.path().join("tenants.json");
        let config = json!({
            "root": folder.path(), "watch": watch,
            "admin": {"listen": "127.0.0.1:0", "key_sha256": DIGEST, "uploads": "uploads", "upload_mib": 16},
            "tenants": [{"name": "shop", "program": "shop", "path": "/"}],
        });
        fs::write(&file, config.to_string()).unwrap();
        let server = Server::start(Config::from_file(&file).unwrap()).unwrap();
        let pool = server.loop_pool();
        let admin = Admin::start(&server).unwrap();
        Self { folder, server, pool, admin }
    }

    /// The body of the tenant's answer.
    fn page(&mut self) -> String {
        let request = Request { method: b"GET", path: b"/x", query: b"", headers: &[], body: b"", client: None };
        let end = Instant::now() + WAIT;
        loop {
            let mut page = Page::default();
            if self.pool.call(&request, &mut page) == Outcome::Done && page.status == 200 {
                return String::from_utf8(page.body).unwrap();
            }
            assert!(Instant::now() < end, "{}", page.status);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn until_the_page_is(&mut self, is: impl Fn(&str) -> bool) {
        let end = Instant::now() + WAIT;
        while !is(&self.page()) {
            assert!(Instant::now() < end, "it does not change in time");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ask(&self, request: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin.address().unwrap()).unwrap();
        let size = body.len();
        let head =
            format!("{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn replace_program(&self, name: &str) {
        let new = self.folder.path().join("shop.new");
        fs::copy(program(name), &new).unwrap();
        fs::rename(new, self.folder.path().join("shop")).unwrap();
    }
}

#[derive(Default)]
struct Page {
    status: u16,
    body: Vec<u8>,
}

impl ResponseSink for Page {
    fn body(&mut self, len: usize) -> &mut [u8] {
        self.body = vec![0; len];
        &mut self.body
    }

    fn status(&mut self, status: u16) {
        self.status = status;
    }

    fn header(&mut self, _: &[u8], _: &[u8]) {}
}

impl DeferredReply for Page {
    fn send(self: Box<Self>) {}
}

fn is_echo(page: &str) -> bool {
    serde_json::from_str::<Value>(page).is_ok_and(|page| page["method"] == "GET")
}

#[test]
fn uploads_roll_forward_and_back() {
    let mut running = Running::start(false);
    assert!(!is_echo(&running.page()));
    let echo = fs::read(program("echo")).unwrap();
    let (status, body) = running.ask("PUT /_mayfly/tenants/shop/program", &echo);
    assert_eq!(status, 200, "{body}");
    assert!(is_echo(&running.page()));

    let (status, body) = running.ask("PUT /_mayfly/tenants/shop/program", b"no program");
    assert_eq!(status, 422, "{body}");
    let error: Value = serde_json::from_str(&body).unwrap();
    assert!(error["reason"].as_str().unwrap().contains("ELF"), "{body}");
    assert!(is_echo(&running.page()));

    let (status, body) = running.ask("POST /_mayfly/tenants/shop/rollback", b"");
    assert_eq!(status, 200, "{body}");
    assert!(!is_echo(&running.page()));

    let (status, body) = running.ask("GET /_mayfly/status", b"");
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &report["tenants"][0]["name"]), (200, &"shop".into()));
    let (_, metrics) = running.ask("GET /_mayfly/metrics", b"");
    for line in [
        "mayfly_tenant_reloads_total{tenant=\"shop\"} 2",
        "mayfly_tenant_reload_failures_total{tenant=\"shop\"} 1",
        "mayfly_tenant_ready{tenant=\"shop\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in {metrics}");
    }
    // The host decides on the engine.
    let engine = report["tenants"][0]["engine"].as_str().unwrap();
    let line = format!("mayfly_tenant_info{{tenant=\"shop\",mode=\"ephemeral\",engine=\"{engine}\"}} 1");
    assert!(metrics.lines().any(|other| other == line), "{line} is not in {metrics}");
    running.server.shutdown();
}

#[test]
fn a_replaced_program_is_served_and_a_broken_one_is_not() {
    let mut running = Running::start(true);
    running.replace_program("echo");
    running.until_the_page_is(is_echo);
    let new = running.folder.path().join("shop.new");
    fs::write(&new, "no program").unwrap();
    fs::rename(new, running.folder.path().join("shop")).unwrap();
    let end = Instant::now() + WAIT;
    while running.server.report().tenants[0].reload_failures == 0 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(is_echo(&running.page()));
    running.replace_program("hello");
    running.until_the_page_is(|page| !is_echo(page));
    running.server.shutdown();
}

#[test]
fn sighup_and_the_operator_reload_at_once() {
    let mut running = Running::start(false);
    running.replace_program("echo");
    assert!(Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status().unwrap().success());
    running.until_the_page_is(is_echo);
    running.replace_program("hello");
    let (status, body) = running.ask("POST /_mayfly/reload", b"");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["file"]["changed"], &body["programs"][0]["tenant"]), (&false.into(), &"shop".into()));
    assert!(!is_echo(&running.page()));
    running.server.shutdown();
}
