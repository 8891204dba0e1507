// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs that keep their state do between requests.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::plain::Plain;
use common::{patient, program, snapshot, text};
use mayfly_sandbox::{
    BackgroundProgress, CallError, Host, Limits, NoLog, Program, Service, Slice, Snapshot, Worker, WorkerState,
};

const SLICE: Duration = Duration::from_millis(1);
const NOTHING: BackgroundProgress = BackgroundProgress::Waits { until_ns: None };
/// How long a test waits for a program in any case.
const PATIENCE: Duration = Duration::from_secs(60);

fn upkeep() -> Snapshot {
    let program = Program { service: Some(Service::new(Arc::new(Plain))), ..program("upkeep", &[]) };
    let limits = Limits { threads: 8, ..patient() };
    Snapshot::boot(&Host::open().expect("these tests need an engine"), &program, &limits, Arc::new(NoLog)).unwrap()
}

fn kept() -> Worker {
    Worker::fork_keeping_state(&upkeep()).unwrap()
}

/// Runs the program in real time until it has nothing to do.
fn rest(worker: &mut Worker) -> Result<(), CallError> {
    let start = Instant::now();
    while worker.run_in_background(Slice::blocking(SLICE))? != NOTHING {
        assert!(start.elapsed() < PATIENCE, "it never rests");
        std::thread::sleep(SLICE);
    }
    Ok(())
}

#[test]
fn what_is_due_after_the_response_happens_without_a_request() {
    for task in ["/task?100", "/thread?100"] {
        let mut worker = kept();
        assert_eq!(text(&mut worker, task), "yes");
        // At first it goes on behind its response.
        assert!(worker.take_cpu_ns() > 0);
        rest(&mut worker).unwrap();
        assert!(worker.take_cpu_ns() > 0);
        std::thread::sleep(Duration::from_millis(300));
        let late_ms: u64 = text(&mut worker, "/late").parse().unwrap();
        assert_eq!((text(&mut worker, "/done").as_str(), text(&mut worker, "/visits").as_str()), ("1", "4"), "{task}");
        assert!(late_ms < PATIENCE.as_millis() as u64, "{task}: {late_ms}");
        rest(&mut worker).unwrap();
        // And otherwise it does nothing.
        assert_eq!(worker.run_in_background(SLICE).unwrap(), NOTHING);
    }
}

#[test]
fn it_is_known_when_a_program_has_something_to_do() {
    let mut worker = kept();
    text(&mut worker, "/task?600000");
    let start = Instant::now();
    loop {
        match worker.run_in_background(SLICE).unwrap() {
            BackgroundProgress::Waits { until_ns: Some(_) } => break,
            other => assert_ne!(other, NOTHING),
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(text(&mut worker, "/done"), "0");
}

#[test]
fn a_thread_that_never_rests_is_interrupted_and_requests_are_answered() {
    let mut worker = kept();
    text(&mut worker, "/spin");
    let mut former = 0;
    for visit in 0..5 {
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(worker.run_in_background(SLICE).unwrap(), BackgroundProgress::Paused);
            assert_eq!(worker.state(), WorkerState::Ready);
        }
        assert!(start.elapsed() < PATIENCE);
        let count: u64 = text(&mut worker, "/count").parse().unwrap();
        assert!(count > former, "{count} after {former}");
        former = count;
        assert_eq!(text(&mut worker, "/visits"), (3 + 2 * visit).to_string());
    }
}

#[test]
fn output_without_a_request_is_no_response() {
    for task in ["/talk?50", "/close?50"] {
        // It is found between the requests.
        let mut worker = kept();
        text(&mut worker, "/visits");
        text(&mut worker, task);
        rest(&mut worker).unwrap();
        assert_eq!(text(&mut worker, "/done"), "1", "{task}");
        assert_eq!(text(&mut worker, "/visits"), "4", "{task}");

        // Or with the next request, before the program has read that.
        let mut worker = kept();
        text(&mut worker, "/visits");
        text(&mut worker, task);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(text(&mut worker, "/visits"), "3", "{task}");
        assert_eq!(text(&mut worker, "/done"), "1", "{task}");
    }
}

#[test]
fn a_program_that_ends_between_requests_poisons_its_worker() {
    let mut worker = kept();
    text(&mut worker, "/exit?20");
    let error = rest(&mut worker).unwrap_err();
    assert!(matches!(error, CallError::Exited { status: 3 }), "{error}");
    assert_eq!(worker.state(), WorkerState::Poisoned);
    assert_eq!(worker.run_in_background(SLICE).unwrap(), NOTHING, "it does not run again");
}

#[test]
fn only_a_worker_with_state_of_a_request_runs_between_requests() {
    let snapshot = upkeep();
    let stands_still = |worker: &mut Worker| {
        assert!(!worker.runs_between_requests());
        assert_eq!(worker.run_in_background(SLICE).unwrap(), NOTHING);
    };
    let mut ephemeral = Worker::fork(&snapshot).unwrap();
    stands_still(&mut ephemeral);
    text(&mut ephemeral, "/task?1");
    stands_still(&mut ephemeral);
    assert_eq!(ephemeral.differences(), 0);

    let mut kept = Worker::fork_keeping_state(&snapshot).unwrap();
    stands_still(&mut kept);
    text(&mut kept, "/visits");
    assert!(kept.runs_between_requests());

    // One that is reset now and then stands still at its snapshot, in whatever middle it was interrupted before.
    let mut now_and_then = Worker::fork_resetting_every(&snapshot, 2.try_into().unwrap()).unwrap();
    for _ in 0..3 {
        stands_still(&mut now_and_then);
        text(&mut now_and_then, "/spin");
        assert!(now_and_then.runs_between_requests());
        for _ in 0..3 {
            assert_eq!(now_and_then.run_in_background(SLICE).unwrap(), BackgroundProgress::Paused);
        }
        assert_eq!(text(&mut now_and_then, "/visits"), "2");
        stands_still(&mut now_and_then);
        assert_eq!(now_and_then.differences(), 0);
    }

    let mut at_the_doorbell = Worker::fork_keeping_state(&self::snapshot("visits")).unwrap();
    text(&mut at_the_doorbell, "/");
    stands_still(&mut at_the_doorbell);
}
