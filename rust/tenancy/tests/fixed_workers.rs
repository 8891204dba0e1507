// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tenants that keep their state in a fixed number of workers for all loops (`workers`, `affinity`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use mayfly_tenancy::{Client, Config, FixedWorkersReport, Header, LoopPool, Outcome, Request, Server};
use serde_json::{Value, json};
use support::*;

const TIME: Duration = PATIENCE;

/// `visits`, which counts the requests of a worker.
fn visits(more: Value) -> Value {
    let program = faults().parent().unwrap().join("../visits/visits");
    let mut tenant = json!({"name": "visits", "path": "/visits", "program": program, "ephemeral": false,
        "limits": {"inline_budget_us": 1_000_000, "concurrent_requests": 10_000}});
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tenant
}

/// `faults` with one worker.
fn one_worker(limits: Value) -> Value {
    let mut all = json!({"cpu_ms": 20_000, "wall_ms": 60_000, "inline_budget_us": 1000});
    all.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    tenant("a", json!({"ephemeral": false, "workers": 1, "limits": all}))
}

fn visit(response: &Response) -> u64 {
    let text = String::from_utf8(response.body.clone()).unwrap();
    assert_eq!(response.status, 200, "{text}");
    text.trim().strip_prefix("visit ").unwrap().parse().unwrap()
}

/// Begins a request, which may end on another thread.
fn begin(pool: &mut LoopPool, request: &Request<'_>) -> Receiver<Response> {
    let (sender, receiver) = mpsc::channel();
    let mut response = Response::default();
    match pool.call(request, &mut response) {
        Outcome::Done => sender.send(response).unwrap(),
        Outcome::Later => pool.call_later(request, Box::new(Later { response, sender })),
    }
    receiver
}

fn workers(server: &Server, name: &str) -> FixedWorkersReport {
    report(server, name).workers.unwrap()
}

fn wait_for_line(server: &Server, waiting: usize) {
    wait_until("they wait in line", || workers(server, "a").waiting == waiting);
}

#[test]
fn all_loops_share_one_worker_and_every_request_is_counted_once() {
    const EACH: u64 = 300;
    let server = start(&[visits(json!({"workers": 1}))]);
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..4)
            .map(|_| {
                let mut pool = server.loop_pool();
                scope.spawn(move || (0..EACH).map(|_| visit(&get(&mut pool, "/visits"))).collect::<Vec<_>>())
            })
            .collect();
        loops.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=4 * EACH).collect::<Vec<_>>());
    let report = report(&server, "visits");
    assert_eq!((report.forks, report.errors.len(), report.in_flight), (1, 0, 0), "{report:?}");
    assert_eq!(report.workers, Some(FixedWorkersReport { number: 1, idle: 1, waiting: 0 }));
    assert_eq!((server.report().workers, server.report().overflow), (1, 0));
}

#[test]
fn several_workers_serve_at_once_and_are_no_more_than_configured() {
    let server = start(&[visits(json!({"workers": 3}))]);
    assert_eq!(workers(&server, "visits"), FixedWorkersReport { number: 3, idle: 3, waiting: 0 });
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..5)
            .map(|_| {
                let mut pool = server.loop_pool();
                scope.spawn(move || (0..100).map(|_| visit(&get(&mut pool, "/visits"))).collect::<Vec<_>>())
            })
            .collect();
        loops.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // Each worker has counted from 1 on without a gap.
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    counts.iter().for_each(|count| *times.entry(*count).or_default() += 1);
    let times: Vec<usize> = times.into_values().collect();
    assert_eq!(times.iter().sum::<usize>(), 500);
    assert!(times[0] <= 3 && times.windows(2).all(|pair| pair[0] >= pair[1]), "{times:?}");
    assert_eq!(report(&server, "visits").forks, 3);
}

