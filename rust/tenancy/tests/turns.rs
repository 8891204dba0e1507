// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant can block neither a loop nor the background threads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use mayfly_tenancy::{LoopPool, Outcome};
use serde_json::json;
use support::*;

/// Serves a request. `Ok` if it left this thread, `Err` with the response otherwise.
fn park(pool: &mut LoopPool, target: &'static str) -> Result<Receiver<Response>, Response> {
    let mut response = Response::default();
    match pool.call(&request(target), &mut response) {
        Outcome::Done => Err(response),
        Outcome::Later => {
            let (sender, receiver) = mpsc::channel();
            pool.call_later(&request(target), Box::new(Later { response, sender }));
            Ok(receiver)
        }
    }
}

#[test]
fn a_request_beyond_its_inline_budget_leaves_its_loop_and_ends_at_its_limit() {
    const TIMES: usize = 5;
    let limits = json!({"limits": {"cpu_ms": 1000, "inline_budget_us": 2000}});
    let server = start(&[tenant("a", limits), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    wait_for_worker(&mut pool, "/b/ok");
    let mut fastest = Duration::MAX;
    let parked: Vec<_> = (0..TIMES)
        .map(|_| {
            wait_for_worker(&mut pool, "/a/ok");
            let start = Instant::now();
            let parked = park(&mut pool, "/a/loop").unwrap();
            fastest = fastest.min(start.elapsed());
            parked
        })
        .collect();
    // The budget is two milliseconds; on a busy machine this thread may be preempted for longer, though not each time.
    assert!(fastest < Duration::from_millis(150), "{fastest:?}");
    assert_eq!(report(&server, "a").in_flight as usize, TIMES);
    assert_eq!(get(&mut pool, "/b/ok").status, 200);
    assert_eq!(get(&mut pool, "/a/ok").status, 200, "other requests of the tenant are served, too");
    for parked in parked {
        assert_eq!(parked.recv().unwrap().error(), (504, "cpu-limit".to_owned()));
    }
    let report = report(&server, "a");
    assert_eq!((report.in_flight, report.errors["cpu-limit"]), (0, TIMES as u64));
    assert_eq!(server.report().overflow, 0);
}

#[test]
fn beyond_its_number_of_requests_a_tenant_gets_429_at_once() {
    let limits = json!({"limits": {"cpu_ms": 60_000, "wall_ms": 60_000, "concurrent_requests": 2}});
    let server = start(&[tenant("a", limits), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/b/ok");
    let _first = park(&mut pool, "/a/loop").unwrap();
    let _second = park(&mut pool, "/a/loop").unwrap();
    wait_until("both are in flight", || report(&server, "a").in_flight == 2);
    let refused = park(&mut pool, "/a/ok").unwrap_err();
    assert_eq!(refused.error(), (429, "too-many-requests".to_owned()));
    assert!(refused.reason().contains("concurrent_requests"));
    assert_eq!(get(&mut pool, "/b/ok").status, 200);
    assert_eq!(report(&server, "a").errors["too-many-requests"], 1);
}

#[test]
fn a_tenant_gets_only_its_share_of_the_overflow_and_another_gets_its_turns() {
    let limits = json!({"limits": {"cpu_ms": 60_000, "wall_ms": 60_000, "inline_budget_us": 1000}});
    let hurried = json!({"limits": {"cpu_ms": 40, "inline_budget_us": 1000}});
    let server = start_with(json!({"overflow_threads": 1, "tenants": [tenant("a", limits), tenant("b", hurried)]}));
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/b/ok");
    let mut parked = Vec::new();
    let refused = loop {
        match park(&mut pool, "/a/loop") {
            Ok(receiver) => parked.push(receiver),
            Err(refused) => break refused,
        }
        wait_until("it has its permit", || server.report().overflow == parked.len());
        assert!(parked.len() < 100);
    };
    // One thread has 16 run permits, and half of them are a tenant's share.
    assert_eq!((parked.len(), refused.error()), (8, (503, "overloaded".to_owned())));
    let start = Instant::now();
    let other = park(&mut pool, "/b/loop").unwrap();
    assert_eq!(other.recv_timeout(PATIENCE).unwrap().error(), (504, "cpu-limit".to_owned()));
    // The other tenant's 40 ms alternate with turns of this one, and do not wait for eight requests of a minute each.
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
    // Running requests are answered at shutdown.
    server.shutdown();
    for receiver in parked {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().error(), (503, "unavailable".to_owned()));
    }
}

#[test]
fn many_requests_before_the_first_worker_wait_for_one() {
    let server = start(&[tenant("a", json!({"boot": "first_call"}))]);
    let mut pool = server.loop_pool();
    // More than a tenant's share of run permits, which these requests do not need yet, and fewer than its
    // `concurrent_requests`.
    let crowd: Vec<_> = (0..60).map(|_| park(&mut pool, "/a/ok")).collect();
    for answer in crowd {
        let answer = answer.map_or_else(|answer| answer, |later| later.recv_timeout(PATIENCE).unwrap());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(server.report().overflow, 0);
}

#[test]
fn wall_time_ends_a_request_that_gets_no_cpu_time() {
    let limits = json!({"limits": {"cpu_ms": 60_000, "wall_ms": 200}});
    let server = start(&[tenant("a", limits)]);
    let mut pool = server.loop_pool();
    let mut all: Vec<_> = (0..4).map(|_| park(&mut pool, "/a/loop").unwrap()).collect();
    for receiver in all.drain(..) {
        let response = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(response.error(), (504, "wall-limit".to_owned()));
    }
}

/// Serves a request in the background, like one that has found no worker.
fn defer(pool: &mut LoopPool, target: &'static str) -> Receiver<Response> {
    let (sender, receiver) = mpsc::channel();
    pool.call_later(&request(target), Box::new(Later { response: Response::default(), sender }));
    receiver
}

/// A tenant that loses its worker with every request always has requests that wait for one. Its requests are refused,
/// and not another tenant's.
#[test]
fn a_tenant_with_many_requests_waiting_for_workers_does_not_block_another() {
    let server = start(&[tenant("a", json!({"limits": {"concurrent_requests": 10_000}})), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    wait_for_worker(&mut pool, "/b/ok");
    let mut deferred = Vec::new();
    let is_refused = |receiver: &Receiver<Response>| receiver.try_recv().is_ok_and(|response| response.status == 503);
    while !deferred.iter().any(is_refused) {
        deferred.push(defer(&mut pool, "/a/spin?2"));
        assert!(deferred.len() < 5000);
    }
    let other = defer(&mut pool, "/b/ok");
    assert_eq!(other.recv_timeout(Duration::from_secs(60)).unwrap().status, 200);
}
