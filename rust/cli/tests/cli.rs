// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command as a user meets it: output, errors, exit status.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn mayfly() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mayfly"))
}

fn tenant(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants").join(name).join(name);
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    program
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs a command that is expected to fail; returns its standard error.
fn fails(command: &mut Command, status: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{}{}", stdout(&output), stderr(&output));
    stderr(&output).to_owned()
}

#[test]
fn help_names_every_command() {
    let output = mayfly().arg("--help").output().unwrap();
    assert!(output.status.success());
    for command in ["run", "bench", "bench-routes", "check", "info"] {
        assert!(stdout(&output).contains(&format!("\n  {command}")), "{}", stdout(&output));
        assert!(mayfly().args([command, "--help"]).output().unwrap().status.success());
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    assert!(mayfly().arg("generate").arg(folder.path()).status().unwrap().success());
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    for completions in ["mayfly.bash", "_mayfly", "mayfly.fish"] {
        assert!(text(completions).contains("bench-routes") && text(completions).contains("warm-up"), "{completions}");
    }
    for command in ["run", "bench", "bench-routes", "new", "check", "snapshot", "info"] {
        assert!(text("mayfly.1").contains(&command.replace('-', "\\-")), "{command}");
        assert!(text(&format!("mayfly-{command}.1")).starts_with(".ie"), "{command}");
    }
    assert!(text("mayfly-run.1").contains("listen"));
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for arguments in [
        &[][..],
        &["walk"],
        &["run"],
        &["run", "p", "--listen", "nowhere"],
        &["run", "p", "--threads", "0"],
        &["run", "p", "--env", "A"],
        &["bench", "p", "--requests", "0"],
        &["check"],
    ] {
        fails(mayfly().args(arguments), 2);
    }
    let message = fails(mayfly().args(["run", "p", "--limit", "cpu_ms=0"]), 2);
    assert!(message.starts_with("mayfly: limits.cpu_ms: ") && message.contains("from 1 to 60000"), "{message}");
    let message = fails(mayfly().args(["bench", "p", "--limit", "colour=1"]), 2);
    assert!(message.starts_with("mayfly: limits.colour: unknown field"), "{message}");
}

#[test]
fn a_program_that_cannot_be_run_is_status_1_and_the_cause_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let hello = fs::read(tenant("hello")).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let mut foreign = hello.clone();
    foreign[18] = 183; // e_machine: AArch64
    for (program, cause) in [
        (folder.path().join("none"), "No such file"),
        (folder.path().to_owned(), "directory"),
        (file("script", b"#!/bin/sh\n"), "name the program that runs it (/bin/sh) as the program"),
        (file("app.py", b"import app\n"), "a text, not an ELF file: if it is a script, name the program that runs it"),
        (file("app.jar", b"PK\x03\x04"), "name the program that runs it (java, python3"),
        (file("short", &hello[..100]), ""),
        (file("foreign", &foreign), ""),
    ] {
        for command in ["run", "bench"] {
            let message = fails(mayfly().arg(command).arg(&program), 1);
            let last = message.lines().last().unwrap();
            assert!(last.starts_with("mayfly: ") && last.contains(cause), "{message}");
        }
    }
    let faults = tenant("faults");
    for (arguments, cause) in [
        (&["--", "boot:exit=7"][..], "exited with status 7"),
        (&["--limit", "boot_ms=200", "--", "boot:loop"], "within 200ms"),
        (&["--limit", "boot_memory_mib=8", "--", "boot:alloc-mmap"], "8388608 bytes of memory"),
    ] {
        let message = fails(mayfly().arg("bench").arg(&faults).args(arguments), 1);
        assert!(message.contains(cause), "{message}");
    }
    let message = fails(mayfly().arg("bench").arg(&faults).args(["--path", "/exit?3"]), 1);
    assert!(
        message.contains("not measured: the requests before the measurement: ")
            && message.contains("exited with status 3"),
        "{message}"
    );
}

#[test]
fn without_the_engine_that_is_asked_for_the_status_is_3_and_the_message_says_what_to_do() {
    let without_kvm = || {
        let mut mayfly = mayfly();
        mayfly.env("MAYFLY_KVM_PATH", "/nonexistent/kvm");
        mayfly
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.json");
    let text = json!({"snapshots": folder.path(), "tenants": [{"name": "a", "path": "/", "program": tenant("hello")}]});
    fs::write(&file, text.to_string()).unwrap();
    let snapshot: Vec<_> =
        ["snapshot", "--tenant", "a", "--config"].map(PathBuf::from).into_iter().chain([file]).collect();
    for arguments in [vec!["run".into(), tenant("hello")], vec!["bench".into(), tenant("hello")], snapshot] {
        let message = fails(without_kvm().args(arguments).args(["--engine", "kvm"]), 3);
        let last = message.lines().last().unwrap();
        assert!(last.starts_with("mayfly: ") && last.contains("/nonexistent/kvm does not exist"), "{message}");
    }
    let message = fails(without_kvm().env("MAYFLY_ENGINE", "kvm").arg("info"), 3);
    assert!(message.contains("/nonexistent/kvm does not exist"), "{message}");
    let message = fails(mayfly().env("MAYFLY_ENGINE", "xen").arg("info"), 3);
    assert!(message.contains("`xen`") && message.contains("auto, kvm or process"), "{message}");
}

#[test]
fn without_kvm_programs_run_in_processes() {
    let without_kvm = |device: &str, arguments: &[&str]| {
        let mut mayfly = mayfly();
        let output =
            mayfly.env("MAYFLY_KVM_PATH", device).env("MAYFLY_ENGINE", "auto").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).to_owned()
    };
    for device in ["/nonexistent/kvm", "/dev/null"] {
        let info: Value = serde_json::from_str(&without_kvm(device, &["info", "--json"])).unwrap();
        assert_eq!((&info["usable"], &info["auto"]["engine"]), (&true.into(), &"process".into()));
        assert_eq!((&info["host"]["engine"], &info["host"]["kvm"]), (&"process".into(), &"none".into()));
        assert_eq!(info["engines"]["kvm"]["usable"], false);
        assert!(info["engines"]["kvm"]["details"].as_str().unwrap().contains(device), "{info}");
    }
    let text = without_kvm("/nonexistent/kvm", &["info"]);
    assert!(text.contains("kvm          cannot be used: /nonexistent/kvm does not exist"), "{text}");
    assert!(text.contains("auto         process: KVM cannot be used"), "{text}");
    let hello = tenant("hello");
    let bench = without_kvm("/nonexistent/kvm", &["bench", hello.to_str().unwrap(), "--requests", "100", "--json"]);
    let figures: Value = serde_json::from_str(&bench).unwrap();
    assert_eq!((&figures["ioctls_per_request"], &figures["host"]["engine"]), (&Value::Null, &"process".into()));
    assert!(["floor_us", "call_reset_us", "create_vm_us"].iter().all(|key| figures[key].as_f64().unwrap() > 0.0));
}

#[test]
fn check_accepts_good_files_and_names_the_errors_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.json");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        mayfly().arg("check").arg(&file).output().unwrap()
    };
    let hello = tenant("hello");
    let good =
        format!("{{ // one tenant\n \"tenants\": [{{\"name\": \"a\", \"program\": {hello:?}, \"path\": \"/a\"}}]}}");
    let output = check(&good);
    assert!(output.status.success() && stdout(&output).contains("1 tenant, 1 route, no error"), "{output:?}");

    let output = check(&good.replace("\"path\"", "\"paht\""));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("tenants.json:2:"), "{}", stderr(&output));
    assert!(stderr(&output).contains(": tenants[0].paht: unknown field `paht`"), "{}", stderr(&output));

    let output = check(&good.replace("hello/hello", "hello/none"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("tenant a: cannot read the program") && stderr(&output).contains("none"),
        "{}",
        stderr(&output)
    );

    let message = fails(mayfly().args(["check", "/nonexistent.json"]), 2);
    assert!(message.contains("/nonexistent.json") && message.contains("No such file"), "{message}");
}

