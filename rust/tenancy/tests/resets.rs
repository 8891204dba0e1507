// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets that are deferred until the response is written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::path::Path;

use mayfly_tenancy::{Config, LoopPool, Outcome, Server};
use serde_json::{Value, json};
use support::{Response, await_boots, get, report, request, start, tenant, wait_for_worker, wait_until};

/// Each request changes 64 pages, more than are reset at once.
fn workset() -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/workset/workset");
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    tenant("a", json!({ "program": program }))
}

fn pool(server: &Server) -> LoopPool {
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/a");
    pool
}

#[test]
fn a_large_reset_waits_for_the_response_and_comes_before_the_next_request() {
    let server = start(&[workset(), tenant("b", json!({}))]);
    let mut pool = pool(&server);
    pool.defer_resets();
    let resets = || report(&server, "a").resets;
    let (before, cpu_before) = (resets(), report(&server, "a").cpu_seconds);
    let call = |pool: &mut LoopPool| {
        let mut response = Response::default();
        assert_eq!(pool.call(&request("/a"), &mut response), Outcome::Done);
        assert_eq!(response.status, 200);
    };
    call(&mut pool);
    assert!(pool.resets_are_due());
    assert_eq!(resets(), before);
    let cpu = report(&server, "a").cpu_seconds;
    assert!(cpu > cpu_before);
    pool.reset_answered();
    assert!(!pool.resets_are_due());
    assert_eq!(resets(), before + 1);
    assert!(report(&server, "a").cpu_seconds > cpu, "the reset's CPU time is counted for the tenant");
    // The next call resets the worker itself.
    for more in 1..=3 {
        call(&mut pool);
        assert_eq!(resets(), before + more);
    }
    pool.reset_answered();
    assert_eq!(resets(), before + 4);
    pool.reset_answered();
    assert_eq!(resets(), before + 4, "there is nothing left to reset");
}

#[test]
fn small_resets_and_callers_that_do_not_defer_them_leave_nothing_to_reset() {
    let server = start(&[workset(), tenant("b", json!({}))]);
    let mut unasked = pool(&server);
    assert_eq!(get(&mut unasked, "/a").status, 200);
    assert!(!unasked.resets_are_due());
    let mut small = server.loop_pool();
    wait_for_worker(&mut small, "/b/ok");
    small.defer_resets();
    let resets = report(&server, "b").resets;
    assert_eq!(get(&mut small, "/b/ok").status, 200);
    assert!(!small.resets_are_due());
    assert_eq!(report(&server, "b").resets, resets + 1);
}

#[test]
fn a_deferred_reset_survives_a_change_of_the_tenants() {
    let config = |names: &[&str]| {
        let tenants: Vec<_> =
            names.iter().map(|name| if *name == "a" { workset() } else { tenant(name, json!({})) }).collect();
        Config::from_value(&json!({ "tenants": tenants })).unwrap()
    };
    let server = Server::start(config(&["a", "b"])).unwrap();
    await_boots(&server);
    let mut pool = pool(&server);
    pool.defer_resets();
    let resets = report(&server, "a").resets;
    assert_eq!(get(&mut pool, "/a").status, 200);
    // Another tenant has its position now.
    server.apply(config(&["b", "c", "a"]));
    assert_eq!(get(&mut pool, "/b/ok").status, 200);
    assert!(!pool.resets_are_due());
    assert_eq!(report(&server, "a").resets, resets + 1);
    // A worker of a replaced generation is closed without a reset.
    assert_eq!(get(&mut pool, "/a").status, 200);
    assert!(pool.resets_are_due());
    server.reload("a").unwrap();
    wait_until("the new generation serves", || get(&mut pool, "/a").status == 200);
    pool.reset_answered();
    assert_eq!(get(&mut pool, "/a").status, 200);
    // The worker of a removed tenant is closed.
    assert_eq!(get(&mut pool, "/a").status, 200);
    server.apply(config(&["b"]));
    assert_eq!(get(&mut pool, "/a").status, 404);
    pool.reset_answered();
}
