// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that serve connections, by every way of waiting for them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::plain::Plain;
use common::{Kept, call, patient, program};
use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, Host, Limits, LogSink, NoLog, Progress, Readiness, Request, ResponseError,
    Service, Snapshot, Target, WarmUp, Worker, WorkerState,
};

/// The ways in which `tenants/listens` waits.
const WAYS: [&str; 7] = ["accept", "once", "poll", "epoll", "edge", "thread", "tick"];

fn boot(how: &str, warm_ups: u32, limits: &Limits) -> Result<Snapshot, BootError> {
    let warm_up = common::warm_up("/count", warm_ups);
    let mut program = program("listens", &[how]);
    program.service = Some(Service { warm_up: vec![warm_up], ..Service::new(Arc::new(Plain)) });
    Snapshot::boot(&Host::open().expect("these tests need an engine"), &program, limits, Arc::new(NoLog))
}

fn limits() -> Limits {
    Limits { threads: 8, ..patient() }
}

fn body(worker: &mut Worker, target: &str, sent: &[u8]) -> Vec<u8> {
    call(worker, target, sent).unwrap_or_else(|error| panic!("{target}: {error}")).1.body
}

#[test]
fn every_way_of_waiting_serves_and_starts_from_the_snapshot_each_time() {
    for how in WAYS {
        for warm_ups in [0, 3] {
            let snapshot = boot(how, warm_ups, &limits()).unwrap_or_else(|error| panic!("{how}: {error}"));
            let mut worker = Worker::fork(&snapshot).unwrap();
            let first = (warm_ups + 1).to_string();
            for _ in 0..3 {
                assert_eq!(body(&mut worker, "/count", b""), first.as_bytes(), "{how}, {warm_ups}");
                assert_eq!(body(&mut worker, "/", b""), b"Hello World!", "{how}");
                assert_eq!(body(&mut worker, "/echo", b"what is sent"), b"what is sent", "{how}");
                assert_eq!(worker.differences(), 0, "{how}");
            }
            assert!(body(&mut worker, "/chunked", b"").starts_with(b"5\r\nHello"), "{how}");
            assert_eq!(body(&mut worker, "/close", b""), b"until the end", "{how}");
            assert_eq!(body(&mut worker, "/thread", b""), b"42", "{how}");
            assert_eq!(body(&mut worker, "/count", b""), first.as_bytes(), "{how}");
        }
    }
}