#[test]
fn check_prints_the_published_schema() {
    let output = mayfly().args(["check", "--schema"]).output().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tenants.schema.json");
    assert!(output.status.success() && stdout(&output) == fs::read_to_string(published).unwrap());
    fails(mayfly().args(["check", "--schema", "file"]), 2);
}

#[test]
fn check_warns_of_watched_files_that_do_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let (file, hello) = (folder.path().join("tenants.json"), tenant("hello"));
    fs::create_dir(folder.path().join("app")).unwrap();
    fs::write(folder.path().join("app/there.mjs"), "").unwrap();
    let text = format!(
        r#"{{"root": {:?}, "tenants": [{{"name": "a", "program": {hello:?}, "path": "/", "mounts": [{{"host": "app", "at": "/srv"}}],
           "watch": ["/srv/there.mjs", "/srv/not.mjs"]}}]}}"#,
        folder.path()
    );
    fs::write(&file, &text).unwrap();
    let output = mayfly().arg("check").arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let doubts = stderr(&output);
    assert!(doubts.contains("tenant a: warning: `watch` names") && doubts.contains("app/not.mjs"), "{doubts}");
    assert_eq!(doubts.lines().count(), 1, "{doubts}");
    fs::write(&file, text.replace("/srv/not.mjs", "/elsewhere")).unwrap();
    let refused = fails(mayfly().arg("check").arg(&file), 2);
    assert!(refused.contains("tenants[0].watch[1]: ") && refused.contains("none of the tenant's mounts"), "{refused}");
}

