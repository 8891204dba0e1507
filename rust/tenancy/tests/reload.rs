// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs and configurations that change while requests are served.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly_tenancy::{Config, Outcome, ReloadError, Server, TenantState};
use serde_json::{Value, json};
use support::*;

fn sample(name: &str) -> Vec<u8> {
    let path = faults().parent().unwrap().join(format!("../{name}/{name}"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `make tenants`", path.display()))
}

/// Replaces a program as a careful deployment does: written under another name, then renamed.
fn install(program: &[u8], at: &Path) {
    let new = at.with_extension("new");
    fs::write(&new, program).unwrap();
    fs::rename(new, at).unwrap();
}

fn generation(server: &Server, name: &str) -> u64 {
    match report(server, name).state {
        TenantState::Ready { generation, .. } => generation,
        state => panic!("{name} is not ready: {state:?}"),
    }
}

/// Limits under which a request stays on its loop even on a busy machine.
fn patient() -> Value {
    json!({"inline_budget_us": 1_000_000})
}

fn config(value: Value) -> Config {
    Config::from_value(&value).unwrap()
}

#[test]
fn every_loop_serves_the_new_generation_from_its_first_request_on() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    install(&sample("hello"), &program);
    let server = start_with(json!({"tenants": [{"name": "a", "path": "/", "program": program, "limits": patient()}]}));
    let mut pools = [server.loop_pool(), server.loop_pool()];
    for pool in &mut pools {
        wait_for_worker(pool, "/x");
        assert_eq!(get(pool, "/x").status, 200);
    }
    let hello = get(&mut pools[0], "/x").body;
    assert!(server.reload_changed().is_empty());

    install(&sample("echo"), &program);
    let [(name, Ok(reloaded))] = &server.reload_changed()[..] else { panic!() };
    assert_eq!((name.as_str(), reloaded.generation), ("a", 2));
    for pool in &mut pools {
        // Forked ahead, so served on this thread at once.
        let mut response = Response::default();
        assert_eq!(pool.call(&request("/x"), &mut response), mayfly_tenancy::Outcome::Done);
        assert_ne!(response.body, hello);
    }
    assert_eq!(report(&server, "a").reloads, 1);

    assert_eq!(server.rollback("a").unwrap().generation, 3);
    for pool in &mut pools {
        assert_eq!(get(pool, "/x").body, hello);
    }
    assert_eq!(server.rollback("a").unwrap().generation, 4);
    assert_ne!(get(&mut pools[0], "/x").body, hello);
}

#[test]
fn a_program_that_does_not_boot_or_is_unhealthy_never_replaces_one_that_works() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    install(&sample("hello"), &program);
    let health = json!({"path": "/health?x", "status": 200});
    let server = start_with(
        json!({"tenants": [{"name": "a", "path": "/", "program": program, "limits": patient(), "health": health}]}),
    );
    let mut pool = server.loop_pool();
    let hello = get(&mut pool, "/x");
    assert_eq!(hello.status, 200);
    assert_eq!(server.rollback("a"), Err(ReloadError::NoPrevious));
    assert_eq!(server.reload("b"), Err(ReloadError::UnknownTenant));
    install(b"#!/bin/sh\n", &program);
    assert!(matches!(server.reload("a"), Err(ReloadError::Boot(_))));
    // `faults` has no such path.
    install(&sample("faults"), &program);
    let Err(ReloadError::Unhealthy(why)) = server.reload("a") else { panic!() };
    assert!(why.contains("/health?x") && why.contains("200"), "{why}");
    assert_eq!(get(&mut pool, "/x").body, hello.body);
    let report = report(&server, "a");
    assert_eq!((report.reloads, report.reload_failures, generation(&server, "a")), (0, 2, 1));
}

