// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs of tenants that keep their state do between requests (`background_cpu`), for tenants with a fixed
//! number of workers, and for those with one for each loop. The program is `tenants/upkeep`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use mayfly_tenancy::{Config, LoopPool, Outcome, Request, Server};
use serde_json::{Value, json};
use support::*;

/// Each loop's own worker, and a fixed number of them.
const KINDS: [Option<u32>; 2] = [None, Some(1)];

/// `upkeep` as tenant `name`. A task of it adds a byte to `/data/done`.
fn upkeep(name: &str, workers: Option<u32>, data: &Path, more: &Value) -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/upkeep/upkeep");
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    let mut tenant = json!({
        "name": name, "path": "/", "hosts": [name], "program": program, "serve": "connections", "settle_ms": 0,
        "ephemeral": false, "env": {"DONE": "/data/done"},
        "mounts": [{"host": data, "at": "/data", "writable": "durable"}],
        "limits": {"cpu_ms": 20_000, "wall_ms": 60_000, "boot_ms": 60_000, "inline_budget_us": 1_000_000},
    });
    if let Some(workers) = workers {
        tenant["workers"] = workers.into();
    }
    for (key, value) in more.as_object().unwrap() {
        match (key.as_str(), value) {
            ("limits", Value::Object(limits)) => {
                tenant["limits"].as_object_mut().unwrap().extend(limits.clone());
            }
            _ => tenant[key] = value.clone(),
        }
    }
    tenant
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    (folder, done)
}

/// The number of tasks that have run.
fn done(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}

/// Asks tenant `a`.
fn ask(pool: &mut LoopPool, target: &'static str) -> String {
    let response = ask_of(pool, "a", target);
    let body = String::from_utf8(response.body).unwrap();
    assert_eq!(response.status, 200, "{target}: {body}");
    body
}

fn ask_of(pool: &mut LoopPool, host: &str, target: &'static str) -> Response {
    let headers = [mayfly_tenancy::Header { name: b"host", value: host.as_bytes() }];
    serve(pool, &Request { headers: &headers, ..request(target) })
}

/// Begins a request of tenant `a`, which may end on another thread.
fn begin(pool: &mut LoopPool, target: &'static str) -> Receiver<Response> {
    let (sender, receiver) = mpsc::channel();
    let mut response = Response::default();
    let headers = [mayfly_tenancy::Header { name: b"host", value: b"a" }];
    let request = Request { headers: &headers, ..request(target) };
    match pool.call(&request, &mut response) {
        Outcome::Done => sender.send(response).unwrap(),
        Outcome::Later => pool.call_later(&request, Box::new(Later { response, sender })),
    }
    receiver
}

fn background_cpu(server: &Server) -> f64 {
    report(server, "a").background_cpu_seconds
}

/// Waits until programs have not run for a while.
fn wait_for_rest(server: &Server) {
    let mut former = -1.0;
    wait_until("its programs rest", || {
        let now = background_cpu(server);
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut former, now) == now
    });
}

#[test]
fn what_is_due_after_the_response_happens_although_no_request_comes() {
    for kind in KINDS {
        let (data, file) = folder();
        let server = start(&[upkeep("a", kind, data.path(), &json!({}))]);
        let mut pool = server.loop_pool();
        assert_eq!(ask(&mut pool, "/visits"), "1");
        ask(&mut pool, "/task?200");
        ask(&mut pool, "/thread?200");
        wait_until("the tasks run", || done(&file) == 2);
        assert!(background_cpu(&server) > 0.0);
        // With the state of these requests.
        assert_eq!((ask(&mut pool, "/done").as_str(), ask(&mut pool, "/visits").as_str()), ("2", "5"), "{kind:?}");
        wait_for_rest(&server);
        let report = report(&server, "a");
        assert_eq!((report.background_failures, report.errors.len()), (0, 0), "{report:?}");
        assert!(report.cpu_seconds > report.background_cpu_seconds);
        assert!(server.report().metrics().contains("mayfly_tenant_background_cpu_seconds_total{tenant=\"a\"} 0."));
    }
}

#[test]
fn programs_that_are_reset_or_have_no_share_stand_still() {
    let (data, file) = folder();
    let (other, other_file) = folder();
    let server = start(&[
        upkeep("a", None, data.path(), &json!({"ephemeral": true})),
        upkeep("b", Some(1), data.path(), &json!({"limits": {"background_cpu": 0}})),
        upkeep("c", None, data.path(), &json!({"limits": {"background_cpu": 0}})),
        upkeep("kept", None, other.path(), &json!({})),
    ]);
    let mut pool = server.loop_pool();
    for name in ["a", "b", "c"] {
        assert_eq!(ask_of(&mut pool, name, "/task?50").status, 200);
    }
    // Time passes for all of them.
    assert_eq!(ask_of(&mut pool, "kept", "/task?500").status, 200);
    wait_until("the task of the tenant that is kept runs", || done(&other_file) == 1);
    assert_eq!(done(&file), 0);
    for name in ["a", "b", "c"] {
        assert_eq!(report(&server, name).background_cpu_seconds, 0.0, "{name}");
    }
    // With the next request it happens, where the state is kept.
    for (name, tasks) in [("a", "0"), ("b", "1"), ("c", "1")] {
        assert_eq!(ask_of(&mut pool, name, "/visits").status, 200);
        assert_eq!(ask_of(&mut pool, name, "/done").body, tasks.as_bytes(), "{name}");
    }
}

