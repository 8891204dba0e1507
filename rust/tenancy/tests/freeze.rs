// SPDX-License-Identifier: MIT OR Apache-2.0
//! The moment of the freeze: when an unmodified server counts as ready, how it comes to rest, and what it is asked for
//! before the freeze and after it. The program is Python's HTTP server: `programs/moment.py`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mayfly_tenancy::{LoopPool, Outcome, Request, Server};
use serde_json::{Value, json};
use support::*;

/// A tenant `a` that runs the program, with further keys.
fn serving(more: Value) -> Server {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let mut tenant = json!({
        "name": "a", "path": "/", "program": "/usr/bin/python3", "args": ["-S", "/app/moment.py"],
        "serve": "connections", "port": 8000, "settle_ms": 0, "env": {"PYTHONDONTWRITEBYTECODE": "1"},
        "limits": {"boot_ms": 60_000, "cpu_ms": 20_000, "wall_ms": 60_000, "inline_budget_us": 1_000_000},
        "mounts": [{"host": programs, "at": "/app"}],
    });
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    start_with(json!({
        "defaults": {"mounts": [{"host": "/lib"}, {"host": "/lib64"}, {"host": "/usr"}]},
        "tenants": [tenant],
    }))
}

fn text(pool: &mut LoopPool, target: &'static str) -> String {
    let response = get(pool, target);
    let body = String::from_utf8(response.body).unwrap();
    assert_eq!(response.status, 200, "{target}: {body}");
    body
}

/// The reason why a tenant does not boot.
fn refusal(more: Value) -> String {
    let server = serving(more);
    let mut pool = server.loop_pool();
    let mut reason = String::new();
    wait_until("the boot ends", || {
        let response = get(&mut pool, "/state");
        assert_eq!(response.error(), (503, "unavailable".into()));
        reason = response.reason();
        reason != "the tenant is still booting"
    });
    reason
}

#[test]
fn a_program_that_becomes_ready_after_it_listens_is_frozen_when_it_is_ready() {
    // Whatever the engine takes to boot it.
    let late = json!({"READY_MS": "60000", "PYTHONDONTWRITEBYTECODE": "1"});
    let server = serving(json!({"env": late}));
    let mut pool = server.loop_pool();
    assert!(text(&mut pool, "/state").starts_with("ready=False"), "frozen as soon as it listens");
    drop((pool, server));

    let health = json!({"path": "/ready"});
    let reason = refusal(json!({"health": health, "env": late}));
    assert!(reason.contains("answered 503 instead of 200") && reason.contains("needs \"ready\""), "{reason}");

    let server =
        serving(json!({"ready": {"path": "/ready"}, "health": health, "warm_up": [{"path": "/x", "times": 3}]}));
    let mut pool = server.loop_pool();
    for _ in 0..3 {
        assert!(text(&mut pool, "/state").starts_with("ready=True"));
        assert_eq!(get(&mut pool, "/ready").status, 200);
    }
    // It was asked for some times in 300 ms, not all the time; once, if it had to wait for a processor before that.
    let asked: u32 =
        text(&mut pool, "/state").split("asked=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((1 + 3 + 1..1 + 3 + 12).contains(&asked), "{asked}");
}

#[test]
fn a_program_that_is_not_ready_in_time_does_not_boot_and_says_what_it_does_instead() {
    for (path, why) in [
        ("/fail", "GET /fail answered 500 instead of 200: ready="),
        ("/drop", "GET /drop was not answered: "),
        ("/sleep", "GET /sleep was not answered; the program last waited in "),
        ("/spin", "GET /spin was not answered; the program "),
    ] {
        let started = Instant::now();
        let reason = refusal(json!({"ready": {"path": path, "within_ms": 2000}}));
        assert!(reason.contains(&format!("the program was not ready within 2s: {why}")), "{path}: {reason}");
        assert!(started.elapsed() >= Duration::from_secs(2), "{path}");
    }
    // Another status is a matter of configuration.
    let server = serving(json!({"ready": {"path": "/fail", "status": 500}}));
    text(&mut server.loop_pool(), "/state");
}

#[test]
fn a_program_idles_in_real_time_before_it_is_frozen() {
    let monitor = json!({"MONITOR": "1", "PYTHONDONTWRITEBYTECODE": "1"});
    let warm_up = json!([{"path": "/x", "times": 2}]);
    // Whatever the engine takes to boot it.
    let slow = json!({"MONITOR": "1", "LOOK_MS": "20000", "PYTHONDONTWRITEBYTECODE": "1"});
    let hasty = serving(json!({"env": slow, "warm_up": warm_up}));
    assert!(text(&mut hasty.loop_pool(), "/state").contains("calm=False"));
    let settled = serving(json!({"env": monitor, "warm_up": warm_up, "settle_ms": 3000}));
    let mut pool = settled.loop_pool();
    for _ in 0..3 {
        assert!(text(&mut pool, "/state").contains("calm=True"));
    }
    // A program without timers has nothing to wait for. The other's readiness is a timer, and so is the poll of Python's
    // own loop, so this one is another.
    let quick = serving(json!({
        "args": ["-S", "-c", QUIET], "settle_ms": 600_000, "ready": {"path": "/"}, "before_freeze": "/",
    }));
    assert_eq!(get(&mut quick.loop_pool(), "/").status, 200);
}

/// A server whose only thread waits for connections.
const QUIET: &str = r#"
import socket
listener = socket.create_server(("127.0.0.1", 8000))
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
"#;

/// A service outside that answers each byte; how many connections it has had.
fn upstream() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut byte = [0];
                while connection.read(&mut byte).is_ok_and(|count| count == 1) {
                    if connection.write_all(b"!").is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, count)
}