#[test]
fn large_bodies_go_both_ways() {
    for how in ["accept", "epoll", "edge"] {
        let mut worker = Worker::fork(&boot(how, 1, &limits()).unwrap()).unwrap();
        let sent: Vec<u8> = (0..700_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
        assert_eq!(body(&mut worker, "/echo", &sent), sent, "{how}");
        assert_eq!(body(&mut worker, "/large?3000000", b"").len(), 3_000_000, "{how}");
        assert_eq!(worker.differences(), 0, "{how}");
    }
}

#[test]
fn a_server_that_has_kept_its_connection_open_costs_two_exits() {
    for how in ["accept", "epoll", "poll"] {
        let mut worker = Worker::fork(&boot(how, 1, &limits()).unwrap()).unwrap();
        call(&mut worker, "/", b"").unwrap();
        let (stats, _) = call(&mut worker, "/", b"").unwrap();
        // Two writes, and the read, where the one in the snapshot was on another connection.
        assert!(stats.exits <= 3 && stats.faults == 0, "{how}: {stats:?}");
        assert_eq!(stats.exits, stats.syscalls, "{how}");
    }
}

#[test]
fn a_worker_that_keeps_its_state_goes_on_where_it_was() {
    for how in WAYS {
        let mut worker = Worker::fork_keeping_state(&boot(how, 2, &limits()).unwrap()).unwrap();
        for count in 3..10 {
            assert_eq!(body(&mut worker, "/count", b""), count.to_string().as_bytes(), "{how}");
        }
        assert_eq!(body(&mut worker, "/close", b""), b"until the end", "{how}");
        assert_eq!(body(&mut worker, "/count", b""), b"11", "{how}");
    }
}

#[test]
fn what_is_no_answer_is_an_error_and_the_worker_goes_on() {
    for how in WAYS {
        let mut worker = Worker::fork(&boot(how, 1, &limits()).unwrap()).unwrap();
        for target in ["/partial", "/nonsense", "/silent"] {
            let error = call(&mut worker, target, b"").unwrap_err();
            assert!(matches!(error, CallError::Response(ResponseError::Malformed(_))), "{how}, {target}: {error}");
            worker.reset().unwrap();
            assert_eq!(body(&mut worker, "/count", b""), b"2", "{how}, {target}");
        }
    }
}

#[test]
fn a_program_that_ends_or_never_answers_is_not_used_again() {
    for how in ["accept", "epoll"] {
        let snapshot = boot(how, 1, &limits()).unwrap();
        let mut worker = Worker::fork(&snapshot).unwrap();
        assert!(matches!(call(&mut worker, "/exit", b""), Err(CallError::Exited { status: 3 })), "{how}");
        assert_eq!(worker.state(), WorkerState::Poisoned);
        let mut worker = Worker::fork(&snapshot).unwrap();
        assert!(matches!(call(&mut worker, "/never", b""), Err(CallError::Stuck { .. })), "{how}");
    }
    let limits = Limits { cpu_time: Duration::from_millis(50), ..limits() };
    let mut worker = Worker::fork(&boot("epoll", 1, &limits).unwrap()).unwrap();
    assert!(matches!(call(&mut worker, "/spin", b""), Err(CallError::CpuLimit { .. })));
}

#[test]
fn a_request_that_sleeps_blocks_no_thread() {
    let mut worker = Worker::fork(&boot("epoll", 1, &limits()).unwrap()).unwrap();
    let request = Request { method: b"GET", path: b"/sleep", query: b"1000", headers: &[], body: b"", client: None };
    let mut response = BufferedResponse::default();
    let started = Instant::now();
    let mut progress = worker.start(1, &request, Duration::from_millis(1), &mut response).unwrap();
    let mut waits = 0;
    while !matches!(progress, Progress::Answered(_)) {
        if matches!(progress, Progress::Waits { .. }) {
            waits += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        progress = worker.resume(Duration::from_millis(1), &mut response).unwrap();
    }
    assert_eq!(response.body, b"slept");
    assert!(waits > 0 && started.elapsed() >= Duration::from_secs(1), "{waits}, {:?}", started.elapsed());
    worker.reset().unwrap();
    assert_eq!(worker.differences(), 0);
    // Given up in the middle of its sleep, it is as it was.
    let long = Request { method: b"GET", path: b"/sleep", query: b"60000", headers: &[], body: b"", client: None };
    let mut progress = worker.start(2, &long, Duration::from_millis(20), &mut response).unwrap();
    while !matches!(progress, Progress::Waits { .. }) {
        assert!(!matches!(progress, Progress::Answered(_)), "{progress:?}");
        progress = worker.resume(Duration::from_millis(20), &mut response).unwrap();
    }
    worker.reset().unwrap();
    assert_eq!(body(&mut worker, "/count", b""), b"2");
    assert_eq!(worker.differences(), 0);
}

#[test]
fn a_program_that_does_not_listen_does_not_boot() {
    let mut never = program("listens", &["no-such-way"]);
    never.service = Some(Service::new(Arc::new(Plain)));
    let error = Snapshot::boot(&Host::open().unwrap(), &never, &limits(), Arc::new(NoLog)).unwrap_err();
    assert!(matches!(error, BootError::Exited { status: 2 }), "{error}");
    let mut at_doorbell = program("hello", &[]);
    at_doorbell.service = never.service;
    let error = Snapshot::boot(&Host::open().unwrap(), &at_doorbell, &limits(), Arc::new(NoLog)).unwrap_err();
    assert!(error.to_string().contains("doorbell"), "{error}");
}

#[test]
fn a_warm_up_request_without_an_answer_is_reported_with_what_the_threads_wait_for() {
    let short = Limits { boot_time: Duration::from_millis(500), ..limits() };
    for (path, query) in [("/sleep", "60000"), ("/never", "")] {
        let mut program = program("listens", &["epoll"]);
        let warm_up = WarmUp { path: path.into(), query: query.into(), ..common::warm_up("/", 2) };
        program.service = Some(Service { warm_up: vec![warm_up], ..Service::new(Arc::new(Plain)) });
        let error = Snapshot::boot(&Host::open().unwrap(), &program, &short, Arc::new(NoLog)).unwrap_err();
        assert!(matches!(&error, BootError::WarmUp { path: of, .. } if of == path), "{error}");
        let message = error.to_string();
        assert!(message.contains("it answered 0 of them ") && message.contains(" (listens) waits in "), "{message}");
    }
}

/// A service with this boot, which fails.
fn refusal(how: &str, service: Service, limits: &Limits) -> BootError {
    let mut program = program("listens", &[how]);
    program.service = Some(service);
    Snapshot::boot(&Host::open().unwrap(), &program, limits, Arc::new(NoLog)).unwrap_err()
}

fn target(path: &str, query: &str) -> Target {
    Target { path: path.into(), query: query.into() }
}

fn plain() -> Service {
    Service::new(Arc::new(Plain))
}

#[test]
fn the_error_of_a_boot_that_ends_names_what_was_waited_for() {
    let short = Limits { boot_time: Duration::from_millis(500), ..limits() };
    let ready = |target| Some(Readiness { target, status: 200, within: Duration::from_secs(60) });
    let error = refusal("epoll", Service { ready: ready(target("/sleep", "60000")), ..plain() }, &short);
    assert!(matches!(error, BootError::NotReady { .. }), "{error}");
    let message = error.to_string();
    let expected =
        "the program was not ready within 2s (4 times the limit boot_ms): GET /sleep?60000 was not answered; ";
    assert!(message.starts_with(expected) && message.contains(" (listens) waits in "), "{message}");
    let error = refusal("epoll", Service { ready: ready(target("/never", "")), ..plain() }, &short);
    assert!(matches!(error, BootError::NotReady { .. }), "{error}");

    for (hook, why) in [(target("/sleep", "60000"), "within 2s "), (target("/never", ""), "before all its threads ")] {
        let expected = format!("\"before_freeze\": {hook} was not answered {why}");
        let error = refusal("epoll", Service { before_freeze: Some(hook), ..plain() }, &short);
        assert!(matches!(error, BootError::BeforeFreeze(_)), "{error}");
        let message = error.to_string();
        assert!(message.starts_with(&expected) && message.contains(" (listens) waits in "), "{message}");
    }

    let warm_up = common::warm_up("/", 1);
    // The program has a timer, and idles for longer than its boot may take.
    let restless = Service { warm_up: vec![warm_up], settle: Duration::from_secs(60), ..plain() };
    let error = refusal("tick", restless, &short);
    assert!(matches!(error, BootError::NeverRests { .. }), "{error}");
}

#[test]
fn a_long_boot_says_that_it_asks_and_that_it_settles() {
    let said = |service| {
        let log = Arc::new(Kept::default());
        let mut program = program("listens", &["tick"]);
        program.service = Some(service);
        let _ = Snapshot::boot(&Host::open().unwrap(), &program, &limits(), Arc::clone(&log) as Arc<dyn LogSink>);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    };
    let slow = || target("/sleep", "6000");
    let ready = Readiness { target: slow(), status: 200, within: Duration::from_secs(60) };
    for (service, expected) in [
        (Service { ready: Some(ready), ..plain() }, "the program has not answered GET /sleep?6000 (\"ready\")"),
        (Service { settle: Duration::from_secs(6), ..plain() }, "the program comes to rest for the freeze; thread "),
        (
            Service { before_freeze: Some(slow()), ..plain() },
            "the program has not answered GET /sleep?6000 (\"before_freeze\") yet; thread ",
        ),
    ] {
        let said = said(service);
        assert!(said.contains(&format!("mayfly: booting for 5 s: {expected}")), "{said}");
    }
}

#[test]
fn a_worker_that_was_prepared_too_long_ago_is_prepared_again() {
    let mut program = program("listens", &["epoll"]);
    program.service = Some(Service { after_restore: Some(target("/count", "")), ..plain() });
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program, &limits(), Arc::new(NoLog)).unwrap();
    for mut worker in [Worker::fork(&snapshot).unwrap(), Worker::fork_keeping_state(&snapshot).unwrap()] {
        assert!(!worker.renew_hook(Duration::ZERO).unwrap(), "it is not prepared");
        let mut progress = worker.start_hook(Duration::from_secs(60)).unwrap();
        while progress != Progress::Restored {
            progress = worker.resume(Duration::from_secs(60), &mut BufferedResponse::default()).unwrap();
        }
        assert!(!worker.needs_hook());
        assert!(!worker.renew_hook(Duration::from_secs(600)).unwrap(), "it is young");
        std::thread::sleep(Duration::from_millis(2));
        assert!(worker.renew_hook(Duration::ZERO).unwrap());
        assert!(worker.needs_hook());
        assert_eq!(body(&mut worker, "/count", b""), b"2", "asked once, and requested once");
        assert!(!worker.renew_hook(Duration::ZERO).unwrap(), "it has had a request");
    }
}

#[test]
fn a_server_that_should_ring_the_doorbell_is_distinguished_from_a_program_that_hangs() {
    // One that waits forever, and one that wakes from time to time.
    for how in ["accept", "tick"] {
        let server = program("listens", &[how]);
        let error = Snapshot::boot(&Host::open().unwrap(), &server, &limits(), Arc::new(NoLog)).unwrap_err();
        assert!(matches!(error, BootError::Listens { .. }), "{how}: {error}");
        assert!(error.to_string().contains("\"serve\": \"connections\""), "{error}");
    }
}

#[test]
fn a_program_is_warmed_up_until_it_is_steady_if_that_is_wanted() {
    let mut program = program("listens", &["epoll"]);
    let warm_up = WarmUp { steady: true, ..common::warm_up("/", 2) };
    program.service = Some(Service { warm_up: vec![warm_up], ..Service::new(Arc::new(Plain)) });
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program, &limits(), Arc::new(NoLog)).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    let count: u32 = String::from_utf8(body(&mut worker, "/count", b"")).unwrap().parse().unwrap();
    // Batches of 8 to 512 requests, until one falls behind the cheapest four times, or for two seconds.
    assert!((8..20_000).contains(&count), "{count}");
}