#[test]
fn a_program_that_never_rests_gets_its_share_and_no_more() {
    for kind in KINDS {
        let (data, _) = folder();
        let limits = json!({"limits": {"background_cpu": 0.1}});
        let server = start(&[upkeep("a", kind, data.path(), &limits), tenant("b", json!({"path": "/b"}))]);
        let mut pool = server.loop_pool();
        ask(&mut pool, "/spin");
        let start = Instant::now();
        let mut visits = 1;
        while background_cpu(&server) < 0.35 {
            assert!(start.elapsed() < Duration::from_secs(60), "{}", background_cpu(&server));
            // It is answered in spite of it, always with its state, and so are others.
            visits += 1;
            assert_eq!(ask(&mut pool, "/visits"), visits.to_string());
            assert_eq!(get(&mut pool, "/b/ok").status, 200);
            std::thread::sleep(Duration::from_millis(20));
        }
        // A tenth of a second at once, the rest as time passes; the test fails if it has five times that.
        assert!(start.elapsed() > Duration::from_millis(500), "{kind:?}: {:?}", start.elapsed());
        assert!(ask(&mut pool, "/count").parse::<u64>().unwrap() > 0);
    }
}

#[test]
fn requests_that_come_while_the_program_runs_wait_for_it() {
    for kind in KINDS {
        let (data, _) = folder();
        let server = start(&[upkeep("a", kind, data.path(), &json!({"limits": {"background_cpu": 1}}))]);
        let mut pool = server.loop_pool();
        ask(&mut pool, "/spin");
        wait_until("it runs", || background_cpu(&server) > 0.02);
        for visits in 2..60 {
            assert_eq!(ask(&mut pool, "/visits"), visits.to_string(), "{kind:?}");
            std::thread::sleep(Duration::from_millis(3));
        }
        // Several at once.
        let all: Vec<_> = (0..8).map(|_| begin(&mut pool, "/visits")).collect();
        for receiver in all {
            assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap().status, 200);
        }
        wait_until("none is left", || report(&server, "a").in_flight == 0);
        assert!(report(&server, "a").errors.is_empty());
    }
}

#[test]
fn a_worker_that_many_requests_have_waited_for_gets_back_to_its_loop() {
    const CLIENTS: usize = 16;
    let (data, _) = folder();
    let server = start(&[upkeep("a", None, data.path(), &json!({"limits": {"background_cpu": 1}}))]);
    let mut pool = server.loop_pool();
    ask(&mut pool, "/spin");
    let end = Instant::now() + Duration::from_secs(120);
    for _ in 0..5 {
        // One that meets the program between requests.
        let first = loop {
            assert!(Instant::now() < end, "a request meets a leg");
            std::thread::sleep(Duration::from_millis(12));
            let parked = report(&server, "a").parked;
            let first = begin(&mut pool, "/visits");
            if report(&server, "a").parked > parked {
                break first;
            }
            assert_eq!(first.recv_timeout(Duration::from_secs(20)).unwrap().status, 200);
        };
        let mut clients = vec![first];
        clients.extend((1..CLIENTS).map(|_| begin(&mut pool, "/visits")));
        // Each client sends its next request as soon as it has its answer.
        let mut inline = 0;
        while inline < 20 * CLIENTS {
            assert!(Instant::now() < end, "the loop serves its requests itself again");
            for client in &mut clients {
                if let Ok(response) = client.try_recv() {
                    assert_eq!(response.status, 200);
                    let parked = report(&server, "a").parked;
                    *client = begin(&mut pool, "/visits");
                    inline = if report(&server, "a").parked > parked { 0 } else { inline + 1 };
                }
            }
        }
        for client in clients {
            assert_eq!(client.recv_timeout(Duration::from_secs(20)).unwrap().status, 200);
        }
    }
    let report = report(&server, "a");
    assert_eq!((report.in_flight, report.errors.len()), (0, 0), "{report:?}");
}

#[test]
fn output_without_a_request_closes_the_connection() {
    for kind in KINDS {
        for task in ["/talk?50", "/close?50"] {
            let (data, file) = folder();
            let server = start(&[upkeep("a", kind, data.path(), &json!({}))]);
            let mut pool = server.loop_pool();
            ask(&mut pool, "/visits");
            ask(&mut pool, task);
            wait_until("the task has run", || done(&file) == 1);
            for visits in 3..6 {
                assert_eq!(ask(&mut pool, "/visits"), visits.to_string(), "{task}, {kind:?}");
            }
        }
    }
}

