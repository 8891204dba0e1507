// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that run in slices: paused, resumed on any thread, given up.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use common::{boot, call, patient, snapshot, text};
use mayfly_sandbox::{BufferedResponse, CallError, Limits, Progress, Request, Worker, WorkerState};

const MILLISECOND: Duration = Duration::from_millis(1);

fn request(target: &str) -> Request<'_> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request { method: b"GET", path: path.as_bytes(), query: query.as_bytes(), headers: &[], body: b"", client: None }
}

/// Starts a request that is not answered within its first slice.
fn start_and_pause(worker: &mut Worker, target: &str, slice: Duration) {
    let mut sink = BufferedResponse::default();
    let progress = worker.start(7, &request(target), slice, &mut sink).unwrap();
    assert_eq!((progress, worker.state()), (Progress::Paused, WorkerState::Paused), "{target}");
    assert_eq!(sink, BufferedResponse::default(), "{target}: the sink is untouched");
}

/// Resumes until there is an answer; returns it and how many slices it took.
fn resume_to_the_end(worker: &mut Worker, slice: Duration) -> (String, u32) {
    let mut sink = BufferedResponse::default();
    for slices in 1.. {
        match worker.resume(slice, &mut sink).unwrap() {
            Progress::Paused | Progress::Waits { .. } | Progress::Calls => {
                assert_eq!(worker.state(), WorkerState::Paused)
            }
            Progress::Restored => unreachable!("the program has no hook"),
            Progress::Answered(_) => {
                assert_eq!(worker.state(), WorkerState::Answered);
                worker.reset().unwrap();
                return (String::from_utf8(sink.body).unwrap(), slices);
            }
        }
    }
    unreachable!("the request ends")
}

/// What `work` and `work-exits` answer: so many steps from a value to `value * multiplier + increment`. Two steps are
/// one such step of another multiplier and increment, so this takes no time for any number of them.
fn worked(mut steps: u64) -> String {
    let (mut multiplier, mut increment) = (6_364_136_223_846_793_005_u64, 1_442_695_040_888_963_407_u64);
    let mut value = 1_u64;
    while steps > 0 {
        if steps % 2 == 1 {
            value = value.wrapping_mul(multiplier).wrapping_add(increment);
        }
        increment = increment.wrapping_mul(multiplier.wrapping_add(1));
        multiplier = multiplier.wrapping_mul(multiplier);
        steps /= 2;
    }
    format!("{value}\n")
}

#[test]
fn a_spinning_request_is_paused_when_its_slice_ends() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    let mut late: Vec<Duration> = (0..50)
        .map(|round| {
            // The watchdog is between two looks, at a phase that varies.
            for _ in 0..round % 17 {
                let _ = worker.start(7, &request("/ok"), MILLISECOND, &mut BufferedResponse::default()).unwrap();
                worker.reset().unwrap();
            }
            let began = Instant::now();
            start_and_pause(&mut worker, "/loop", MILLISECOND);
            let took = began.elapsed();
            assert!(took >= MILLISECOND, "not before its end: {took:?}");
            worker.reset().unwrap();
            took - MILLISECOND
        })
        .collect();
    late.sort();
    println!("late by {:?} in the median, {:?} at most", late[25], late[49]);
    // The watchdog's aim is 0.2 ms; an emulated or overloaded machine must pass, too.
    assert!(late[25] < Duration::from_millis(250), "{:?}", late[25]);
}

#[test]
fn a_paused_request_goes_on_on_another_thread() {
    // Half a second: longer than the watchdog waits for a processor on a busy machine.
    const STEPS: u64 = 400_000_000;
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    start_and_pause(&mut worker, &format!("/work?{STEPS}"), MILLISECOND / 4);
    let (mut worker, (answer, slices)) = std::thread::spawn(move || {
        let answer = resume_to_the_end(&mut worker, MILLISECOND);
        (worker, answer)
    })
    .join()
    .unwrap();
    assert_eq!(answer, worked(STEPS));
    assert!(slices > 1, "{slices}");
    assert_eq!(worker.differences(), 0);
    call(&mut worker, "/ok", b"").unwrap();
}

#[test]
fn every_kind_of_exit_survives_a_pause() {
    const STEPS: u64 = 300;
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    let mut pauses = 0;
    // Slices of no length, and of lengths that end anywhere.
    for microseconds in [0, 50, 130, 270] {
        let slice = Duration::from_micros(microseconds);
        start_and_pause(&mut worker, &format!("/work-exits?{STEPS}"), slice);
        let (answer, slices) = resume_to_the_end(&mut worker, slice.max(Duration::from_micros(20)));
        assert_eq!(answer, worked(STEPS), "{slice:?}");
        assert_eq!(worker.differences(), 0, "{slice:?}");
        pauses += slices;
    }
    println!("{pauses} pauses");
}

