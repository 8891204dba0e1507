// SPDX-License-Identifier: MIT OR Apache-2.0
//! Well-behaved and faulty tenants on real workers, through the interface that an HTTP server uses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use mayfly_tenancy::{Header, LoopPool, Outcome, Request, TenantState};
use serde_json::{Value, json};
use support::*;

#[test]
fn a_request_is_answered_by_the_tenant_of_its_path() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({"path": "/a/b"}))]);
    let mut pool = server.loop_pool();
    for target in ["/a/ok", "/a/b/ok"] {
        assert_eq!(get(&mut pool, target).status, 200);
    }
    assert_eq!(get(&mut pool, "/b/ok").error(), (404, "no-such-route".to_owned()));
    assert_eq!((report(&server, "a").requests, report(&server, "b").requests, server.report().unrouted), (1, 1, 1));
}

#[test]
fn workers_are_forked_ahead_and_kept() {
    let server = start(&[tenant("a", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    for _ in 0..100 {
        assert_eq!(pool.call(&request("/a/ok"), &mut Response::default()), Outcome::Done);
    }
    let report = report(&server, "a");
    assert_eq!((report.requests, report.resets, report.forks), (101, 101, 1));
}

#[test]
fn each_fault_has_its_status_and_the_next_request_is_served() {
    let server = start(&[tenant("a", json!({})), tenant("hurried", hurried())]);
    let mut pool = server.loop_pool();
    for (target, status, word) in [
        ("/a/exit?3", 502, "exited"),
        ("/a/null", 502, "faulted"),
        ("/a/ud2", 502, "faulted"),
        ("/a/body-unmapped", 502, "bad-response"),
        ("/a/header-content-length", 502, "bad-response"),
        ("/a/status?700", 502, "bad-response"),
        ("/a/body-over", 502, "response-too-large"),
        ("/hurried/loop", 504, "cpu-limit"),
        ("/a/alloc-mmap", 507, "memory-limit"),
    ] {
        // Both on this thread and, because the first request loses the worker, on a background thread.
        for _ in 0..2 {
            assert_eq!(get(&mut pool, target).error(), (status, word.to_owned()), "{target}");
        }
        assert_eq!(get(&mut pool, "/a/ok").status, 200, "after {target}");
    }
    let errors = report(&server, "a").errors;
    assert_eq!((errors["exited"], errors["faulted"], errors["bad-response"], errors["memory-limit"]), (2, 4, 6, 2));
    assert_eq!(report(&server, "hurried").errors["cpu-limit"], 2);
}

#[test]
fn cpu_time_is_counted_and_waiting_is_not() {
    let short = json!({"limits": {"cpu_ms": 200, "inline_budget_us": 100, "wall_ms": 600_000}});
    let sleeper = json!({"limits": {"wall_ms": 1000, "inline_budget_us": 1_000_000}});
    let server = start(&[
        tenant("a", json!({})),
        tenant("hurried", hurried()),
        tenant("legs", short),
        tenant("sleeper", sleeper),
        tenant("idle", json!({})),
    ]);
    let cpu = |name| report(&server, name).cpu_seconds;
    let mut pool = server.loop_pool();
    let began = std::time::Instant::now();
    // Each request costs some CPU time, and all together no more than the elapsed time.
    wait_for_worker(&mut pool, "/a/ok");
    let mut former = cpu("a");
    for _ in 0..10 {
        assert_eq!(get(&mut pool, "/a/ok").status, 200);
        let now = cpu("a");
        assert!(now > former && now < began.elapsed().as_secs_f64(), "{former} {now}");
        former = now;
    }
    // In one slice, which the limit ends, and in many slices.
    for name in ["hurried", "legs"] {
        let target = if name == "legs" { "/legs/loop" } else { "/hurried/loop" };
        assert_eq!(get(&mut pool, target).error().0, 504);
        let limit = if name == "legs" { 0.2 } else { 0.1 };
        wait_until("the last slice is counted", || cpu(name) > limit * 0.9);
        assert!(cpu(name) < began.elapsed().as_secs_f64(), "{}", cpu(name));
    }
    // A sleeping request costs almost nothing.
    assert_eq!(get(&mut pool, "/sleeper/sleep").error(), (504, "wall-limit".to_owned()));
    assert!(cpu("sleeper") > 0.0 && cpu("sleeper") < 1.0, "{}", cpu("sleeper"));
    assert_eq!(cpu("idle"), 0.0);
}

#[test]
fn limits_that_a_program_sees_as_errors_are_counted() {
    let limits = json!({"limits": {"descriptors": 8, "mappings": 20, "inline_budget_us": 1_000_000}});
    let server = start(&[tenant("a", limits)]);
    let mut pool = server.loop_pool();
    for target in ["/a/alloc-descriptors", "/a/alloc-maps", "/a/alloc-thread"] {
        assert_eq!(get(&mut pool, target).status, 200, "{target}");
    }
    let hits = report(&server, "a").limit_hits;
    assert!(hits["descriptors"] > 0 && hits["mappings"] > 0 && hits["threads"] > 0, "{hits:?}");
    assert!(report(&server, "a").errors.is_empty());
}

#[test]
fn refused_processes_are_counted_for_each_request() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    for round in 1..4 {
        assert_eq!(get(&mut pool, "/a/forbidden").status, 200);
        assert_eq!(get(&mut pool, "/a/ok").status, 200);
        let refused = report(&server, "a").refused_processes;
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), [("exec", round), ("fork", round)]);
    }
    assert_eq!(get(&mut pool, "/b/ok").status, 200);
    assert!(report(&server, "b").refused_processes.is_empty());
}