#[test]
fn under_load_no_request_of_many_reloads_is_lost_or_mixed() {
    const RELOADS: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let (hello, echo) = (sample("hello"), sample("echo"));
    install(&hello, &program);
    let server = start_with(
        json!({"mode_header": true, "tenants": [{"name": "a", "path": "/", "program": program, "limits": patient()}]}),
    );
    let done = AtomicBool::new(false);
    let served: u64 = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..2)
            .map(|_| {
                let mut pool = server.loop_pool();
                let done = &done;
                scope.spawn(move || {
                    let (mut served, mut last) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let response = get(&mut pool, "/x");
                        assert_eq!(response.status, 200, "{:?}", String::from_utf8_lossy(&response.body));
                        let header = |name| response.headers.iter().find(|(other, _)| other == name).unwrap().1.clone();
                        let generation: u64 = header("x-mayfly-generation").parse().unwrap();
                        // Odd generations are `hello`, even ones `echo`, whose answers are JSON.
                        assert_eq!(response.body.starts_with(b"{"), generation.is_multiple_of(2), "{generation}");
                        assert!(generation >= last, "{generation} after {last}");
                        assert_eq!(header("x-mayfly-mode"), "ephemeral");
                        last = generation;
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for number in 0..RELOADS {
            install(if number % 2 == 0 { &echo } else { &hello }, &program);
            assert_eq!(server.reload("a").unwrap().generation, number + 2);
        }
        done.store(true, Ordering::Relaxed);
        loops.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(served > RELOADS, "{served}");
    let report = report(&server, "a");
    assert_eq!((report.reloads, report.requests, report.errors.len()), (RELOADS, served, 0));
    wait_until("workers of former generations are closed", || server.report().workers <= 8);
}

#[test]
fn an_upload_is_kept_for_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    install(&sample("hello"), &program);
    let uploads = directory.path().join("uploads");
    let whole = json!({
        "admin": {"listen": "127.0.0.1:0", "uploads": uploads},
        "tenants": [{"name": "a", "path": "/", "program": program, "limits": patient()}],
    });
    let server = start_with(whole.clone());
    let hello = get(&mut server.loop_pool(), "/x").body;
    assert!(matches!(server.upload("a", b"no program".to_vec()), Err(ReloadError::Boot(_))));
    assert_eq!(get(&mut server.loop_pool(), "/x").body, hello);
    assert_eq!(server.upload("a", sample("echo")).unwrap().generation, 2);
    let echo = get(&mut server.loop_pool(), "/x").body;
    assert!(echo.starts_with(b"{"));
    drop(server);
    let server = start_with(whole.clone());
    assert!(get(&mut server.loop_pool(), "/x").body.starts_with(b"{"));
    // A rollback needs an earlier generation of this process, which a restart ends. The previous file is kept.
    assert_eq!(server.rollback("a"), Err(ReloadError::NoPrevious));
    server.upload("a", sample("hello")).unwrap();
    server.rollback("a").unwrap();
    drop(server);
    let server = start_with(whole);
    assert!(get(&mut server.loop_pool(), "/x").body.starts_with(b"{"));
}

#[test]
fn without_a_directory_there_are_no_uploads() {
    let server = start(&[tenant("a", json!({}))]);
    assert_eq!(server.upload("a", sample("hello")), Err(ReloadError::NoUploads));
}

#[test]
fn a_new_configuration_adds_removes_and_changes_tenants() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({})), tenant("c", json!({}))]);
    let mut pool = server.loop_pool();
    for target in ["/a/ok", "/b/ok", "/c/ok"] {
        assert_eq!(get(&mut pool, target).status, 200);
    }
    let requests = report(&server, "a").requests;
    let applied = server.apply(config(json!({"tenants": [
        tenant("d", json!({})),
        // Another route does not cost a boot; other arguments do.
        tenant("a", json!({"path": "/elsewhere"})),
        tenant("c", json!({"args": ["boot:exit=7"]})),
    ]})));
    assert_eq!((applied.added, applied.removed), (vec!["d".to_owned()], vec!["b".to_owned()]));
    assert_eq!((applied.changed.len(), applied.failed.len()), (0, 1));
    assert!(applied.failed[0].0 == "c" && applied.failed[0].1.contains("exited with status 7"), "{:?}", applied.failed);
    for (target, status) in [("/a/ok", 404), ("/elsewhere/ok", 200), ("/b/ok", 404), ("/c/ok", 200), ("/d/ok", 200)] {
        assert_eq!(get(&mut pool, target).status, status, "{target}");
    }
    assert_eq!((generation(&server, "a"), generation(&server, "c")), (1, 1));
    assert_eq!(report(&server, "a").requests, requests + 1, "counters continue");
    let applied = server.apply(config(json!({"tenants": [tenant("a", json!({"ephemeral": false}))]})));
    assert_eq!((applied.changed, applied.removed), (vec!["a".to_owned()], vec!["c".to_owned(), "d".to_owned()]));
    assert_eq!(generation(&server, "a"), 2);
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    wait_until("workers of tenants that are gone are closed", || server.report().workers <= 3);
}