#[test]
fn a_request_that_is_given_up_leaves_nothing() {
    let snapshot = snapshot("faults");
    let kinds: [fn(&_) -> _; 3] = [Worker::fork, Worker::fork_keeping_state, |snapshot| {
        Worker::fork_resetting_every(snapshot, NonZeroU32::new(7).unwrap())
    }];
    for fork in kinds {
        let fresh = text(&mut fork(&snapshot).unwrap(), "/state");
        let mut worker = fork(&snapshot).unwrap();
        for round in 0..20_u32 {
            for target in
                ["/loop", "/loop-syscall", "/loop-write", "/loop-doorbell", "/loop-mmap", "/work-exits?99999999"]
            {
                start_and_pause(&mut worker, target, Duration::from_micros(u64::from(100 + 37 * round)));
                worker.reset().unwrap();
                assert_eq!((worker.state(), worker.differences()), (WorkerState::Ready, 0), "{target}");
            }
            // The program's log of addresses and registers; clocks and random numbers are not in it.
            let mut sink = BufferedResponse::default();
            let _ = worker.start(7, &request("/state"), Duration::MAX, &mut sink).unwrap();
            assert_eq!(String::from_utf8(sink.body).unwrap(), fresh, "round {round}");
            // Gives up state that the worker would keep.
            worker.reset().unwrap();
            start_and_pause(&mut worker, "/loop", MILLISECOND);
            worker.reset().unwrap();
        }
    }
}

#[test]
fn cpu_time_adds_up_over_pauses_and_threads() {
    let limits = Limits { cpu_time: Duration::from_secs(5), ..patient() };
    let mut worker = Worker::fork(&boot("faults", &[], &limits).unwrap()).unwrap();
    start_and_pause(&mut worker, "/loop", MILLISECOND);
    let mut slices = 0;
    loop {
        slices += 1;
        assert!(slices < 5000, "the limit is on all slices together");
        let (back, result) = std::thread::spawn(move || {
            let result = worker.resume(10 * MILLISECOND, &mut BufferedResponse::default());
            (worker, result)
        })
        .join()
        .unwrap();
        worker = back;
        match result {
            Ok(progress) => assert_eq!(progress, Progress::Paused),
            Err(error) => {
                assert!(matches!(error, CallError::CpuLimit { limit } if limit == limits.cpu_time), "{error:?}");
                break;
            }
        }
    }
    // Five hundred, unless the machine is so slow that a slice takes far more than its time.
    assert!(slices > 2, "pauses do not use up the limit: {slices}");
    assert_eq!(worker.state(), WorkerState::Poisoned);
}

#[test]
fn wall_clock_time_goes_on_while_a_request_is_paused() {
    // Long enough to begin on a slow machine.
    let limits = Limits { wall_time: Duration::from_secs(3), ..patient() };
    let snapshot = boot("faults", &[], &limits).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    let began = Instant::now();
    let mut sink = BufferedResponse::default();
    start_and_pause(&mut worker, "/loop", MILLISECOND);
    std::thread::sleep(limits.wall_time.saturating_sub(began.elapsed()));
    let error = worker.resume(MILLISECOND, &mut sink).unwrap_err();
    assert!(matches!(error, CallError::WallLimit { limit } if limit == limits.wall_time), "{error:?}");
    assert_eq!(worker.state(), WorkerState::Poisoned);

    let mut worker = Worker::fork(&snapshot).unwrap();
    let error = call(&mut worker, "/loop", b"").unwrap_err();
    assert!(matches!(error, CallError::WallLimit { .. }), "and while it runs: {error:?}");
}

#[test]
fn what_is_not_paused_cannot_be_resumed() {
    let mut sink = BufferedResponse::default();
    let mut worker = Worker::fork(&snapshot("hello")).unwrap();
    assert!(matches!(worker.resume(MILLISECOND, &mut sink), Err(CallError::Poisoned)));
    assert_eq!(worker.state(), WorkerState::Poisoned);

    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    start_and_pause(&mut worker, "/loop", MILLISECOND);
    assert!(matches!(worker.start(8, &request("/ok"), MILLISECOND, &mut sink), Err(CallError::Poisoned)));
    assert!(matches!(worker.resume(MILLISECOND, &mut sink), Err(CallError::Poisoned)));
}

#[test]
fn a_worker_is_reset_after_its_number_of_requests() {
    let snapshot = snapshot("faults");
    let value = |worker: &mut Worker, target| {
        text(worker, target).lines().find(|line| line.starts_with("data ")).unwrap().to_owned()
    };
    let fresh = value(&mut Worker::fork(&snapshot).unwrap(), "/state");
    for requests in 1..=4 {
        let fork = || Worker::fork_resetting_every(&snapshot, NonZeroU32::new(requests).unwrap()).unwrap();
        let fresh_state = text(&mut fork(), "/state");
        let mut worker = fork();
        for round in 0..5 {
            let dirty = value(&mut worker, "/dirty-data");
            assert_ne!(dirty, fresh);
            for _ in 2..requests {
                assert_eq!(value(&mut worker, "/state"), dirty, "every {requests}, round {round}");
            }
            if requests > 1 {
                text(&mut worker, "/dirty-all");
            }
            assert_eq!(worker.differences(), 0, "every {requests}, round {round}");
            assert_eq!(value(&mut worker, "/state"), fresh, "every {requests}, round {round}");
            for _ in 1..requests {
                call(&mut worker, "/ok", b"").unwrap();
            }
            assert_eq!(worker.differences(), 0);
            assert_eq!(text(&mut worker, "/state"), fresh_state, "registers too: every {requests}, round {round}");
            for _ in 1..requests {
                call(&mut worker, "/ok", b"").unwrap();
            }
        }
    }
}