#[test]
fn a_pool_of_connections_is_drained_before_the_freeze_and_filled_after_each_restore() {
    let (port, count) = upstream();
    let outside = |more: Value| {
        let mut all = json!({
            "env": {"UPSTREAM": format!("127.0.0.1:{port}"), "PYTHONDONTWRITEBYTECODE": "1"},
            "outbound": [format!("127.0.0.1:{port}")],
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serving(all)
    };
    let without = outside(json!({}));
    assert_eq!(get(&mut without.loop_pool(), "/use").status, 502, "the boot's connection is lost");
    let server = outside(json!({"before_freeze": "/drain", "after_restore": "/restore"}));
    let mut pool = server.loop_pool();
    assert_eq!(get(&mut pool, "/use").status, 200);
    let before = count.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(get(&mut pool, "/use").status, 200);
        assert!(text(&mut pool, "/state").ends_with("restored=1"), "each starts from the freeze");
    }
    // The service counts them when it accepts them.
    wait_until("one connection a request, perhaps ahead", || count.load(Ordering::SeqCst) >= before + 9);
}

#[test]
fn the_hook_of_a_reset_worker_is_outside_the_requests_latency() {
    let server = serving(json!({"after_restore": "/restore?300"}));
    let mut pool = server.loop_pool();
    assert!(text(&mut pool, "/state").ends_with("restored=1"));
    // It is prepared meanwhile, by a thread of low priority.
    let mut pause = Duration::from_millis(500);
    wait_until("a request finds a prepared worker", || {
        std::thread::sleep(pause);
        pause += pause / 2;
        let started = Instant::now();
        assert!(text(&mut pool, "/state").ends_with("restored=1"));
        started.elapsed() < Duration::from_millis(300)
    });
    // Without a pause the hook is a part of the latency: nothing answers without it.
    for _ in 0..8 {
        assert!(text(&mut pool, "/state").ends_with("restored=1"));
    }
    let report = report(&server, "a");
    assert_eq!((report.in_flight, server.report().overflow), (0, 0), "a preparation is no request");
}

#[test]
fn a_loop_that_defers_resets_has_workers_prepared_after_the_response() {
    let listens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/listens/listens");
    assert!(listens.exists(), "{} is missing: run `make tenants`", listens.display());
    // It changes so few pages that its reset is not deferred.
    let server = serving(json!({
        "program": listens, "args": ["epoll"], "port": null, "env": {}, "after_restore": "/sleep?300",
    }));
    let mut pool = server.loop_pool();
    assert_eq!(text(&mut pool, "/count"), "2", "asked once");
    pool.defer_resets();
    wait_for_worker(&mut pool, "/count");
    assert!(pool.resets_are_due(), "what follows the response");
    assert_eq!(report(&server, "a").resets, report(&server, "a").requests, "no reset is left");
    std::thread::sleep(Duration::from_millis(700));
    let started = Instant::now();
    assert_eq!(text(&mut pool, "/count"), "2");
    assert!(started.elapsed() >= Duration::from_millis(300), "nothing was prepared: {:?}", started.elapsed());
    let mut pause = Duration::from_millis(500);
    wait_until("a request finds a prepared worker", || {
        pool.reset_answered();
        assert!(!pool.resets_are_due());
        std::thread::sleep(pause);
        pause += pause / 2;
        let started = Instant::now();
        assert_eq!(text(&mut pool, "/count"), "2");
        started.elapsed() < Duration::from_millis(300)
    });
}

#[test]
fn a_request_that_does_not_fit_leaves_the_frozen_clock_where_it_is() {
    let limits = json!({
        "boot_ms": 60_000, "cpu_ms": 20_000, "wall_ms": 60_000, "inline_budget_us": 1_000_000, "request_kib": 64,
    });
    let server = serving(json!({"limits": limits}));
    let mut pool = server.loop_pool();
    let clock = |pool: &mut LoopPool| -> u64 { text(pool, "/clock").parse().unwrap() };
    clock(&mut pool);
    wait_for_worker(&mut pool, "/clock");
    let before = clock(&mut pool);
    let mut response = Response::default();
    let too_large = Request { body: &[0; 100 << 10], ..request("/clock") };
    assert_eq!(pool.call(&too_large, &mut response), Outcome::Done);
    assert_eq!(response.error(), (413, "request-too-large".into()));
    std::thread::sleep(Duration::from_secs(2));
    let passed = Duration::from_nanos(clock(&mut pool).abs_diff(before));
    assert!(passed < Duration::from_secs(1), "{passed:?}");
}

#[test]
fn a_worker_that_keeps_its_state_is_asked_once_for_each_fork_and_each_reset() {
    let kept = serving(json!({"after_restore": "/restore", "ephemeral": false}));
    let mut pool = kept.loop_pool();
    for asked in 2..6 {
        assert!(text(&mut pool, "/state").ends_with(&format!("asked={asked} restored=1")));
    }
    let every = serving(json!({"after_restore": "/restore", "reset_every": 2}));
    let mut pool = every.loop_pool();
    for asked in [2, 3, 2, 3, 2] {
        assert!(text(&mut pool, "/state").ends_with(&format!("asked={asked} restored=1")));
    }
}

#[test]
fn a_hook_that_fails_stops_what_it_is_for() {
    let reason = refusal(json!({"before_freeze": "/fail"}));
    let why = "\"before_freeze\": GET /fail answered 500 instead of a status from 200 to 299: ready=";
    assert!(reason.contains(why), "{reason}");
    let server = serving(json!({"after_restore": "/fail"}));
    let mut pool = server.loop_pool();
    for _ in 0..4 {
        let response = get(&mut pool, "/state");
        assert_eq!(response.error(), (502, "bad-response".into()));
        assert!(response.reason().contains("\"after_restore\": the program answered 500"), "{}", response.reason());
        // Its worker is prepared meanwhile, which fails, too.
        std::thread::sleep(Duration::from_millis(100));
    }
    let report = report(&server, "a");
    assert_eq!((report.requests, report.errors["bad-response"]), (4, 4), "a preparation is no request");
}

#[test]
fn a_limit_that_was_reached_before_the_boot_failed_is_named() {
    // One thread is the program's own, one waits; no third one answers.
    let env = json!({"READY_MS": "60000", "PYTHONDONTWRITEBYTECODE": "1"});
    let limits = json!({"boot_ms": 60_000, "threads": 2});
    let ready = json!({"path": "/state", "within_ms": 1500});
    for (more, why) in [
        (json!({"ready": ready}), "the program was not ready within 1.5s: GET /state was not answered"),
        (json!({"before_freeze": "/drain"}), "\"before_freeze\": GET /drain was not answered"),
    ] {
        let mut all = json!({"env": env, "limits": limits});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reason = refusal(all);
        assert!(reason.contains(why) && reason.contains("; before that, its limit threads was reached"), "{reason}");
    }
}