#[test]
fn a_request_waits_for_the_worker_on_no_thread_and_in_its_order() {
    let server = start_with(json!({"overflow_threads": 1, "tenants": [one_worker(json!({})), tenant("b", json!({}))]}));
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/b/ok");
    // Longer than this thread takes for the rest.
    let first = begin(&mut pool, &request("/a/spin?3000"));
    let others: Vec<_> = (0..5).map(|_| begin(&mut pool, &request("/a/ok"))).collect();
    assert_eq!(workers(&server, "a"), FixedWorkersReport { number: 1, idle: 0, waiting: 5 });
    assert_eq!(report(&server, "a").in_flight, 6);
    // The only overflow thread and this loop serve others meanwhile.
    assert_eq!(get(&mut pool, "/b/spin?20").status, 200);
    assert!(first.try_recv().is_err());
    assert_eq!(first.recv_timeout(TIME).unwrap().status, 200);
    for other in others {
        assert_eq!(other.recv_timeout(TIME).unwrap().status, 200);
    }
    wait_until("the worker is idle", || workers(&server, "a") == FixedWorkersReport { number: 1, idle: 1, waiting: 0 });
    assert_eq!((report(&server, "a").in_flight, server.report().overflow), (0, 0));
}

#[test]
fn the_time_in_line_counts_as_wall_time() {
    let server = start(&[one_worker(json!({"wall_ms": 1000}))]);
    let mut pool = server.loop_pool();
    let mut expired = 0;
    // The third has the same time as the second, and loses it in the line if it begins at the same moment. On a busy
    // machine it may begin so much later that the second's worker is replaced before its time is over.
    wait_until("a request loses its time in the line", || {
        let start = Instant::now();
        let first = begin(&mut pool, &request("/a/sleep"));
        std::thread::sleep(Duration::from_millis(500));
        let second = begin(&mut pool, &request("/a/sleep"));
        let third = begin(&mut pool, &request("/a/ok"));
        for receiver in [first, second] {
            assert_eq!(receiver.recv_timeout(TIME).unwrap().error(), (504, "wall-limit".to_owned()));
        }
        // The second waited 500 ms and slept 500 ms.
        assert!(start.elapsed() >= Duration::from_millis(1500));
        let third = third.recv_timeout(TIME).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(1500), "it has waited all the time");
        expired += 2;
        if third.status == 200 {
            return false;
        }
        expired += 1;
        assert_eq!(third.error(), (504, "wall-limit".to_owned()));
        third.reason().contains("waited for a worker")
    });
    wait_until("the worker is replaced", || get(&mut pool, "/a/ok").status == 200);
    assert_eq!(report(&server, "a").errors["wall-limit"], expired);
    assert_eq!(server.report().overflow, 0);
}

#[test]
fn the_line_is_bounded_by_the_tenants_number_of_requests_and_by_its_share() {
    let server = start(&[one_worker(json!({"concurrent_requests": 3}))]);
    let mut pool = server.loop_pool();
    let first = begin(&mut pool, &request("/a/spin?3000"));
    let _others = (begin(&mut pool, &request("/a/ok")), begin(&mut pool, &request("/a/ok")));
    let refused = begin(&mut pool, &request("/a/ok")).recv_timeout(TIME).unwrap();
    assert_eq!(refused.error(), (429, "too-many-requests".to_owned()));
    assert!(first.try_recv().is_err());

    let server =
        start_with(json!({"overflow_threads": 1, "tenants": [one_worker(json!({"concurrent_requests": 999}))]}));
    let mut pool = server.loop_pool();
    let mut waiting = vec![begin(&mut pool, &request("/a/sleep"))];
    let refused = loop {
        let receiver = begin(&mut pool, &request("/a/ok"));
        match receiver.try_recv() {
            Ok(refused) => break refused,
            Err(_) => waiting.push(receiver),
        }
        assert!(waiting.len() < 900);
    };
    assert_eq!(refused.error(), (503, "overloaded".to_owned()));
    assert!(refused.reason().contains("waiting for a worker"));
    // One thread has 128 line permits, and half of them are a tenant's share. The first request does not wait.
    assert_eq!(waiting.len(), 65);
    // Those that wait do not keep it from sleeping. All are answered at shutdown.
    assert!(waiting[0].try_recv().is_err());
    server.shutdown();
    for receiver in waiting {
        assert_eq!(receiver.try_recv().unwrap().error(), (503, "unavailable".to_owned()));
    }
}

