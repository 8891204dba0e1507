// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command as a user meets it: output, errors, exit status.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::*;

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
    let message = fails(mayfly().args(["run", "--limit", "cpu_ms=5"]), 2);
    assert!(
        message.starts_with("mayfly: there is nothing to run: ") && message.contains("no mayfly.json"),
        "{message}"
    );
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
        (&["--limit", "boot_ms=200", "--", "boot:loop"], "the limit boot_ms)"),
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