#[test]
fn state_is_kept_only_where_configured() {
    let server = start(&[tenant("fresh", json!({})), tenant("keeps", json!({"ephemeral": false}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/fresh/ok");
    wait_for_worker(&mut pool, "/keeps/ok");
    for (state, dirty, keeps) in
        [("/fresh/state", "/fresh/dirty-data", false), ("/keeps/state", "/keeps/dirty-data", true)]
    {
        let before = get(&mut pool, state);
        assert_eq!(get(&mut pool, dirty).status, 200);
        assert_eq!(get(&mut pool, state).body != before.body, keeps, "{state}");
    }
}

#[test]
fn a_poisoned_worker_is_never_called_again_and_another_is_forked_ahead() {
    let server = start(&[tenant("a", json!({}))]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a/ok");
    let forks = report(&server, "a").forks;
    assert_eq!(get(&mut pool, "/a/exit").error().0, 502);
    wait_until("a replacement is forked", || report(&server, "a").forks > forks);
    wait_for_worker(&mut pool, "/a/ok");
    assert_eq!(report(&server, "a").forks, forks + 1);
}

#[test]
fn a_request_that_is_too_large_is_413_at_once_and_later() {
    let server = start(&[tenant("a", json!({}))]);
    let mut pool = server.loop_pool();
    let body = vec![b'x'; 80 << 10];
    let large = Request { body: &body, ..request("/a/ok") };
    wait_for_worker(&mut pool, "/a/ok");
    assert_eq!(serve(&mut pool, &large).error(), (413, "request-too-large".to_owned()));
    let (sender, receiver) = mpsc::channel();
    pool.call_later(&large, Box::new(Later { response: Response::default(), sender }));
    assert_eq!(receiver.recv().unwrap().error(), (413, "request-too-large".to_owned()));
    // The worker was not lost.
    assert_eq!(pool.call(&request("/a/ok"), &mut Response::default()), Outcome::Done);
}

#[test]
fn a_deferred_request_is_the_same_request() {
    let echo = faults().parent().unwrap().join("../echo/echo");
    let server = start(&[tenant("e", json!({"program": echo}))]);
    let mut pool = server.loop_pool();
    let headers = [Header { name: b"x-a", value: b"1" }, Header { name: b"x-a", value: b"2" }];
    let asked = Request { method: b"PUT", headers: &headers, body: b"\0binary\xff", ..request("/e/x%20y?q=1&r") };
    let (sender, receiver) = mpsc::channel();
    pool.call_later(&asked, Box::new(Later { response: Response::default(), sender }));
    let later = receiver.recv().unwrap();
    let at_once = serve(&mut pool, &asked);
    let without_moments = |response: &Response| {
        let mut echoed: Value = serde_json::from_slice(&response.body).unwrap();
        for field in ["id", "unix_ns", "monotonic_ns", "entropy"] {
            echoed.as_object_mut().unwrap().remove(field);
        }
        echoed
    };
    assert_eq!(without_moments(&later), without_moments(&at_once));
}

#[test]
fn a_tenant_that_does_not_boot_answers_503_with_the_reason_and_others_serve() {
    let server = start(&[
        tenant("good", json!({})),
        tenant("missing", json!({"program": "/nonexistent/program"})),
        tenant("script", json!({"program": file!(), "path": "/script"})),
        tenant("exits", json!({"args": ["boot:exit=7"]})),
        tenant("loops", json!({"args": ["boot:loop"], "limits": {"boot_ms": 300}})),
    ]);
    let mut pool = server.loop_pool();
    for (target, reason) in [
        ("/missing/x", "No such file"),
        ("/script", "No such file"),
        ("/exits", "exited with status 7"),
        // Of CPU time, or of the wall-clock time for it, where other work takes the processors.
        ("/loops", "the limit boot_ms)"),
    ] {
        let response = get(&mut pool, target);
        assert_eq!(response.error(), (503, "unavailable".to_owned()));
        assert!(response.reason().contains(reason), "{}", response.reason());
    }
    assert_eq!(get(&mut pool, "/good/ok").status, 200);
    assert!(matches!(report(&server, "exits").state, TenantState::Failed { .. }));
    assert!(matches!(report(&server, "good").state, TenantState::Ready { generation: 1, .. }));
}

#[test]
fn the_server_starts_without_a_tenant_that_is_slow_to_boot() {
    let slow = json!({"args": ["boot:loop"], "limits": {"boot_ms": 5000}});
    let server = start_at_once(json!({"tenants": [tenant("slow", slow), tenant("quick", json!({}))]}));
    let mut pool = server.loop_pool();
    let response = get(&mut pool, "/slow");
    assert_eq!(response.error(), (503, "unavailable".to_owned()));
    assert_eq!(response.reason(), "the tenant is still booting");
    assert_eq!(get(&mut pool, "/quick/ok").status, 200);
    wait_until("the boot limit is enforced", || matches!(report(&server, "slow").state, TenantState::Failed { .. }));
    assert!(get(&mut pool, "/slow").reason().contains("the limit boot_ms)"));
}

#[test]
fn too_many_waiting_requests_of_one_tenant_are_refused_and_another_tenants_are_not() {
    let limits = json!({"limits": {"cpu_ms": 300, "concurrent_requests": 16}});
    let server = start(&[tenant("a", limits), tenant("b", json!({}))]);
    let mut pool = server.loop_pool();
    let (sender, receiver) = mpsc::channel();
    let mut later = |target| {
        let reply = Later { response: Response::default(), sender: sender.clone() };
        pool.call_later(&request(target), Box::new(reply));
    };
    (0..40).for_each(|_| later("/a/loop"));
    later("/b/ok");
    drop(sender);
    let statuses: Vec<u16> = receiver.iter().map(|response| response.status).collect();
    let count = |status| statuses.iter().filter(|&&seen| seen == status).count();
    assert_eq!((statuses.len(), count(200)), (41, 1));
    // How many of the 16 have finished when the last request comes depends on timing.
    assert!((16..=20).contains(&count(504)), "{statuses:?}");
    assert_eq!(count(429) + count(504), 40);
}

#[test]
fn shutdown_answers_waiting_requests_and_refuses_new_ones() {
    let server = start(&[tenant("a", hurried())]);
    let mut pool = server.loop_pool();
    let (sender, receiver) = mpsc::channel();
    let mut later = |target| {
        let reply = Later { response: Response::default(), sender: sender.clone() };
        pool.call_later(&request(target), Box::new(reply));
    };
    (0..4).for_each(|_| later("/a/loop"));
    server.shutdown();
    // Requests that do not finish within the shutdown's time limit are given up.
    let statuses: Vec<u16> = receiver.try_iter().map(|response| response.status).collect();
    assert!(statuses.len() == 4 && statuses.iter().all(|status| matches!(status, 503 | 504)), "{statuses:?}");
    later("/a/ok");
    assert_eq!(receiver.try_recv().unwrap().error(), (503, "unavailable".to_owned()));
}

#[test]
fn loop_threads_serve_in_parallel_and_leak_nothing() {
    let server = start(&[tenant("a", json!({})), tenant("b", json!({}))]);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let work = |mut pool: LoopPool| {
        for number in 0..300 {
            let (target, status) = match number % 10 {
                3 => ("/a/exit", 502),
                7 => ("/b/null", 502),
                even if even % 2 == 0 => ("/a/ok", 200),
                _ => ("/b/ok", 200),
            };
            assert_eq!(get(&mut pool, target).status, status);
        }
    };
    let both = || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let pool = server.loop_pool();
                scope.spawn(|| work(pool));
            }
        });
    };
    both();
    std::thread::sleep(Duration::from_millis(200));
    let before = descriptors();
    both();
    // Other tests of this process open and close workers meanwhile; a leak would show as at least 120 descriptors of 60
    // crashes.
    wait_until("descriptors are closed", || descriptors() < before + 60);
    let report = report(&server, "a");
    assert_eq!((report.requests, report.errors["exited"]), (2 * 2 * 180, 2 * 2 * 30));
}