#[test]
fn a_lost_worker_is_replaced_and_the_line_goes_on() {
    let server = start(&[one_worker(json!({}))]);
    let mut pool = server.loop_pool();
    for lost in ["/a/exit", "/a/null"] {
        let first = begin(&mut pool, &request("/a/spin?50"));
        let all: Vec<_> = [lost, "/a/ok", lost, lost, "/a/ok"].map(|path| begin(&mut pool, &request(path))).into();
        assert_eq!(first.recv_timeout(TIME).unwrap().status, 200);
        let statuses: Vec<u16> = all.iter().map(|receiver| receiver.recv_timeout(TIME).unwrap().status).collect();
        assert_eq!(statuses, [502, 200, 502, 502, 200]);
        // On the loop itself.
        wait_until("it is idle", || workers(&server, "a").idle == 1);
        assert_eq!(get(&mut pool, lost).status, 502);
        assert_eq!(get(&mut pool, "/a/ok").status, 200);
    }
    wait_until("one is idle", || workers(&server, "a") == FixedWorkersReport { number: 1, idle: 1, waiting: 0 });
    assert_eq!(server.report().workers, 1);
}

#[test]
fn a_request_that_is_given_up_leaves_no_slot_taken() {
    let server = start(&[one_worker(json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    // It has begun, and is never passed to `call_later`.
    assert_eq!(pool.call(&request("/a/loop"), &mut Response::default()), Outcome::Later);
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    let running = begin(&mut pool, &request("/a/spin?2000"));
    // Nor is one that would wait.
    assert_eq!(pool.call(&request("/a/ok"), &mut Response::default()), Outcome::Later);
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    assert_eq!(running.recv_timeout(TIME).unwrap().status, 200);
    assert_eq!(report(&server, "a").in_flight, 0);
}

#[test]
fn a_pool_that_ends_keeps_no_worker() {
    let server = start(&[visits(json!({"workers": 1}))]);
    for number in 1..5 {
        assert_eq!(visit(&get(&mut server.loop_pool(), "/visits")), number);
    }
}

#[test]
fn a_new_generation_takes_the_state_over_while_requests_wait() {
    let server = start(&[visits(json!({"workers": 1}))]);
    let done = AtomicBool::new(false);
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..3)
            .map(|_| {
                let mut pool = server.loop_pool();
                scope.spawn(move || (0..300).map(|_| visit(&get(&mut pool, "/visits"))).collect::<Vec<_>>())
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                server.reload("visits").unwrap();
            }
        });
        let numbers = loops.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        numbers
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=900).collect::<Vec<_>>());
    let report = report(&server, "visits");
    assert!(report.reloads > 0 && report.errors.is_empty(), "{report:?}");
    assert_eq!(report.workers.unwrap().number, 1);
}

#[test]
fn without_a_handover_a_reload_replaces_the_workers_at_once_and_requests_in_progress_finish() {
    let server = start(&[one_worker(json!({}))]);
    let mut pool = server.loop_pool();
    let old = begin(&mut pool, &request("/a/spin?4000"));
    let waiting = begin(&mut pool, &request("/a/ok"));
    wait_for_line(&server, 1);
    server.reload("a").unwrap();
    assert_eq!(waiting.recv_timeout(TIME).unwrap().status, 200, "the new generation serves it");
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    assert!(old.try_recv().is_err());
    assert_eq!(old.recv_timeout(TIME).unwrap().status, 200);
    wait_until("the old worker is closed", || server.report().workers == 1);
    assert_eq!(workers(&server, "a"), FixedWorkersReport { number: 1, idle: 1, waiting: 0 });
    server.rollback("a").unwrap();
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
}