#[test]
fn a_tenant_that_was_found_serves_the_request_until_the_configuration_changes() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    let hit = pool.claims(b"", b"/b/ok").unwrap();
    assert_eq!(pool.claims(b"", b"/c/ok"), None);
    wait_for_worker(&mut pool, "/b/ok");
    let mut status = |hit| {
        let mut response = Response::default();
        // No tenant has this path: the status shows whether the hit was used.
        assert_eq!(pool.call_found(hit, &request("/ok"), &mut response), Outcome::Done);
        response.status
    };
    assert_eq!((status(Some(hit)), status(None)), (200, 404));
    let requests = report(&server, "b").requests;
    server.apply(config(json!({"tenants": [tenant("b", json!({})), tenant("a", json!({}))]})));
    assert_eq!(status(Some(hit)), 404);
    assert_eq!((report(&server, "a").requests, report(&server, "b").requests), (0, requests));
}

#[test]
fn a_change_of_a_watched_file_makes_a_new_generation() {
    let directory = tempfile::tempdir().unwrap();
    let app = directory.path().join("app");
    fs::create_dir(&app).unwrap();
    fs::write(app.join("main.js"), "one").unwrap();
    install(&sample("hello"), &directory.path().join("program"));
    let tenant = |watch: Value| {
        json!({"root": directory.path(), "tenants": [{"name": "a", "path": "/", "program": "program", "limits": patient(),
            "mounts": [{"host": "app", "at": "/srv"}], "watch": watch}]})
    };
    let server = start_with(tenant(json!(["/srv/main.js"])));
    assert!(server.reload_changed().is_empty());
    // Not watched.
    fs::write(app.join("other"), "").unwrap();
    assert!(server.reload_changed().is_empty());
    install(b"two!", &app.join("main.js"));
    for _ in 0..2 {
        let reloaded = server.reload_changed();
        assert!(reloaded.iter().all(|(_, result)| result.is_ok()), "{reloaded:?}");
        assert_eq!(generation(&server, "a"), 2, "one generation per change");
    }
    // A directory, including new entries.
    assert_eq!(server.apply(config(tenant(json!(["/srv"])))).changed, ["a"]);
    assert!(server.reload_changed().is_empty());
    fs::create_dir(app.join("lib")).unwrap();
    fs::write(app.join("lib/new.js"), "").unwrap();
    assert_eq!(server.reload_changed().len(), 1);
    assert!(server.reload_changed().is_empty());
    assert_eq!(generation(&server, "a"), 4);
}

#[test]
fn another_port_is_another_generation_and_a_wrong_one_leaves_the_old() {
    let program = faults().parent().unwrap().join("../doors/doors");
    let uploads = tempfile::tempdir().unwrap();
    let at = |port: Value| {
        let mut tenant = json!({"name": "a", "path": "/", "program": program, "serve": "connections", "limits": patient(),
            "args": ["listen=127.0.0.1:2019", "listen=[::]:8080"]});
        if !port.is_null() {
            tenant["port"] = port;
        }
        json!({"admin": {"uploads": uploads.path()}, "tenants": [tenant]})
    };
    let server = start_with(at(json!(8080)));
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/who");
    assert!(get(&mut pool, "/who").body.starts_with(b"1 [::]:8080 "));
    for (port, reason) in [
        (json!(2020), "127.0.0.1:2019, then [::]:8080, and not on port 2020"),
        (Value::Null, "127.0.0.1:2019, then [::]:8080: set \"port\""),
    ] {
        let applied = server.apply(config(at(port)));
        let [(_, error)] = &applied.failed[..] else { panic!("{applied:?}") };
        assert!(error.contains(reason), "{error}");
        assert!(get(&mut pool, "/who").body.starts_with(b"1 [::]:8080 "));
    }
    server.apply(config(at(json!(2019))));
    wait_for_worker(&mut pool, "/who");
    assert!(get(&mut pool, "/who").body.starts_with(b"0 127.0.0.1:2019 "));
    // An upload has the port of the program that it replaces.
    server.upload("a", sample("doors")).unwrap();
    assert!(get(&mut pool, "/who").body.starts_with(b"0 127.0.0.1:2019 "));
}
