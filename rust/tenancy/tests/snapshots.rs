// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots that a server keeps for its next start.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_sandbox::NoLog;
use mayfly_tenancy::{Config, ReloadError, Server, TenantState};
use serde_json::{Value, json};
use support::*;

fn sample(name: &str) -> PathBuf {
    faults().parent().unwrap().join(format!("../{name}/{name}"))
}

/// A server with one tenant, `a`, whose snapshots are in `directory`.
fn config(directory: &Path, program: &Path, more: Value) -> Value {
    let mut tenant = json!({"name": "a", "path": "/", "program": program, "limits": {"inline_budget_us": 1_000_000}});
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"snapshots": directory, "tenants": [tenant]})
}

/// How the current generation was booted, and its number.
fn booted_from(server: &Server) -> (&'static str, u64) {
    match report(server, "a").state {
        TenantState::Ready { booted_from, generation, .. } => (booted_from, generation),
        other => panic!("{other:?}"),
    }
}

/// The snapshots in a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "snapshot"));
    files.sort();
    files
}

/// Starts a server, sends it a request, and waits until there are `count` snapshots. Returns how the program was
/// booted, and the answer.
fn serve_once(config: &Value, count: usize) -> (&'static str, Vec<u8>) {
    serve_until(config, |files| files.len() == count)
}

fn serve_until(config: &Value, saved: impl Fn(&[PathBuf]) -> bool) -> (&'static str, Vec<u8>) {
    let directory = Path::new(config["snapshots"].as_str().unwrap()).to_owned();
    let server = start_with(config.clone());
    let from = booted_from(&server).0;
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/x");
    let body = get(&mut pool, "/x").body;
    wait_until("the snapshot is saved", || saved(&files(&directory)));
    drop(pool);
    server.shutdown();
    (from, body)
}

#[test]
fn a_restart_serves_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("made/on/demand");
    let config = config(&directory, &sample("hello"), json!({}));
    let (from, body) = serve_once(&config, 1);
    assert_eq!(from, "program");
    let saved = fs::metadata(&files(&directory)[0]).unwrap().modified().unwrap();
    for _ in 0..2 {
        assert_eq!(serve_once(&config, 1), ("snapshot", body.clone()));
    }
    assert_eq!(
        fs::metadata(&files(&directory)[0]).unwrap().modified().unwrap(),
        saved,
        "a valid file is not written again"
    );

    let server = start_with(config.clone());
    assert!(server.metrics().contains("mayfly_tenant_booted_from_snapshot{tenant=\"a\"} 1"));
    let status = serde_json::to_value(server.report()).unwrap();
    assert_eq!(status["tenants"][0]["booted_from"], "snapshot");
    // A reload boots the program instead of loading the snapshot.
    server.reload("a").unwrap();
    assert_eq!(booted_from(&server), ("program", 2));
    server.rollback("a").unwrap();
    assert_eq!(booted_from(&server), ("snapshot", 3));
}

#[test]
fn a_damaged_file_is_refused_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &sample("hello"), json!({}));
    let (_, body) = serve_once(&config, 1);
    let file = files(folder.path()).remove(0);
    let good = fs::read(&file).unwrap();
    for (at, how) in [(0, "foreign"), (8, "older"), (5000, "damaged"), (good.len() - 1, "damaged, too")] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        let server = start_with(config.clone());
        assert_eq!(booted_from(&server).0, "program", "{how}");
        let mut pool = server.loop_pool();
        wait_for_worker(&mut pool, "/x");
        assert_eq!(get(&mut pool, "/x").body, body, "{how}");
        wait_until("a valid snapshot replaces it", || fs::read(&file).unwrap() != bad);
        drop(pool);
        server.shutdown();
        assert_eq!(serve_once(&config, 1), ("snapshot", body.clone()), "{how}");
    }
    // A truncated file.
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert_eq!(serve_once(&config, 1).0, "program");
}

#[test]
fn each_program_and_each_configuration_has_its_own_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("snapshots");
    let program = folder.path().join("program");
    let install = |name| {
        fs::copy(sample(name), folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("new"), &program).unwrap();
    };
    let config = |more| config(&directory, &program, more);
    install("hello");
    assert_eq!(serve_once(&config(json!({})), 1).0, "program");
    install("echo");
    assert_eq!(serve_once(&config(json!({})), 2).0, "program");
    install("hello");
    assert_eq!(serve_once(&config(json!({})), 2).0, "snapshot", "the previous program's snapshot is kept");
    let before = files(&directory);
    let is_new = |files: &[PathBuf]| files.len() == 2 && *files != *before;
    assert_eq!(serve_until(&config(json!({"args": ["x"]})), is_new).0, "program");
    assert_eq!(serve_once(&config(json!({"args": ["x"]})), 2).0, "snapshot");
}

#[test]
fn an_unhealthy_program_is_not_served_from_a_snapshot_either() {
    let folder = tempfile::tempdir().unwrap();
    let healthy = |status| json!({"health": {"path": "/x", "status": status}});
    let good = config(folder.path(), &sample("hello"), healthy(200));
    assert_eq!(serve_once(&good, 1).0, "program");
    assert_eq!(serve_once(&good, 1).0, "snapshot");
    let server = start_with(config(folder.path(), &sample("hello"), healthy(204)));
    assert!(matches!(report(&server, "a").state, TenantState::Failed { .. }), "as without a file");
}

#[test]
fn without_the_key_no_snapshot_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &sample("hello"), json!({}));
    config.as_object_mut().unwrap().remove("snapshots");
    let server = start_with(config);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/x");
    assert_eq!((booted_from(&server).0, files(folder.path()).len()), ("program", 0));
}

#[test]
fn a_snapshot_can_be_saved_in_advance() {
    let folder = tempfile::tempdir().unwrap();
    let value = config(folder.path(), &sample("workset"), json!({"health": {"path": "/"}}));
    let config = Config::from_value(&value).unwrap();
    let save = |tenant, out| config.save_snapshot(tenant, out, Arc::new(NoLog));
    let made = save("a", None).unwrap();
    assert_eq!(files(folder.path()), [made]);
    assert_eq!(serve_once(&value, 1).0, "snapshot");
    let out = folder.path().join("elsewhere");
    assert_eq!(save("a", Some(&out)).unwrap(), out);
    assert_eq!(save("b", None), Err(ReloadError::UnknownTenant));
}