#[test]
fn the_number_of_workers_can_be_changed() {
    let config = |more: Value| Config::from_value(&json!({"tenants": [visits(more)]})).unwrap();
    let server = start(&[visits(json!({"workers": 1}))]);
    let mut pools = [server.loop_pool(), server.loop_pool()];
    for number in 1..=4 {
        assert_eq!(visit(&get(&mut pools[number as usize % 2], "/visits")), number);
    }
    // The first worker hands its state over, the second begins.
    assert_eq!(server.apply(config(json!({"workers": 2}))).changed, ["visits"]);
    wait_until("the second is forked", || workers(&server, "visits").idle == 2);
    // A loop prefers the worker of its number.
    let mut both: Vec<u64> = pools.iter_mut().map(|pool| visit(&get(pool, "/visits"))).collect();
    both.sort_unstable();
    assert_eq!(both, [1, 5]);
    assert_eq!(workers(&server, "visits").number, 2);
    // Another affinity changes nothing but the choice.
    let other = json!({"workers": 2, "affinity": "connection"});
    assert!(server.apply(config(other)).changed.is_empty());
    // Each loop has its own worker again.
    assert_eq!(server.apply(config(json!({}))).changed, ["visits"]);
    for number in 1..=3 {
        for pool in &mut pools {
            assert_eq!(visit(&get(pool, "/visits")), number);
        }
    }
    assert_eq!(report(&server, "visits").workers, None);
    assert_eq!(server.apply(config(json!({"workers": 1}))).changed, ["visits"]);
    for number in 1..=4 {
        assert_eq!(visit(&get(&mut pools[number as usize % 2], "/visits")), number);
    }
    wait_until("no other worker is left", || server.report().workers == 1);
    // A tenant that is gone keeps none.
    assert_eq!(server.apply(Config::from_json("{}").unwrap()).removed, ["visits"]);
    wait_until("no worker is left", || server.report().workers == 0);
}

/// The visits that a client with these headers finds.
fn visit_with(pool: &mut LoopPool, headers: &[(&str, &str)], client: Option<&str>) -> u64 {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() }).collect();
    let client = client.map(|address| Client { address: address.parse().unwrap(), is_encrypted: false });
    visit(&serve(pool, &Request { headers: &headers, client, ..request("/visits") }))
}

#[test]
fn a_client_has_one_worker_by_its_cookie_header_or_connection() {
    const CLIENTS: usize = 16;
    for affinity in ["cookie:id", "header:x-user", "connection"] {
        let server = start(&[visits(json!({"workers": 4, "affinity": affinity}))]);
        let mut pools = [server.loop_pool(), server.loop_pool()];
        // The clients whose visits one worker counts see one sequence of numbers.
        let mut last = [0; CLIENTS];
        let mut workers: Vec<u64> = Vec::new();
        for round in 0..3 {
            for (client, last) in last.iter_mut().enumerate() {
                let (cookie, user) = (format!("a=b; id={client}"), format!("user {client}"));
                let address = format!("192.0.2.7:{}", 4000 + client);
                let headers = [("cookie", cookie.as_str()), ("x-user", user.as_str())];
                let visit = visit_with(&mut pools[round % 2], &headers, Some(&address));
                assert!(visit > *last, "{affinity}: client {client} found {visit} after {last}");
                *last = visit;
                if round == 0 && visit == 1 {
                    workers.push(client as u64);
                }
            }
        }
        assert_eq!(workers.len(), 4, "{affinity}: {CLIENTS} clients use all workers");
        // All visits are those of these workers: the rounds after the first have met no other state.
        let total: u64 = 3 * CLIENTS as u64;
        assert_eq!(report(&server, "visits").requests, total);
        assert_eq!(report(&server, "visits").forks, 4);
    }
}

