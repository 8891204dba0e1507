// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tenants on several engines in one server. These tests need both engines; the kind of KVM does not matter.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::fs;
use std::path::PathBuf;

use mayfly_tenancy::{Config, Server, TenantState};
use serde_json::{Value, json};
use support::*;

/// One of the programs in `tenants/`, with enough time for a busy machine.
fn sample(name: &str, program: &str, more: Value) -> Value {
    let program = faults().parent().unwrap().join(format!("../{program}/{program}"));
    let mut tenant = json!({"name": name, "path": format!("/{name}"), "program": program,
        "limits": {"inline_budget_us": 1_000_000}});
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tenant
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

/// The current generation's number, and whether it was booted from a snapshot file.
fn generation(server: &Server, name: &str) -> (u64, &'static str) {
    match report(server, name).state {
        TenantState::Ready { generation, booted_from, .. } => (generation, booted_from),
        other => panic!("{other:?}"),
    }
}

fn apply(server: &Server, config: &Value) -> Vec<String> {
    let applied = server.apply(Config::from_value(config).unwrap());
    assert!(applied.failed.is_empty(), "{:?}", applied.failed);
    applied.changed
}

#[test]
fn one_server_has_tenants_on_both_engines_and_they_answer_the_same() {
    let server = start_with(json!({
        "engine": "process",
        "groups": {"virtual": {"engine": "kvm"}},
        "tenants": [
            sample("a", "hello", json!({})),
            sample("b", "hello", json!({"group": "virtual"})),
            sample("c", "hello", json!({"group": "virtual", "engine": "process"})),
        ],
    }));
    let mut pool = server.loop_pool();
    for _ in 0..3 {
        let [a, b, c] = ["/a", "/b", "/c"].map(|path| get(&mut pool, path));
        assert_eq!((a.status, text(&a)), (200, text(&b)));
        assert_eq!((a.status, b.status, c.status), (200, 200, 200));
        assert_eq!((a.body, a.headers), (c.body, c.headers));
    }
    assert_eq!(["a", "b", "c"].map(|name| report(&server, name).engine), ["process", "kvm", "process"]);
    let host = serde_json::to_value(server.report().host).unwrap();
    assert_eq!((&host["state"], host.get("auto")), (&"usable".into(), None));
    assert!(["paging", "hardware"].contains(&host["kvm"].as_str().unwrap()));
    assert_eq!(host["engines"][1]["kind"], "process");
    let metrics = server.metrics();
    assert!(metrics.contains(r#"mayfly_tenant_info{tenant="b",mode="ephemeral",engine="kvm"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"mayfly_engine_usable{engine="process",kind="process"} 1"#), "{metrics}");
}

#[test]
fn engines_that_no_tenant_needs_are_not_opened() {
    let server = start_with(json!({"tenants": [sample("a", "hello", json!({"engine": "process"}))]}));
    let state = |engine: usize| serde_json::to_value(server.report().host).unwrap()["engines"][engine]["state"].clone();
    assert_eq!((state(0), state(1)), ("unopened".into(), "usable".into()));
    apply(&server, &json!({"tenants": [sample("a", "hello", json!({"engine": "kvm"}))]}));
    assert_eq!((state(0), state(1)), ("usable".into(), "usable".into()));
}

#[test]
fn what_auto_means_is_reported_with_the_reason() {
    let server = start(&[sample("a", "hello", json!({}))]);
    let host = serde_json::to_value(server.report().host).unwrap();
    let engine = report(&server, "a").engine;
    assert_eq!(host["auto"]["engine"], engine);
    assert!(!host["auto"]["why"].as_str().unwrap().is_empty());
    // Unless these tests are run for one engine.
    if std::env::var_os("MAYFLY_ENGINE").is_none() {
        assert_eq!(engine == "kvm", host["kvm"] == "hardware", "{host}");
    }
}

#[test]
fn a_reload_moves_a_tenant_to_another_engine_and_a_rollback_moves_it_back() {
    let config = |engine: &str| json!({"tenants": [sample("a", "hello", json!({"engine": engine}))]});
    let server = start_with(config("kvm"));
    let mut pool = server.loop_pool();
    let hello = get(&mut pool, "/a").body;
    assert!(apply(&server, &config("kvm")).is_empty());
    assert_eq!(apply(&server, &config("process")), ["a"]);
    assert_eq!((generation(&server, "a").0, report(&server, "a").engine), (2, "process"));
    assert_eq!(get(&mut pool, "/a").body, hello);
    server.rollback("a").unwrap();
    assert_eq!((generation(&server, "a").0, report(&server, "a").engine), (3, "kvm"));
    assert_eq!(get(&mut pool, "/a").body, hello);
}

#[test]
fn the_command_lines_engine_holds_for_later_configurations_too() {
    let value = json!({"tenants": [sample("a", "hello", json!({"engine": "kvm"}))]});
    let mut config = Config::from_value(&value).unwrap();
    config.force_engine(mayfly_sandbox::Choice::from_name("process").unwrap());
    let server = Server::start(config).unwrap();
    await_boots(&server);
    assert_eq!(report(&server, "a").engine, "process");
    assert!(apply(&server, &value).is_empty());
    assert_eq!(report(&server, "a").engine, "process");
}

#[test]
fn storage_programs_run_on_the_engine_of_their_tenant_and_move_with_it() {
    let storage = faults().parent().unwrap().join("../store/store");
    let config = |engine: &str| {
        let more = json!({"engine": engine, "storage": {"program": storage, "call_ms": 20_000}});
        json!({"tenants": [sample("notes", "notes", more)]})
    };
    let server = start_with(config("kvm"));
    let mut pool = server.loop_pool();
    for (engine, generation) in [("kvm", 1), ("process", 2), ("kvm", 3)] {
        apply(&server, &config(engine));
        assert_eq!(self::generation(&server, "notes").0, generation);
        let before = report(&server, "notes").store_calls;
        let answer = get(&mut pool, "/notes/key");
        assert!(answer.status < 500, "{engine}: {} {}", answer.status, text(&answer));
        assert!(report(&server, "notes").store_calls > before, "{engine}");
    }
}

#[test]
fn shared_memory_is_the_same_on_every_engine() {
    let config = |engine: &str| {
        let more = json!({"engine": engine, "shared_memory": {"kib": 4}});
        json!({"tenants": [sample("counter", "counter", more)]})
    };
    let server = start_with(config("kvm"));
    let mut pool = server.loop_pool();
    for (number, engine) in [(1, "kvm"), (2, "process"), (3, "kvm")] {
        apply(&server, &config(engine));
        assert_eq!(text(&get(&mut pool, "/counter")), format!("Hello {number} World!\n"), "{engine}");
    }
}

#[test]
fn each_engine_has_a_snapshot_of_its_own_and_refuses_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let files = || -> Vec<PathBuf> {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|ending| ending == "snapshot")).collect();
        files.sort();
        files
    };
    let start_on = |engine: &str| {
        let tenant = sample("a", "hello", json!({"engine": engine}));
        let server = start_with(json!({"snapshots": folder.path(), "tenants": [tenant]}));
        let from = generation(&server, "a").1;
        let mut pool = server.loop_pool();
        wait_for_worker(&mut pool, "/a");
        assert_eq!(get(&mut pool, "/a").status, 200);
        (server, pool, from)
    };
    let mut own: Vec<PathBuf> = Vec::new();
    for engine in ["kvm", "process"] {
        let (server, pool, from) = start_on(engine);
        assert_eq!(from, "program", "{engine}");
        wait_until("its snapshot is saved", || files().len() > own.len());
        own.extend(files().into_iter().filter(|file| !own.contains(file)).collect::<Vec<_>>());
        drop(pool);
        server.shutdown();
    }
    assert_eq!(own.len(), 2);
    for engine in ["kvm", "process"] {
        let (server, _pool, from) = start_on(engine);
        assert_eq!(from, "snapshot", "{engine}");
        server.shutdown();
    }
    // What lies under the name of another engine's is not used.
    fs::copy(&own[1], &own[0]).unwrap();
    let (server, _pool, from) = start_on("kvm");
    assert_eq!(from, "program");
    server.shutdown();
}