#[test]
fn a_worker_that_is_lost_between_requests_is_replaced() {
    for kind in KINDS {
        let (data, _) = folder();
        let server = start(&[upkeep("a", kind, data.path(), &json!({}))]);
        let mut pool = server.loop_pool();
        for losses in 1..3 {
            assert_eq!(ask(&mut pool, "/visits"), "1", "{kind:?}");
            ask(&mut pool, "/exit?50");
            wait_until("it is lost", || report(&server, "a").background_failures == losses);
            if kind.is_some() {
                wait_until("another one is idle", || report(&server, "a").workers.unwrap().idle == 1);
            }
        }
        assert_eq!(ask(&mut pool, "/visits"), "1");
        let report = report(&server, "a");
        assert_eq!((report.errors.len(), report.in_flight), (0, 0), "no request has failed: {report:?}");
    }
}

#[test]
fn a_tenant_that_is_gone_or_a_program_that_is_replaced_runs_no_more() {
    for kind in KINDS {
        let (data, _) = folder();
        let config = |more: &Value| {
            let tenants = [upkeep("a", kind, data.path(), more), tenant("b", json!({"path": "/b"}))];
            Config::from_value(&json!({"tenants": tenants})).unwrap()
        };
        let spinning = |pool: &mut LoopPool, server: &Server| {
            ask(pool, "/spin");
            let before = background_cpu(server);
            wait_until("it runs", || background_cpu(server) > before);
        };
        let server = Server::start(config(&json!({}))).unwrap();
        let mut pool = server.loop_pool();
        spinning(&mut pool, &server);
        server.reload("a").unwrap();
        wait_for_rest(&server);
        assert_eq!(ask(&mut pool, "/count"), "0", "{kind:?}");

        spinning(&mut pool, &server);
        server.apply(config(&json!({"limits": {"background_cpu": 0}})));
        wait_for_rest(&server);
        server.apply(config(&json!({})));
        spinning(&mut pool, &server);
        let without = json!({"tenants": [tenant("b", json!({"path": "/b"}))]});
        assert_eq!(get(&mut pool, "/b/ok").status, 200);
        let (sender, receiver) = mpsc::channel();
        pool.set_waker(move || sender.send(()).unwrap());
        server.apply(Config::from_value(&without).unwrap());
        // No request comes.
        receiver.recv_timeout(Duration::from_secs(60)).expect("its loop is woken");
        pool.tend();
        wait_until("its workers are closed", || server.report().workers == 1);
    }
}

#[test]
fn a_tenant_that_is_gone_runs_no_more_although_its_loop_has_no_request() {
    for kind in KINDS {
        for ms in [1000, 10_000, 60_000] {
            let ((data, file), (other, other_file)) = (folder(), folder());
            let kept = upkeep("kept", Some(1), other.path(), &json!({}));
            let server = start(&[upkeep("a", kind, data.path(), &json!({})), kept.clone()]);
            let mut pool = server.loop_pool();
            let target: &'static str = format!("/task?{ms}").leak();
            let asked = Instant::now();
            ask(&mut pool, target);
            server.apply(Config::from_value(&json!({"tenants": [kept]})).unwrap());
            if asked.elapsed() > Duration::from_millis(ms / 2) {
                // It may have run before.
                continue;
            }
            let mut other_pool = server.loop_pool();
            assert_eq!(ask_of(&mut other_pool, "kept", target).status, 200);
            wait_until("the task of the tenant that is left runs", || done(&other_file) == 1);
            assert_eq!(done(&file), 0, "{kind:?}");
            break;
        }
    }
}

#[test]
fn loops_and_servers_end_while_programs_run() {
    for kind in KINDS {
        let (data, _) = folder();
        let server = start(&[upkeep("a", kind, data.path(), &json!({"limits": {"background_cpu": 1}}))]);
        for _ in 0..3 {
            let mut pool = server.loop_pool();
            ask(&mut pool, "/spin");
            let before = background_cpu(&server);
            wait_until("it runs", || background_cpu(&server) > before);
        }
        let start = Instant::now();
        server.shutdown();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let stopped = background_cpu(&server);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(background_cpu(&server), stopped, "no program runs any more");
    }
}

#[test]
fn workers_that_have_nothing_to_do_cost_nothing() {
    const WORKERS: u32 = 40;
    let (data, _) = folder();
    let more = json!({"affinity": "header:x-worker"});
    let server = start(&[upkeep("a", Some(WORKERS), data.path(), &more)]);
    let mut pool = server.loop_pool();
    for number in 0..4 * WORKERS {
        let key = number.to_string();
        let headers = [("host", "a"), ("x-worker", &key)]
            .map(|(name, value)| mayfly_tenancy::Header { name: name.as_bytes(), value: value.as_bytes() });
        assert_eq!(serve(&mut pool, &Request { headers: &headers, ..request("/visits") }).status, 200);
    }
    wait_until("some of them have run", || background_cpu(&server) > 0.0);
    wait_for_rest(&server);
    let before = background_cpu(&server);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(background_cpu(&server), before);
}
