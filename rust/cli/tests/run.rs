// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly run`: what its server answers, and how it ends.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::*;

/// `mayfly run` while a test talks to it.
struct Running {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    address: String,
}

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = mayfly();
        command.arg("run").arg(program).args(arguments);
        Self::start_with(command)
    }

    fn start_with(mut command: Command) -> Self {
        command.args(["--listen", "127.0.0.1:0", "--threads", "2"]);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address =
            line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
        if address.is_empty() {
            let mut message = String::new();
            child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
            panic!("not started: {message}");
        }
        Self { child, _stdout: stdout, address }
    }

    /// Sends raw requests on one connection, the last one with `connection: close`. Returns all that is received.
    fn talk(&self, requests: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(requests).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, target: &str) -> String {
        self.get_from("x", target)
    }

    fn get_from(&self, host: &str, target: &str) -> String {
        self.talk(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn run_serves_whole_requests_over_persistent_connections() {
    let running = Running::start(&tenant("echo"), &[]);
    let answer = running.talk(
        b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n\
          HEAD /second HTTP/1.1\r\nhost: x\r\n\r\n\
          PUT /a%20b/c?x=1&y HTTP/1.1\r\nHost: shop\r\nX-Twice: 1\r\nX-Twice: 2\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody",
    );
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    let last = answer.rsplit("\r\n\r\n").next().unwrap();
    let echo: Value = serde_json::from_str(last).unwrap();
    assert_eq!(
        (&echo["method"], &echo["path"], &echo["query"]),
        (&"PUT".into(), &"/a%20b/c".into(), &"x=1&y".into()),
        "{echo}"
    );
    assert!(last.contains("x-twice") && last.contains("shop") && last.contains("body"), "{last}");
}

#[test]
fn run_serves_only_the_named_port() {
    let run = |port: &[&str]| {
        let mut command = mayfly();
        command.args(["run", "--serve", "connections", "--listen", "127.0.0.1:0"]).args(port).arg(tenant("doors"));
        command.args(["--", "listen=127.0.0.1:2019", "later=50,[::]:8080", "tick=20"]);
        command
    };
    for (port, who) in [("8080", "1 [::]:8080 "), ("2019", "0 127.0.0.1:2019 ")] {
        let answer = Running::of(run(&["--program-port", port])).get("/who");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("\r\n\r\n{who}")), "{answer}");
    }
    let output = run(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("listens on 127.0.0.1:2019, then [::]:8080: ") && said.contains("--program-port"), "{said}");
}

/// The program becomes ready 300 ms after it listens.
#[test]
fn run_waits_for_a_server_to_be_ready_and_asks_for_its_hooks() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenancy/tests/programs");
    let run = |more: &[&str]| {
        let mut command = mayfly();
        command.args(["run", "--serve", "connections", "--program-port", "8000", "--listen", "127.0.0.1:0"]);
        command.args(["--mount", "/lib", "--mount", "/lib64", "--mount", "/usr", "--settle-ms", "0"]);
        command.arg("--mount").arg(format!("{}:/app", programs.display())).args(more);
        command.args(["/usr/bin/python3", "--", "-S", "-B", "/app/moment.py"]);
        command
    };
    let running = Running::of(run(&["--ready", "/ready", "--before-freeze", "/drain", "--after-restore", "/restore"]));
    for _ in 0..2 {
        let answer = running.get("/state");
        assert!(answer.contains("ready=True") && answer.contains("restored=1"), "{answer}");
    }
    let message = fails(&mut run(&["--before-freeze", "/fail"]), 1);
    assert!(message.contains("\"before_freeze\": GET /fail answered 500"), "{message}");
}