#[test]
fn check_prints_every_route() {
    let folder = tempfile::tempdir().unwrap();
    let (file, hello) = (folder.path().join("tenants.json"), tenant("hello"));
    let tenants = format!(
        r#"[{{"name": "a", "program": {hello:?}, "hosts": ["x", "*.y"], "path": "/p", "default": true, "reset_every": 9}}]"#
    );
    fs::write(&file, format!(r#"{{"admin": {{"uploads": "up"}}, "tenants": {tenants}}}"#)).unwrap();
    let output = mayfly().arg("check").arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<_> = stdout(&output).lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0][..3], ["x/p", "a", "reset-every-9"]);
    assert_eq!(lines[1][..2], ["*.y/p", "a"]);
    assert_eq!(lines[2][..2], ["(default)", "a"]);
    assert!(stdout(&output).contains("operators: http://127.0.0.1:8081/_mayfly/, without a key"), "{output:?}");
    assert!(stdout(&output).ends_with("1 tenant, 2 routes, no error\n"), "{output:?}");
}

#[test]
fn a_snapshot_is_made_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (file, hello) = (folder.path().join("tenants.json"), tenant("hello"));
    let kept = folder.path().join("frozen");
    let text = format!(r#"{{"snapshots": {kept:?}, "tenants": [{{"name": "a", "program": {hello:?}, "path": "/"}}]}}"#);
    fs::write(&file, text).unwrap();
    let snapshot = |more: &[&str]| mayfly().args(["snapshot", "--config"]).arg(&file).args(more).output().unwrap();
    let output = snapshot(&["--tenant", "a"]);
    assert!(output.status.success(), "{output:?}");
    let name = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().file_name();
    assert!(stdout(&output).contains(name.to_str().unwrap()), "{output:?}");
    let out = folder.path().join("out");
    assert!(snapshot(&["--tenant", "a", "--out", out.to_str().unwrap()]).status.success() && out.exists());
    assert_eq!(snapshot(&["--tenant", "b"]).status.code(), Some(2));
    let output = mayfly().arg("check").arg(&file).output().unwrap();
    assert!(stdout(&output).contains(&format!("snapshots: {}", kept.display())), "{output:?}");
}