#[test]
fn other_threads_finish_their_work_between_warm_up_requests() {
    let mut program = program("listens", &["epoll"]);
    program.service = Some(Service { warm_up: vec![common::warm_up("/behind", 5)], ..Service::new(Arc::new(Plain)) });
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program, &limits(), Arc::new(NoLog)).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    assert_eq!(body(&mut worker, "/behind", b""), b"0", "requests that came before the work was done");
}

#[test]
fn a_warm_up_request_has_its_body() {
    let mut program = program("listens", &["epoll"]);
    let warm_up = WarmUp { method: b"POST".to_vec(), body: vec![b'x'; 60_000], ..common::warm_up("/echo", 3) };
    program.service = Some(Service { warm_up: vec![warm_up], ..Service::new(Arc::new(Plain)) });
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program, &limits(), Arc::new(NoLog)).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    assert_eq!(body(&mut worker, "/bytes", b""), b"180000");
}

#[test]
fn a_warm_up_request_that_fails_says_which() {
    let mut program = program("listens", &["epoll"]);
    let warm_up = common::warm_up("/silent", 1);
    program.service = Some(Service { warm_up: vec![warm_up], ..Service::new(Arc::new(Plain)) });
    let error = Snapshot::boot(&Host::open().unwrap(), &program, &limits(), Arc::new(NoLog)).unwrap_err();
    assert!(error.to_string().contains("/silent"), "{error}");
}
