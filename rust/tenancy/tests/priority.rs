// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that have left their loop compete for processors with a low priority, also as processes of their own.
//!
//! A test program of its own: it looks at all processes below this one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]
#![allow(clippy::disallowed_methods, reason = "a test, which reads /proc")]

mod support;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use mayfly_tenancy::Outcome;
use serde_json::json;
use support::*;

/// Of `/proc/PID/stat`: the command's name, the parent, and the nice value (proc_pid_stat(5)).
fn process(pid: u32) -> Option<(String, u32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some((name.to_owned(), fields.get(1)?.parse().ok()?, fields.get(16)?.parse().ok()?))
}

/// The nice values of the stubs below this process.
fn stubs() -> Vec<i32> {
    let is_below = |mut pid| {
        while let Some((_, parent, _)) = process(pid) {
            if parent == std::process::id() {
                return true;
            }
            pid = parent;
        }
        false
    };
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found = numbers.filter_map(|pid| Some((pid, process(pid)?)));
    found.filter(|(pid, (name, ..))| name == "mayfly-stub" && is_below(*pid)).map(|(_, (.., nice))| nice).collect()
}

#[test]
fn a_program_that_spins_has_a_low_priority_until_its_request_is_over() {
    let server = start(&[tenant("a", json!({"engine": "process", "limits": {"cpu_ms": 60_000, "wall_ms": 120_000}}))]);
    let mut pool = server.loop_pool();
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
    let normal = stubs();
    assert!(!normal.is_empty() && normal.iter().all(|nice| *nice == normal[0]), "{normal:?}");
    let (sender, receiver) = mpsc::channel();
    let spin = request("/a/spin?3000");
    assert_eq!(pool.call(&spin, &mut Response::default()), Outcome::Later);
    pool.call_later(&spin, Box::new(Later { response: Response::default(), sender }));
    wait_until("one has a low priority", || stubs().iter().any(|nice| *nice > normal[0]));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap().status, 200);
    // Raised again, or replaced where that is not allowed.
    wait_until("none has a low priority", || stubs().iter().all(|nice| *nice == normal[0]));
    assert_eq!(get(&mut pool, "/a/ok").status, 200);
}