#[test]
fn bench_routes_prints_its_figures() {
    let output = mayfly().args(["bench-routes", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["tenants"], 10_000);
    for table in ["by_path", "by_host"] {
        for key in ["one_ns", "many_ns", "many_in_turn_ns"] {
            assert!(figures[table][key].as_f64().unwrap() > 0.0, "{table}.{key}");
        }
    }
    let output = mayfly().arg("bench-routes").output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("all of them in turn"), "{output:?}");
}

#[test]
fn info_describes_the_host() {
    let output = mayfly().args(["info", "--json"]).output().unwrap();
    assert!(output.status.success(), "these tests need a usable engine: {}", stderr(&output));
    let info: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(info["usable"], true);
    assert!(["paging", "hardware", "none"].contains(&info["host"]["kvm"].as_str().unwrap()));
    let engine = info["auto"]["engine"].as_str().unwrap();
    assert_eq!((&info["host"]["engine"], &info["engines"][engine]["usable"]), (&engine.into(), &true.into()));
    let output = mayfly().arg("info").output().unwrap();
    assert!(stdout(&output).contains(info["host"]["kernel"].as_str().unwrap()));
}

#[test]
fn bench_prints_every_figure_and_marks_its_steady_state() {
    let bench = || {
        let mut command = mayfly();
        // System calls are counted for KVM only.
        command.arg("bench").arg(tenant("hello")).args(["--requests", "200", "--engine", "kvm"]);
        command
    };
    let output = bench().arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "mayfly-bench: steady begin\nmayfly-bench: steady end\n");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<_> = figures.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "boot_ms",
        "call_reset_us",
        "call_us",
        "cpu_us",
        "create_vm_us",
        "exits_per_request",
        "floor_us",
        "fork_us",
        "host",
        "ioctls_per_request",
        "latency_us",
        "memcpy_ns_per_page",
        "overhead_equals_ns",
        "overhead_ns",
        "program",
        "requests",
        "reset_ns_per_page",
        "reset_us",
        "rounds",
        "snapshot_first_response_ms",
        "snapshot_mib",
        "tenant",
        "worker_private_kib",
        "worker_served_private_kib",
        "worker_served_total_kib",
        "worker_total_kib",
        "workset_pages",
    ];
    assert_eq!(keys, expected);
    assert_eq!(figures["exits_per_request"], 1.0);
    assert_eq!(figures["requests"], 200);
    for key in
        ["floor_us", "call_us", "reset_us", "fork_us", "create_vm_us", "worker_private_kib", "memcpy_ns_per_page"]
    {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key}: {}", figures[key]);
    }
    for key in ["p50", "p90", "p99", "p999"] {
        assert!(figures["latency_us"][key].as_f64().unwrap() > 0.0);
    }
    let output = bench().output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("above the floor"), "{output:?}");
}

