// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs read the time by themselves: correct, moving forwards, and without an exit.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{call, patient, program, snapshot, text};
use mayfly_sandbox::{
    BufferedResponse, CallError, Host, MonotonicClock, NoLog, Program, Progress, Request, Snapshot, Worker,
};

const CLOCKS: [libc::clockid_t; 6] = [
    libc::CLOCK_REALTIME,
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_MONOTONIC_RAW,
    libc::CLOCK_REALTIME_COARSE,
    libc::CLOCK_MONOTONIC_COARSE,
    libc::CLOCK_BOOTTIME,
];

/// How far a program's clock may be off.
const TOLERANCE_NS: i64 = 1000;

/// Whether programs need no exit for the time here. On hosts that keep time by something else than the counter, they
/// make system calls.
fn has_clocks() -> bool {
    Host::open().unwrap().report().clocks
}

/// The host's clock; in programs the coarse clocks are the fine ones.
fn now(clock: libc::clockid_t) -> i64 {
    let fine = match clock {
        libc::CLOCK_REALTIME_COARSE => libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC_COARSE => libc::CLOCK_MONOTONIC,
        other => other,
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the result.
    assert_eq!(unsafe { libc::clock_gettime(fine, &raw mut now) }, 0);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// What `/clocks` answers, by name.
fn parse(text: &str) -> HashMap<&str, i64> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.parse().unwrap()))
        })
        .collect()
}

/// Whether a clock stands still while a program is frozen.
fn stands_still(clock: libc::clockid_t) -> bool {
    [libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_MONOTONIC_COARSE].contains(&clock)
}

/// Asks for all clocks; each must lie between two readings of the host's. Those that may stand still while the program
/// is frozen are behind the host's: `behind` by a certain time where the worker keeps its state, and in each request
/// again by the value at which they were `frozen_at`, where it is reset.
fn clocks_are_right(worker: &mut Worker, expected: &Expected) {
    let before = CLOCKS.map(now);
    let (stats, response) = call(worker, "/clocks", b"").unwrap();
    let after = CLOCKS.map(now);
    let text = String::from_utf8(response.body).unwrap();
    let told = parse(&text);
    for ((clock, before), after) in CLOCKS.into_iter().zip(before).zip(after) {
        let told = told[clock.to_string().as_str()];
        let (before, after) = match *expected {
            _ if !stands_still(clock) => (before, after),
            Expected::Behind(by, doubt) => {
                let raw = if clock == libc::CLOCK_MONOTONIC_RAW && doubt > 0 { RAW_DRIFT_NS } else { 0 };
                (before - by - doubt - raw, after - by + doubt + raw)
            }
            Expected::FrozenAt(then, doubt) => {
                let raw = if clock == libc::CLOCK_MONOTONIC_RAW { now(clock) - now(libc::CLOCK_MONOTONIC) } else { 0 };
                let slack = if raw == 0 { 0 } else { RAW_DRIFT_NS };
                (then + raw - doubt - slack, then + raw + (after - before) + doubt + slack)
            }
        };
        let right = before - TOLERANCE_NS..=after + TOLERANCE_NS;
        assert!(
            right.contains(&told),
            "clock {clock}: {} after {before}, {} before {after}",
            told - before,
            after - told
        );
    }
    let real = before[0] - TOLERANCE_NS..=after[0] + TOLERANCE_NS;
    assert!((real.start() / 1000..=real.end() / 1000).contains(&told["gettimeofday"]));
    assert!((real.start() / 1_000_000_000..=real.end() / 1_000_000_000).contains(&told["time"]));
    assert!(text.ends_with("getcpu 0 0\n"), "{text}");
    if has_clocks() {
        // The test program makes some system calls of its own in every request.
        assert_eq!(stats, call(worker, "/ok", b"").unwrap().0);
    }
}

#[test]
fn every_clock_is_the_hosts_without_an_exit() {
    let snapshots = [MonotonicClock::Runs, MonotonicClock::Suspends].map(|monotonic| {
        let program = Program { monotonic, ..program("faults", &[]) };
        let host = Host::open().unwrap();
        (monotonic, Snapshot::boot(&host, &program, &patient(), Arc::new(NoLog)).unwrap())
    });
    // The first request of a fork faults its pages in.
    for ((monotonic, snapshot), keeps_state) in snapshots.iter().flat_map(|it| [(it, false), (it, true)]) {
        let mut worker =
            if keeps_state { Worker::fork_keeping_state(snapshot) } else { Worker::fork(snapshot) }.unwrap();
        call(&mut worker, "/clocks", b"").unwrap();
        let before = now(libc::CLOCK_MONOTONIC);
        let answer = text(&mut worker, "/clocks");
        let after = now(libc::CLOCK_MONOTONIC);
        let told = parse(&answer)[libc::CLOCK_MONOTONIC.to_string().as_str()];
        let doubt = after - before;
        let expected = match monotonic {
            MonotonicClock::Runs => Expected::Behind(0, 0),
            MonotonicClock::Suspends if keeps_state => Expected::Behind(before - told, doubt),
            MonotonicClock::Suspends => Expected::FrozenAt(told, doubt),
        };
        for pause in [0, 0, 1, 50, 400, 0, 1200, 0] {
            std::thread::sleep(Duration::from_millis(pause));
            clocks_are_right(&mut worker, &expected);
        }
    }
}

