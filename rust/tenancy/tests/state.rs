// SPDX-License-Identifier: MIT OR Apache-2.0
//! State that outlives requests, for tenants that are configured so.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mayfly_tenancy::{LoopPool, Outcome, Request};
use serde_json::{Value, json};
use support::*;

/// One of the programs in `tenants/`, with enough time for a busy machine.
fn sample(name: &str, more: Value) -> Value {
    let program = faults().parent().unwrap().join(format!("../{name}/{name}"));
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    let mut tenant = json!({"name": name, "path": format!("/{name}"), "program": program,
        "limits": {"inline_budget_us": 1_000_000}});
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tenant
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

/// The number in `Hello N World!`.
fn number(response: &Response) -> u64 {
    assert_eq!(response.status, 200, "{}", text(response));
    text(response).strip_prefix("Hello ").unwrap().strip_suffix(" World!\n").unwrap().parse().unwrap()
}

fn put(pool: &mut LoopPool, path: &'static str, body: &[u8]) -> u16 {
    serve(pool, &Request { method: b"PUT", body, ..request(path) }).status
}

#[test]
fn a_counter_in_shared_memory_counts_every_request_of_all_loops_and_generations() {
    const EACH: u64 = 400;
    let server = start(&[sample("counter", json!({"shared_memory": {"kib": 4}}))]);
    let done = AtomicBool::new(false);
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..2)
            .map(|_| {
                let mut pool = server.loop_pool();
                scope.spawn(move || (0..EACH).map(|_| number(&get(&mut pool, "/counter"))).collect::<Vec<_>>())
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                server.reload("counter").unwrap();
            }
        });
        let numbers = loops.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        numbers
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=2 * EACH).collect::<Vec<_>>());
    assert!(report(&server, "counter").reloads > 0);
}

#[test]
fn shared_memory_in_a_file_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counter");
    for round in 0..3 {
        let server = start(&[sample("counter", json!({"shared_memory": {"kib": 4, "file": file}}))]);
        let mut pool = server.loop_pool();
        for next in 1..=10 {
            assert_eq!(number(&get(&mut pool, "/counter")), round * 10 + next);
        }
    }
}

