// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bound on the process's memory: what is closed or stopped, which requests are refused, and that all tenants are
//! served again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use mayfly_tenancy::{LoopPool, Outcome, Server};
use serde_json::{Value, json};
use support::{Later, Response, report, request, start_with, tenant, wait_until};

const MIB: u64 = 1 << 20;

/// Requests touch thousands of pages for the first time, which takes long on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

fn get(pool: &mut LoopPool, target: &'static str) -> Response {
    let request = request(target);
    let mut response = Response::default();
    if pool.call(&request, &mut response) == Outcome::Done {
        return response;
    }
    let (sender, receiver) = mpsc::channel();
    pool.call_later(&request, Box::new(Later { response, sender }));
    receiver.recv_timeout(TIMEOUT).expect("every request is answered")
}

/// All tests share the process's memory, so they run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bounded(mib: u64, tenants: &[Value]) -> Server {
    start_with(json!({"max_memory_mib": mib, "boot_at_start": 0, "tenants": tenants}))
}

/// A tenant with large limits, which does `boot` when it boots.
fn large(name: &str, boot: &str) -> Value {
    let limits = json!({
        "cpu_ms": 60_000, "wall_ms": 100_000, "inline_budget_us": 1_000_000, "memory_mib": 256, "boot_memory_mib": 256,
        "work_set_kib": 262_144,
    });
    tenant(name, json!({"limits": limits, "args": [boot]}))
}

/// Sets a waker, as an event loop does; returns the count of its calls.
fn tended(pool: &mut LoopPool) -> Arc<AtomicU64> {
    let woken = Arc::new(AtomicU64::new(0));
    let waker = Arc::clone(&woken);
    pool.set_waker(move || {
        waker.fetch_add(1, Ordering::Relaxed);
    });
    woken
}

/// Repeats a request until it is answered with 200.
fn served_at_last(pool: &mut LoopPool, target: &'static str) -> Response {
    let start = Instant::now();
    loop {
        pool.tend();
        let response = get(pool, target);
        if response.status == 200 {
            return response;
        }
        assert_eq!(response.status, 503, "{target}: {}", response.reason());
        assert!(response.reason().contains("memory"), "{target}: {}", response.reason());
        assert!(start.elapsed() < TIMEOUT, "{target} is never served: {}", response.reason());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_request_is_refused_memory_before_the_process_passes_its_bound_and_others_continue() {
    let _alone = alone();
    let server = bounded(32, &[large("a", ""), large("b", "")]);
    let mut pool = server.loop_pool();
    assert_eq!(get(&mut pool, "/b/ok").status, 200);
    for _ in 0..2 {
        let response = get(&mut pool, "/a/touch?40");
        assert_eq!(response.error(), (503, "server-memory".to_owned()));
        assert!(response.reason().contains("max_memory_mib"), "{}", response.reason());
        // At once, unless closing the machine of that request takes long.
        assert_eq!(served_at_last(&mut pool, "/b/ok").status, 200);
        assert_eq!(served_at_last(&mut pool, "/a/touch?2").status, 200);
    }
    let memory = server.report().memory;
    assert!(memory.bytes < 32 * MIB, "{memory:?}");
    assert!(report(&server, "a").memory_refusals >= 2);
}

#[test]
fn idle_workers_of_a_loop_without_requests_are_closed() {
    let _alone = alone();
    let tenants: Vec<Value> = ["a", "b", "c"].iter().map(|name| large(name, "boot:region=4")).collect();
    let server = bounded(64, &tenants);
    let mut idle = server.loop_pool();
    let woken = tended(&mut idle);
    for target in ["/a/region", "/b/region", "/c/region"] {
        // Twice: a worker that was forked for a request waits in the mailbox for the next one.
        assert_eq!(served_at_last(&mut idle, target).status, 200);
        assert_eq!(served_at_last(&mut idle, target).status, 200);
    }
    assert!(server.report().memory.machine_bytes > 24 * MIB, "{:?}", server.report().memory);
    let mut busy = server.loop_pool();
    let before = woken.load(Ordering::Relaxed);
    // Three programs and three workers of 4 MiB each leave no room for this.
    let start = Instant::now();
    while get(&mut busy, "/a/touch?32").status != 200 {
        if woken.load(Ordering::Relaxed) != before {
            idle.tend();
        }
        assert!(start.elapsed() < TIMEOUT, "idle workers are not closed");
    }
    let memory = server.report().memory;
    assert!(memory.closed_workers > 0 && memory.shortages > 0, "{memory:?}");
    assert!(memory.bytes < 64 * MIB, "{memory:?}");
    for target in ["/a/region", "/b/region", "/c/region"] {
        assert_eq!(served_at_last(&mut idle, target).status, 200);
    }
}

#[test]
fn programs_that_do_not_fit_together_take_turns() {
    let _alone = alone();
    const NAMES: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];
    const TARGETS: [&str; 8] = ["/p0/ok", "/p1/ok", "/p2/ok", "/p3/ok", "/p4/ok", "/p5/ok", "/p6/ok", "/p7/ok"];
    let tenants: Vec<Value> = NAMES.iter().map(|name| large(name, "boot:touch=16")).collect();
    let server = bounded(128, &tenants);
    let mut pool = server.loop_pool();
    for _ in 0..2 {
        for target in TARGETS {
            assert_eq!(served_at_last(&mut pool, target).status, 200);
            let memory = server.report().memory;
            assert!(memory.bytes < 128 * MIB, "{memory:?}");
        }
    }
    let memory = server.report().memory;
    assert!(memory.stopped_programs >= 4, "{memory:?}");
}

#[test]
fn all_memory_is_returned_at_shutdown() {
    let _alone = alone();
    let server = bounded(1024, &[large("a", "boot:touch=40")]);
    let mut pool = server.loop_pool();
    assert_eq!(get(&mut pool, "/a/touch?8").status, 200);
    assert!(report(&server, "a").memory_bytes > 40 * MIB);
    let used = server.report().memory.bytes;
    drop(pool);
    server.shutdown();
    let other = bounded(1024, &[]);
    drop(server);
    wait_until("memory is returned", || other.report().memory.bytes + 30 * MIB < used);
}