#[test]
fn a_request_that_does_not_fit_leaves_the_programs_clock_where_it_stands() {
    let program = Program { monotonic: MonotonicClock::Suspends, ..program("faults", &[]) };
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program, &patient(), Arc::new(NoLog)).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    let told = |worker: &mut Worker| parse(&text(worker, "/clocks"))[libc::CLOCK_MONOTONIC.to_string().as_str()];
    let before = told(&mut worker);
    let too_large = vec![0; patient().request_bytes as usize];
    assert!(matches!(call(&mut worker, "/clocks", &too_large), Err(CallError::RequestTooLarge { .. })));
    std::thread::sleep(Duration::from_secs(2));
    let passed = Duration::from_nanos(told(&mut worker).abs_diff(before));
    assert!(passed < Duration::from_secs(1), "{passed:?}");
}

/// The expected values of a program's monotonic clocks, and the tolerance.
enum Expected {
    Behind(i64, i64),
    FrozenAt(i64, i64),
}

/// How far the raw clock may have drifted from the adjusted one since the program was frozen.
const RAW_DRIFT_NS: i64 = 5_000_000;

/// Numbers that a request answers.
fn numbers(text: &str) -> Vec<i64> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn a_second_without_an_exit_is_as_long_as_the_hosts() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    // Rates settle in a process's first second.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        call(&mut worker, "/clocks", b"").unwrap();
    }
    let off = (0..3)
        .map(|_| {
            let (stats, response) = call(&mut worker, "/clocks-run?1000", b"").unwrap();
            let answer = numbers(std::str::from_utf8(&response.body).unwrap());
            assert_eq!(answer[1], 0, "a clock went backwards");
            if has_clocks() {
                let own = call(&mut worker, "/ok", b"").unwrap().0.syscalls;
                assert_eq!(stats.syscalls, own + 1, "the one that it compares with");
                assert!(answer[0] > 1000);
            }
            answer[2]
        })
        .min();
    assert!(off.unwrap() < TOLERANCE_NS, "{off:?}");
}

#[test]
fn time_does_not_go_back_while_a_request_is_paused_and_resumed() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    let request =
        Request { method: b"GET", path: b"/clocks-run", query: b"2000", headers: &[], body: b"", client: None };
    let mut sink = BufferedResponse::default();
    let slice = Duration::from_millis(1);
    let mut progress = worker.start(7, &request, slice, &mut sink).unwrap();
    let mut slices = 0;
    while !matches!(progress, Progress::Answered(_)) {
        slices += 1;
        if slices % 16 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        progress = worker.resume(slice, &mut sink).unwrap();
    }
    worker.reset().unwrap();
    assert!(slices > 10);
    assert_eq!(numbers(std::str::from_utf8(&sink.body).unwrap())[1], 0, "a clock went backwards");
}

#[test]
fn system_calls_and_the_vdso_agree() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    for _ in 0..5 {
        let answer = text(&mut worker, "/clocks-agree?1000");
        for line in answer.lines() {
            let [clock, off] = numbers(line)[..] else { panic!("{line}") };
            assert!(off < TOLERANCE_NS, "clock {clock} was off by {off} ns");
        }
    }
}

/// Runs a request in slices of a millisecond, with pauses in between; the answer, and how long the slices took
/// together.
fn in_slices(worker: &mut Worker, path: &[u8], query: &[u8]) -> (String, i64) {
    let request = Request { method: b"GET", path, query, headers: &[], body: b"", client: None };
    let mut sink = BufferedResponse::default();
    let slice = Duration::from_millis(1);
    let mut ran = -now(libc::CLOCK_MONOTONIC);
    let mut progress = worker.start(7, &request, slice, &mut sink).unwrap();
    ran += now(libc::CLOCK_MONOTONIC);
    while !matches!(progress, Progress::Answered(_)) {
        std::thread::sleep(Duration::from_millis(5));
        ran -= now(libc::CLOCK_MONOTONIC);
        progress = worker.resume(slice, &mut sink).unwrap();
        ran += now(libc::CLOCK_MONOTONIC);
    }
    worker.reset().unwrap();
    (String::from_utf8(sink.body).unwrap(), ran)
}

/// Time in which a program was paused or frozen is not its CPU time, and a reset takes back what a request has used.
#[test]
fn cpu_time_passes_while_a_request_runs() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    let mut first = None;
    for _ in 0..3 {
        let (answer, ran) = in_slices(&mut worker, b"/clocks-cpu", b"20");
        let [began, ended] = numbers(&answer)[..] else { panic!("{answer}") };
        assert!(ended - began >= 20_000_000 && ended - began <= ran, "{answer}: it ran for {ran} ns");
        let (first, first_ran) = *first.get_or_insert((began, ran));
        assert!(
            (began - first).abs() <= ran.max(first_ran),
            "{answer}: it began at {first} before, and ran for {ran} ns"
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A profiler's timer reaches a program that makes no call, and belongs to the request.
#[test]
fn timers_of_cpu_time_interrupt_a_program_that_spins() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    for _ in 0..2 {
        assert_eq!(in_slices(&mut worker, b"/clocks-profile", b"5").0, "0 0 0\n");
    }
}