#[test]
fn a_worker_is_reset_after_its_number_of_requests() {
    let server = start(&[sample("visits", json!({"reset_every": 3}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/visits");
    // That was the first request.
    let visits: Vec<String> = (0..6).map(|_| text(&get(&mut pool, "/visits"))).collect();
    assert_eq!(visits, [2, 3, 1, 2, 3, 1].map(|visit| format!("visit {visit}\n")));
    assert_eq!(report(&server, "visits").mode, "reset-every-3");
}

#[test]
fn a_loop_has_one_worker_that_keeps_state_however_early_the_first_request_comes() {
    for _ in 0..10 {
        let server = start(&[sample("visits", json!({"ephemeral": false}))]);
        let mut pool = server.loop_pool();
        for visit in 1..=5 {
            if visit == 4 {
                server.reload("visits").unwrap();
            }
            assert_eq!(text(&get(&mut pool, "/visits")), format!("visit {visit}\n"));
        }
    }
}

#[test]
fn a_worker_that_keeps_state_is_replaced_if_its_request_is_given_up() {
    let limits = json!({"cpu_ms": 20_000, "inline_budget_us": 100_000});
    let server = start(&[tenant("a", json!({"ephemeral": false, "limits": limits}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    // It has begun, and is never passed to `call_later`.
    assert_eq!(pool.call(&request("/a/loop"), &mut Response::default()), Outcome::Later);
    wait_for_worker(&mut pool, "/a/ok");
    assert_eq!(report(&server, "a").in_flight, 0);
}

#[test]
fn a_new_generation_takes_over_the_state_of_every_loop() {
    let server = start(&[sample("visits", json!({"ephemeral": false}))]);
    let mut pools = [server.loop_pool(), server.loop_pool()];
    for pool in &mut pools {
        wait_for_worker(pool, "/visits");
    }
    for _ in 0..5 {
        assert_eq!(get(&mut pools[1], "/visits").status, 200);
    }
    for generation in 2..5 {
        assert_eq!(server.reload("visits").unwrap().generation, generation);
        for (pool, first) in pools.iter_mut().zip([2, 7]) {
            assert_eq!(text(&get(pool, "/visits")), format!("visit {}\n", first + generation - 2));
        }
    }
    assert!(report(&server, "visits").errors.is_empty());
}

#[test]
fn an_ephemeral_program_keeps_state_in_its_storage_program() {
    let store = faults().parent().unwrap().join("../store/store");
    // Enough time for slow machines, with all of a request's calls on its loop.
    let storage = json!({"program": store, "call_ms": 20_000});
    let server = start(&[sample("notes", json!({"storage": storage}))]);
    let mut pool = server.loop_pool();
    assert_eq!(put(&mut pool, "/notes/a", b"first"), 201);
    assert_eq!(put(&mut pool, "/notes/a", b"sec\0ond"), 204);
    assert_eq!(get(&mut pool, "/notes/a").body, b"sec\0ond");
    assert_eq!(get(&mut pool, "/notes/b").status, 404);
    // From two loops at once: a request that finds the storage program busy is queued.
    std::thread::scope(|scope| {
        for path in ["/notes/x", "/notes/y"] {
            let mut pool = server.loop_pool();
            scope.spawn(move || {
                for round in 0..200_u32 {
                    let status = put(&mut pool, path, &round.to_le_bytes());
                    assert!(matches!(status, 201 | 204), "{status}");
                    assert_eq!(get(&mut pool, path).body, round.to_le_bytes());
                }
            });
        }
    });
    assert_eq!(get(&mut pool, "/notes").body, b"3");
    // A new generation of the front program finds the store as it was.
    server.reload("notes").unwrap();
    assert_eq!(get(&mut pool, "/notes/a").body, b"sec\0ond");
    let report = report(&server, "notes");
    assert!(report.store_calls >= 805 && report.errors.is_empty(), "{report:?}");
    assert_eq!(server.report().overflow, 0);
}

#[test]
fn a_new_storage_program_takes_the_state_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let program = std::fs::read(faults().parent().unwrap().join("../store/store")).unwrap();
    std::fs::write(&store, &program).unwrap();
    let server = start(&[sample("notes", json!({"storage": {"program": store, "call_ms": 20_000}}))]);
    let mut pool = server.loop_pool();
    assert_eq!(put(&mut pool, "/notes/a", b"kept"), 201);
    assert!(server.reload_changed().is_empty());
    // Another file with another content: bytes after an ELF file's sections have no meaning.
    let new = directory.path().join("new");
    std::fs::write(&new, [program.as_slice(), b"v2"].concat()).unwrap();
    std::fs::rename(new, &store).unwrap();
    assert_eq!(server.reload_changed().len(), 1);
    assert!(server.reload_changed().is_empty());
    assert_eq!(get(&mut pool, "/notes/a").body, b"kept");
}

/// The hook is the program's own code and may run up to its time limit. Meanwhile, requests that need the storage
/// program are queued, and no loop waits.
#[test]
fn a_storage_program_that_does_not_save_its_state_blocks_no_loop() {
    let call_time = Duration::from_secs(4);
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let program = std::fs::read(faults()).unwrap();
    std::fs::write(&store, &program).unwrap();
    let storage = json!({"program": store, "args": ["boot:sdk-storage=1"], "call_ms": call_time.as_millis() as u64});
    let limits = json!({"inline_budget_us": 1_000_000, "wall_ms": 600_000});
    let more = json!({"args": ["boot:sdk-program"], "storage": storage, "path": "/", "limits": limits});
    let server = start(&[tenant("a", more)]);
    let mut pool = server.loop_pool();
    assert_eq!(text(&get(&mut pool, "/append?x")), "nothingx");
    let new = directory.path().join("new");
    std::fs::write(&new, [program.as_slice(), b"v2"].concat()).unwrap();
    std::fs::rename(new, &store).unwrap();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.reload_changed());
        let mut waiting = Vec::new();
        while !reload.is_finished() {
            let began = Instant::now();
            let mut response = Response::default();
            if pool.call(&request("/append?x"), &mut response) == Outcome::Later {
                let (sender, receiver) = mpsc::channel();
                pool.call_later(&request("/append?x"), Box::new(Later { response, sender }));
                waiting.push(receiver);
            }
            assert!(began.elapsed() < call_time / 2, "the loop waited for {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(reload.join().unwrap()[0].1.is_err());
        assert!(!waiting.is_empty());
        for receiver in waiting {
            receiver.recv_timeout(Duration::from_secs(60)).expect("every queued request is answered");
        }
    });
}

/// Each hook may take as long as a request. Other requests without a worker do not wait behind them.
#[test]
fn workers_that_do_not_save_their_state_delay_no_other_tenant() {
    let limits = json!({"cpu_ms": 5000, "wall_ms": 600_000, "inline_budget_us": 1_000_000});
    let slow = json!({"args": ["boot:sdk-storage=1"], "ephemeral": false, "limits": limits});
    let server = start(&[tenant("slow", slow), tenant("other", json!({"boot": "first_call"}))]);
    let mut pools = [server.loop_pool(), server.loop_pool()];
    for pool in &mut pools {
        wait_for_worker(pool, "/slow");
    }
    server.reload("slow").unwrap();
    let slow = pools.each_mut().map(|pool| {
        let mut response = Response::default();
        assert_eq!(pool.call(&request("/slow"), &mut response), Outcome::Later);
        let (sender, receiver) = mpsc::channel();
        pool.call_later(&request("/slow"), Box::new(Later { response, sender }));
        receiver
    });
    // The other tenant's first request waits for its boot, and then for a fork.
    assert_eq!(get(&mut server.loop_pool(), "/other/ok").status, 200);
    for receiver in &slow {
        assert!(receiver.try_recv().is_err(), "the workers are still saving their state");
    }
    for receiver in &slow {
        receiver.recv_timeout(Duration::from_secs(60)).expect("requests are answered without the state");
    }
}

#[test]
fn a_storage_program_that_fails_or_times_out_loses_only_its_state() {
    // `faults` treats a call like any other request.
    // Enough for a program that fails, on a busy machine, too.
    let storage = json!({"program": faults(), "call_ms": 2000});
    let server = start(&[tenant("a", json!({"args": ["boot:sdk-program"], "storage": storage, "path": "/"}))]);
    let mut pool = server.loop_pool();
    // ETIMEDOUT and EIO.
    for (target, error) in [("/loop", "-110"), ("/null", "-5"), ("/exit", "-5")] {
        let response = get(&mut pool, target);
        assert_eq!((response.status, text(&response)), (500, error.to_owned()), "{target}");
        wait_until("the storage program's worker is replaced", || get(&mut pool, "/ok").status == 200);
    }
    assert_eq!(server.report().overflow, 0);
}

#[test]
fn a_health_request_can_call_the_storage_program_and_waits_for_it() {
    let store = faults().parent().unwrap().join("../store/store");
    let notes =
        |health: Value| sample("notes", json!({"storage": {"program": store, "call_ms": 20_000}, "health": health}));
    // `/notes` counts the stored notes, so it fails without a storage program.
    let server = start(&[notes(json!({"path": "/notes"}))]);
    let mut pool = server.loop_pool();
    assert_eq!(put(&mut pool, "/notes/a", b"kept"), 201, "{:?}", report(&server, "notes"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Requests that find the storage program busy are queued, and all are served.
        let loops: Vec<_> = ["/notes/x", "/notes/y"]
            .into_iter()
            .map(|path| {
                let (done, mut pool) = (&done, server.loop_pool());
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        assert!(matches!(put(&mut pool, path, b"v"), 201 | 204));
                    }
                })
            })
            .collect();
        let reloaded: Vec<_> = (0..20).map(|_| server.reload("notes")).collect();
        done.store(true, Ordering::Relaxed);
        loops.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(reloaded.iter().all(Result::is_ok), "{reloaded:?}");
    });
    assert_eq!(get(&mut pool, "/notes/a").body, b"kept");
    // It is the same storage program that serves requests, with the state that they have stored.
    let config = |health| mayfly_tenancy::Config::from_value(&json!({"tenants": [notes(health)]})).unwrap();
    assert!(server.apply(config(json!({"path": "/notes/a"}))).failed.is_empty());
    let applied = server.apply(config(json!({"path": "/notes/b"})));
    let [(name, reason)] = &applied.failed[..] else { panic!("{applied:?}") };
    assert_eq!(name, "notes");
    assert!(reason.contains("/notes/b of notes answered 404 instead of 200"), "{reason}");
}
