// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watchdog of an idle process sleeps. A test program of its own: other tests' requests would keep it awake.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{call, snapshot};
use mayfly_sandbox::{BufferedResponse, Progress, Request, Worker};

/// How often the watchdog's thread has gone to sleep.
fn sleeps() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default())
        .find(|status| status.starts_with("Name:\tmayfly-watchdog\n"))
        .expect("there is a watchdog");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn an_idle_process_wakes_for_nothing_and_a_leg_wakes_the_watchdog() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    call(&mut worker, "/ok", b"").unwrap();
    // It keeps looking for 100 ms.
    let patience = Instant::now();
    loop {
        let before = sleeps();
        std::thread::sleep(Duration::from_millis(300));
        if sleeps() == before {
            break;
        }
        assert!(patience.elapsed() < Duration::from_secs(60), "it never goes to sleep");
    }
    let request = Request { method: b"GET", path: b"/loop", query: b"", headers: &[], body: b"", client: None };
    let progress = worker.start(7, &request, Duration::from_millis(1), &mut BufferedResponse::default()).unwrap();
    assert_eq!(progress, Progress::Paused, "it was asleep when the request began");
}
