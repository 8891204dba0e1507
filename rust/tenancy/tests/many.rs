// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many tenants: they boot at their first request, and there are never more workers than allowed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::time::{Duration, Instant};

use mayfly_tenancy::TenantState;
use serde_json::{Value, json};
use support::*;

/// `count` tenants on `/t0`, `/t1`, …
fn tenants(count: usize) -> Vec<Value> {
    // Enough time for a busy machine: a request that leaves its loop takes its worker with it.
    let limits = json!({"inline_budget_us": 1_000_000});
    (0..count)
        .map(|number| {
            json!({"name": format!("t{number}"), "path": format!("/t{number}"), "program": faults(), "limits": limits})
        })
        .collect()
}

fn target(number: usize) -> &'static str {
    Box::leak(format!("/t{number}/ok").into_boxed_str())
}

#[test]
fn a_thousand_tenants_boot_at_their_first_request() {
    let server = start_with(json!({"boot_at_start": 3, "tenants": tenants(1000)}));
    let booted = |server: &mayfly_tenancy::Server| {
        server.report().tenants.iter().filter(|tenant| tenant.state != TenantState::Unbooted).count()
    };
    assert_eq!(booted(&server), 3);
    let mut pool = server.loop_pool();
    for number in [500, 1, 999, 500] {
        assert_eq!(get(&mut pool, target(number)).status, 200);
    }
    assert_eq!(booted(&server), 5);
    assert!(server.report().workers <= 5);
}

#[test]
fn loops_that_begin_while_a_program_boots_get_a_worker_each() {
    for _ in 0..5 {
        let server = start_with(json!({"boot_at_start": 0, "tenants": tenants(1)}));
        let tenant = || server.report().tenants.remove(0);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(get(&mut server.loop_pool(), target(0)).status, 200));
            // During the boot, and while the workers of earlier loops are forked.
            let mut pools = Vec::new();
            while !matches!(tenant().state, TenantState::Ready { .. }) {
                if matches!(tenant().state, TenantState::Booting) && pools.len() < 60 {
                    pools.push(server.loop_pool());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            let booting = pools.len() as u64;
            let end = Instant::now() + PATIENCE;
            while tenant().forks < booting && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(tenant().forks >= booting, "{} workers of {booting} loops", tenant().forks);
        });
    }
}

#[test]
fn tenants_called_in_turn_keep_their_workers() {
    let server = start_with(json!({"tenants": tenants(20)}));
    let mut pool = server.loop_pool();
    for number in 0..20 {
        assert_eq!(get(&mut pool, target(number)).status, 200);
    }
    let forks = || server.report().tenants.iter().map(|tenant| tenant.forks).sum::<u64>();
    // Workers that were ordered ahead arrive by themselves, on a busy machine a little later.
    let mut before = forks();
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = forks();
        if now == before {
            break;
        }
        before = now;
    }
    for _ in 0..10 {
        for number in 0..20 {
            assert_eq!(get(&mut pool, target(number)).status, 200);
        }
    }
    assert_eq!(forks(), before);
}

#[test]
fn more_tenants_than_workers_are_served_without_exceeding_them_and_without_thrashing() {
    let server = start_with(json!({"max_workers": 4, "boot_at_start": 0, "tenants": tenants(8)}));
    let mut pool = server.loop_pool();
    let mut longest = Duration::ZERO;
    for round in 0..10 {
        let began = Instant::now();
        for number in 0..8 {
            assert_eq!(get(&mut pool, target(number)).status, 200);
            assert!(server.report().workers <= 4, "{} workers in round {round}", server.report().workers);
        }
        longest = longest.max(began.elapsed());
    }
    // The first four workers stay, since none of them is idle; the other tenants need a fork for each request.
    let mut forks: Vec<u64> = server.report().tenants.iter().map(|tenant| tenant.forks).collect();
    if longest >= Duration::from_millis(500) {
        // The machine is so slow that some workers were idle for a second between two rounds, and others have stayed.
        forks.sort_unstable();
    }
    if longest < Duration::from_secs(1) {
        assert!(forks[..4].iter().all(|&forks| forks <= 3), "{forks:?}");
    }
    assert!(forks[4..].iter().all(|&forks| forks >= 8), "{forks:?}");
}

#[test]
fn the_least_recently_used_worker_is_closed_for_another_tenants() {
    let server = start_with(json!({"max_workers": 2, "boot_at_start": 0, "tenants": tenants(3)}));
    let mut pool = server.loop_pool();
    for number in [0, 1] {
        assert_eq!(get(&mut pool, target(number)).status, 200);
    }
    // Idle for longer than a second; then one of the two is used again.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(get(&mut pool, target(1)).status, 200);
    assert_eq!(get(&mut pool, target(2)).status, 200);
    assert_eq!(server.report().workers, 2);
    let forks = |name: &str| report(&server, name).forks;
    let before = forks("t1");
    assert_eq!(get(&mut pool, target(1)).status, 200);
    assert_eq!(forks("t1"), before, "the recently used worker stayed");
    let before = forks("t0");
    assert_eq!(get(&mut pool, target(0)).status, 200);
    assert_eq!(forks("t0"), before + 1, "the other worker was closed");
}

#[test]
fn a_failed_first_boot_is_answered_with_its_reason_and_not_retried_at_once() {
    let missing = json!({"name": "a", "path": "/a", "program": "/nonexistent/program"});
    let server = start_with(json!({"boot_at_start": 0, "tenants": [missing]}));
    let mut pool = server.loop_pool();
    for _ in 0..3 {
        let response = get(&mut pool, "/a");
        assert_eq!(response.error(), (503, "unavailable".to_owned()));
        assert!(response.reason().contains("No such file"), "{}", response.reason());
    }
}