#[test]
fn bench_measures_a_tenant_as_its_file_configures_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.json");
    let (hello, faults, visits) = (tenant("hello"), tenant("faults"), tenant("visits"));
    let text = format!(
        r#"{{ "tenants": [
            {{ "name": "other", "path": "/other", "program": "/none" }},
            {{ "name": "kept", "path": "/kept", "program": {visits:?}, "ephemeral": false }},
            {{ "name": "exits", "path": "/exits", "program": {faults:?}, "args": ["boot:exit=7"] }},
            {{ "name": "asks", "path": "/asks", "program": {hello:?}, "storage": {{ "program": {hello:?} }} }}
        ] }}"#
    );
    fs::write(&file, text).unwrap();
    let bench = |tenant: &str| {
        let mut command = mayfly();
        command.args(["bench", "--requests", "100000", "--seconds", "1", "--tenant", tenant, "--config"]).arg(&file);
        command
    };
    let output = bench("kept").arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["tenant"], "kept");
    assert_eq!(figures["program"], visits.to_str().unwrap());
    assert_eq!(figures["overhead_ns"], Value::Null);
    assert!((20..100_000).contains(&figures["requests"].as_u64().unwrap()), "{}", figures["requests"]);
    for key in ["cpu_us", "snapshot_mib", "worker_private_kib", "worker_served_private_kib", "boot_ms"] {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key}: {}", figures[key]);
    }
    let output = bench("kept").output().unwrap();
    assert!(stdout(&output).contains("visits as kept: ") && stdout(&output).contains("shared by all workers"));

    assert!(fails(&mut bench("other"), 1).contains("/none"));
    assert!(fails(&mut bench("exits"), 1).contains("exited with status 7"));
    assert!(fails(&mut bench("nobody"), 2).contains("no tenant is called nobody"));
    assert!(fails(&mut bench("asks"), 2).contains("asks has a storage program"));
}

#[test]
fn bench_measures_slow_requests_in_a_bounded_time_and_says_what_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.json");
    let (spin, listens) = (tenant("spin"), tenant("listens"));
    let bench = |arguments: &[&str]| {
        let begun = Instant::now();
        let output = mayfly().arg("bench").args(arguments).args(["--seconds", "2", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
        (figures, stderr(&output).to_owned())
    };
    // Some ten milliseconds of work.
    let (figures, said) = bench(&[spin.to_str().unwrap(), "--path", "/spin?loops=20000000", "--progress"]);
    assert!((3..1_000).contains(&figures["requests"].as_u64().unwrap()), "{figures}");
    assert!(figures["call_us"].as_f64().unwrap() > 1_000.0 && figures["worker_total_kib"].is_f64(), "{figures}");
    assert_eq!((&figures["overhead_ns"], &figures["failed"]), (&Value::Null, &Value::Null));
    assert!(said.contains("mayfly: measures ") || said.contains("mayfly: has measured "), "{said}");
    // A request that sleeps leaves its loop each time.
    let text =
        json!({"tenants": [{"name": "a", "path": "/", "program": listens, "args": ["epoll"], "serve": "connections"}]});
    fs::write(&file, text.to_string()).unwrap();
    let (figures, said) = bench(&["--config", file.to_str().unwrap(), "--tenant", "a", "--path", "/sleep?5"]);
    assert!(figures["call_us"].as_f64().unwrap() > 5_000.0, "{figures}");
    assert_eq!(said, "mayfly-bench: steady begin\nmayfly-bench: steady end\n", "no progress without a terminal");
}

#[test]
fn bench_prints_what_it_has_measured_before_a_step_fails() {
    // A snapshot file cannot be written.
    let output = mayfly()
        .arg("bench")
        .arg(tenant("hello"))
        .args(["--requests", "100", "--seconds", "1", "--json"])
        .env("TMPDIR", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output).lines().last().unwrap().to_owned();
    assert!(message.starts_with("mayfly: not measured: the first response from a snapshot file: "), "{message}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["failed"], message.strip_prefix("mayfly: ").unwrap());
    assert!(figures["call_us"].is_f64() && figures["fork_us"].is_f64() && figures["cpu_us"].is_f64(), "{figures}");
    assert_eq!(figures["snapshot_first_response_ms"], Value::Null);
    // Requests fail: the boot was measured.
    let output = mayfly().arg("bench").arg(tenant("faults")).args(["--path", "/exit?3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("\n  boot ") && !stdout(&output).contains("floor"), "{output:?}");
}

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
fn run_reports_an_address_in_use() {
    let running = Running::start(&tenant("hello"), &[]);
    let message = fails(mayfly().arg("run").arg(tenant("hello")).args(["--listen", &running.address]), 2);
    assert!(message.contains(&running.address) && message.contains("in use"), "{message}");
}
