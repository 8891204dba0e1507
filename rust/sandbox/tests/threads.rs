// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs at the doorbell that have other threads.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{boot, patient, text};
use mayfly_sandbox::{BufferedResponse, CallError, Limits, Progress, Request, Snapshot, Worker, WorkerState};

fn snapshot(args: &[&str]) -> Snapshot {
    boot("threads", args, &Limits { threads: 8, ..patient() }).unwrap()
}

#[test]
fn requests_that_other_threads_work_on_start_from_the_snapshot() {
    let mut worker = Worker::fork(&snapshot(&[])).unwrap();
    for _ in 0..5 {
        assert_eq!(text(&mut worker, "/"), "2 1");
        assert_eq!(text(&mut worker, "/four"), "10 1");
        assert_eq!(text(&mut worker, "/start"), "42 1");
        assert_eq!(worker.differences(), 0);
    }
}

#[test]
fn threads_of_a_worker_that_keeps_its_state_go_on() {
    let mut worker = Worker::fork_keeping_state(&snapshot(&[])).unwrap();
    for jobs in 1..6 {
        assert_eq!(text(&mut worker, "/"), format!("2 {jobs}"));
    }
}

/// A thread that never waits is frozen where it is, and takes its turns.
#[test]
fn a_thread_that_spins_keeps_no_program_from_its_requests() {
    let mut worker = Worker::fork(&snapshot(&["spin"])).unwrap();
    for _ in 0..3 {
        let request = Request { method: b"GET", path: b"/", query: b"", headers: &[], body: b"", client: None };
        let mut response = BufferedResponse::default();
        let mut progress = worker.start(1, &request, Duration::from_millis(2), &mut response).unwrap();
        while !matches!(progress, Progress::Answered(_)) {
            progress = worker.resume(Duration::from_millis(2), &mut response).unwrap();
        }
        assert_eq!(response.body, b"2 1");
        worker.reset().unwrap();
        assert_eq!(worker.differences(), 0);
    }
}

#[test]
fn a_request_that_sleeps_is_paused_until_its_time() {
    let mut worker = Worker::fork(&snapshot(&[])).unwrap();
    let request = Request { method: b"GET", path: b"/sleep", query: b"", headers: &[], body: b"", client: None };
    let mut response = BufferedResponse::default();
    let started = Instant::now();
    let mut progress = worker.start(1, &request, Duration::from_secs(1), &mut response).unwrap();
    let mut waits = 0;
    while !matches!(progress, Progress::Answered(_)) {
        waits += u32::from(matches!(progress, Progress::Waits { .. }));
        std::thread::sleep(Duration::from_millis(1));
        progress = worker.resume(Duration::from_secs(1), &mut response).unwrap();
    }
    assert_eq!(response.body, b"12 1");
    assert!(waits > 0 && started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_program_may_have_no_more_threads_than_its_limit() {
    let limits = Limits { threads: 3, ..patient() };
    let mut worker = Worker::fork(&boot("threads", &[], &limits).unwrap()).unwrap();
    // Without another thread it answers by itself.
    assert_eq!(text(&mut worker, "/start"), "12 1");
    assert_eq!(worker.limit_hits().threads, 1);
}

#[test]
fn the_limit_on_cpu_time_counts_all_threads() {
    // The request sleeps for a second. On a busy machine the other threads get little of that.
    let limits = Limits { threads: 8, cpu_time: Duration::from_millis(2), ..patient() };
    let mut worker = Worker::fork(&boot("threads", &["spin"], &limits).unwrap()).unwrap();
    let request = Request { method: b"GET", path: b"/sleep", query: b"", headers: &[], body: b"", client: None };
    let mut response = BufferedResponse::default();
    let mut progress = worker.start(1, &request, Duration::from_millis(1), &mut response);
    let error = loop {
        match progress {
            Ok(Progress::Answered(_)) => panic!("it was answered after 500 times the limit"),
            Ok(_) => progress = worker.resume(Duration::from_millis(2), &mut response),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CallError::CpuLimit { .. }), "{error}");
    assert_eq!(worker.state(), WorkerState::Poisoned);
}
