// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly bench`: its figures, and what it says of those that it could not measure.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::*;

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
    let is_progress = |line: &str| line.starts_with("mayfly: ") && line.contains(", after ") && line.ends_with(" s");
    assert!(said.lines().any(is_progress), "{said}");
    // A request that sleeps leaves its loop each time.
    let text =
        json!({"tenants": [{"name": "a", "path": "/", "program": listens, "args": ["epoll"], "serve": "connections"}]});
    fs::write(&file, text.to_string()).unwrap();
    let (figures, said) = bench(&["--config", file.to_str().unwrap(), "--tenant", "a", "--path", "/sleep?5"]);
    assert!(figures["call_us"].as_f64().unwrap() > 5_000.0, "{figures}");
    assert_eq!(said, "mayfly-bench: steady begin\nmayfly-bench: steady end\n", "no progress without a terminal");
}

#[test]
fn bench_measures_a_program_that_has_no_snapshot_files() {
    let data = tempfile::tempdir().unwrap();
    let mount = format!("{}:/data:durable", data.path().display());
    let output = mayfly()
        .arg("bench")
        .arg(tenant("hello"))
        .args(["--mount", &mount, "--requests", "100", "--seconds", "1", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["failed"], &figures["snapshot_first_response_ms"]), (&Value::Null, &Value::Null));
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
    // No descriptors are left for idle workers. The host does run the program, so this is no failure of the host.
    let command = format!(
        "ulimit -n 80; exec {} bench {} --requests 100",
        env!("CARGO_BIN_EXE_mayfly"),
        tenant("hello").display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("\n  call and reset "), "{output:?}");
    assert!(stderr(&output).contains("not measured: the memory of idle workers: cannot fork a worker"), "{output:?}");
    // Requests fail: the boot was measured.
    let output = mayfly().arg("bench").arg(tenant("faults")).args(["--path", "/exit?3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("\n  boot ") && !stdout(&output).contains("floor"), "{output:?}");
}