#[test]
fn a_request_without_the_key_gets_any_worker_and_one_with_it_waits_for_its_own() {
    let limits = json!({"cpu_ms": 20_000, "wall_ms": 60_000, "inline_budget_us": 1000});
    let more = json!({"ephemeral": false, "workers": 2, "affinity": "header:x-user", "limits": limits});
    let server = start(&[tenant("a", more)]);
    let mut pool = server.loop_pool();
    let header = [Header { name: b"x-user", value: b"1" }];
    let keyed = |target| Request { headers: &header, ..request(target) };
    let running = begin(&mut pool, &keyed("/a/spin?3000"));
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    let waiting = begin(&mut pool, &keyed("/a/ok"));
    wait_for_line(&server, 1);
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    assert!(running.try_recv().is_err() && waiting.try_recv().is_err());
    assert_eq!(running.recv_timeout(TIME).unwrap().status, 200);
    assert_eq!(waiting.recv_timeout(TIME).unwrap().status, 200);
}

#[test]
fn a_worker_of_a_fixed_number_is_reset_after_its_number_of_requests() {
    let mut tenant = visits(json!({"workers": 1, "reset_every": 3}));
    tenant.as_object_mut().unwrap().remove("ephemeral");
    let server = start(&[tenant]);
    let mut pools = [server.loop_pool(), server.loop_pool()];
    let found: Vec<u64> = (0..8).map(|number| visit(&get(&mut pools[number % 2], "/visits"))).collect();
    assert_eq!(found, [1, 2, 3, 1, 2, 3, 1, 2]);
}

#[test]
fn requests_before_the_first_boot_wait_for_the_worker() {
    let server = start(&[visits(json!({"workers": 1, "boot": "first_call"}))]);
    let mut pool = server.loop_pool();
    let all: Vec<_> = (0..40).map(|_| begin(&mut pool, &request("/visits"))).collect();
    let mut numbers: Vec<u64> = all.iter().map(|receiver| visit(&receiver.recv_timeout(TIME).unwrap())).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
}

#[test]
fn the_time_of_a_boot_is_not_wall_time_of_a_request() {
    // Its boot takes longer than a request may, which is enough for a request on a busy machine.
    let limits = json!({"wall_ms": 2000, "cpu_ms": 20_000, "inline_budget_us": 1_000_000});
    let more = json!({"args": ["boot:spin=2500"], "boot": "first_call", "ephemeral": false, "workers": 1});
    let mut tenant = tenant("a", more);
    tenant.as_object_mut().unwrap().insert("limits".to_owned(), limits);
    let server = start(&[tenant]);
    let mut pool = server.loop_pool();
    let start = Instant::now();
    let both = [begin(&mut pool, &request("/a/ok")), begin(&mut pool, &request("/a/ok"))];
    let statuses = both.map(|receiver| receiver.recv_timeout(TIME).unwrap().status);
    assert_eq!(statuses, [200, 200]);
    assert!(start.elapsed() >= Duration::from_millis(2500), "{:?}", start.elapsed());
}

#[test]
fn workers_of_a_fixed_number_have_room_beyond_those_of_others() {
    let tenants = [visits(json!({"workers": 2})), tenant("b", json!({})), tenant("c", json!({}))];
    let server = start_with(json!({"max_workers": 2, "tenants": tenants}));
    let mut pool = server.loop_pool();
    for number in 1..=3 {
        for path in ["/b/ok", "/c/ok"] {
            assert_eq!(get(&mut pool, path).status, 200);
        }
        // A loop prefers the same worker while that is idle.
        assert_eq!(visit(&get(&mut pool, "/visits")), number);
    }
}

#[test]
fn a_request_that_is_too_large_loses_no_state() {
    let limits = json!({"inline_budget_us": 1_000_000, "request_kib": 4});
    let server = start(&[visits(json!({"workers": 1, "limits": limits}))]);
    let mut pool = server.loop_pool();
    assert_eq!(visit(&get(&mut pool, "/visits")), 1);
    let large = vec![0; 8192];
    assert_eq!(serve(&mut pool, &Request { body: &large, ..request("/visits") }).status, 413);
    // The worker's state is to be handed over, and this request does not need it.
    server.reload("visits").unwrap();
    assert_eq!(serve(&mut pool, &Request { body: &large, ..request("/visits") }).status, 413);
    assert_eq!(visit(&get(&mut pool, "/visits")), 2);
}