#[test]
fn run_names_the_programs_length_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("tenants.json"), tenant("listens"));
    let text = format!(
        r#"{{"tenants": [{{"name": "a", "program": {program:?}, "args": ["epoll"], "serve": "connections", "path": "/"}}]}}"#
    );
    fs::write(&file, text).unwrap();
    let mut command = mayfly();
    command.args(["run", "--config"]).arg(&file);
    let running = Running::start_with(command);
    for (request, length) in [
        ("HEAD /bare?200", None),
        ("HEAD /bare?200,17", Some("17")),
        ("HEAD /bare?200,10000000000", Some("10000000000")),
        ("HEAD /chunked", None),
        ("GET /bare?304", None),
        // Hyper leaves it out, which HTTP allows.
        ("GET /bare?304,17", None),
        ("GET /bare?204,17", None),
        ("GET /chunked", Some("12")),
    ] {
        let answer = running.talk(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        let head = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
        let named: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
        assert_eq!(named, Vec::from_iter(length), "{request}: {answer}");
        assert!(!head.contains("transfer-encoding"), "{request}: {answer}");
    }
}

#[test]
fn run_survives_its_programs_faults_and_ends_on_a_signal() {
    let mut running = Running::start(&tenant("faults"), &["--limit", "cpu_ms=500", "--limit", "request_kib=8"]);
    for (target, status) in
        [("/exit", "502"), ("/null", "502"), ("/loop", "504"), ("/body-null", "502"), ("/ok", "200")]
    {
        for _ in 0..3 {
            let answer = running.get(target);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
        }
    }
    let large =
        [b"POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\nconnection: close\r\n\r\n", &[b'x'; 9000][..]]
            .concat();
    let answer = running.talk(&large);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("request-too-large"), "{answer}");
    // A client that waits for "100 Continue" does not get it.
    let answer = running.talk(
        b"POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("limit request_kib, 8 KiB"), "{answer}");
    assert!(running.get("/ok").starts_with("HTTP/1.1 200 "));
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn run_serves_all_tenants_of_a_file_and_changes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tenants.json");
    let tenants = |hosts: &str| {
        let (hello, echo) = (tenant("hello"), tenant("echo"));
        format!(
            r#"{{ "tenants": [
                // By host, and by path for all hosts.
                {{ "name": "hello", "program": {hello:?}, "hosts": [{hosts:?}] }},
                {{ "name": "echo", "program": {echo:?}, "path": "/echo", "limits": {{ "request_kib": 8 }} }}
            ] }}"#
        )
    };
    fs::write(&file, tenants("hello.example")).unwrap();
    let mut command = mayfly();
    command.args(["run", "--config"]).arg(&file);
    let mut running = Running::start_with(command);
    assert!(running.get_from("Hello.Example:80", "/any").ends_with("Hello World!"));
    assert!(running.get_from("x", "/echo/a").contains(r#""path":"/echo/a""#));
    assert!(running.get_from("x", "/any").contains("no-such-route"));
    // Above the limit of the one tenant, though not of the other.
    let large =
        [b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\nconnection: close\r\n\r\n", &[b'x'; 9000][..]];
    assert!(running.talk(&large.concat()).contains("request-too-large"));

    fs::write(directory.path().join("new"), tenants("*.example")).unwrap();
    fs::rename(directory.path().join("new"), &file).unwrap();
    running.signal("-HUP");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !running.get_from("a.example", "/").ends_with("Hello World!") {
        assert!(Instant::now() < deadline, "the new file is not in force");
        thread::sleep(Duration::from_millis(20));
    }
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn run_refuses_a_wrong_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tenants.json");
    fs::write(&file, "{\n \"tenants\": [],\n \"tennants\": []\n}").unwrap();
    let message = fails(mayfly().args(["run", "--config"]).arg(&file), 2);
    assert!(message.contains("tenants.json:3:") && message.contains("tennants"), "{message}");
}

#[test]
fn run_in_a_project_refuses_what_its_file_sets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mayfly.json"), r#"{"tenants": []}"#).unwrap();
    let arguments = ["run", "--limit", "cpu_ms=5", "--warm-up", "/", "--", "x"];
    let message = fails(mayfly().current_dir(folder.path()).args(arguments), 2);
    assert!(message.contains("mayfly.json would be served"), "{message}");
    assert!(message.contains("put --warm-up, --limit, arguments after -- there, or name the program"), "{message}");
}

#[test]
fn run_reports_an_address_in_use() {
    let running = Running::start(&tenant("hello"), &[]);
    let message = fails(mayfly().arg("run").arg(tenant("hello")).args(["--listen", &running.address]), 2);
    assert!(message.contains(&running.address) && message.contains("in use"), "{message}");
}
