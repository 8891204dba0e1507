// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of a storage program, and state that is handed to the next generation.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{boot, call, patient, snapshot, text};
use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, Limits, METHOD_CALL, PeerCall, PeerError, Progress, Request, Snapshot,
    Worker, WorkerState,
};

const ENDLESS: Duration = Duration::MAX;
const EFAULT: &str = "error -14\n";
const EMSGSIZE: &str = "error -90\n";
const EINVAL: &str = "error -22\n";

fn request<'a>(target: &'a str, body: &'a [u8]) -> Request<'a> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request { method: b"GET", path: path.as_bytes(), query: query.as_bytes(), headers: &[], body, client: None }
}

/// Starts a request and runs it to its call.
fn start_and_call(worker: &mut Worker, target: &str, body: &[u8]) {
    let mut sink = BufferedResponse::default();
    let progress = worker.start(7, &request(target, body), ENDLESS, &mut sink).unwrap();
    assert_eq!((progress, worker.state()), (Progress::Calls, WorkerState::Paused), "{target}");
    assert_eq!(sink, BufferedResponse::default(), "{target}: the sink is untouched");
}

/// Resumes to the answer, and resets.
fn finish(worker: &mut Worker) -> String {
    let mut sink = BufferedResponse::default();
    assert!(matches!(worker.resume(ENDLESS, &mut sink).unwrap(), Progress::Answered(_)));
    worker.reset().unwrap();
    String::from_utf8(sink.body).unwrap()
}

/// The answer of a request whose call is refused.
fn refused(worker: &mut Worker, target: &str) -> String {
    let mut sink = BufferedResponse::default();
    let progress = worker.start(7, &request(target, b""), ENDLESS, &mut sink).unwrap();
    assert!(matches!(progress, Progress::Answered(_)), "{target}: {progress:?} {:?}", worker.peer_call());
    worker.reset().unwrap();
    String::from_utf8(sink.body).unwrap()
}

fn boot_as(program: &str) -> Snapshot {
    boot("faults", &[program], &patient()).unwrap()
}

#[test]
fn a_call_goes_out_and_its_result_comes_back() {
    let snapshot = snapshot("faults");
    for mut worker in [Worker::fork(&snapshot).unwrap(), Worker::fork_keeping_state(&snapshot).unwrap()] {
        for round in 0..5 {
            start_and_call(&mut worker, "/peer", b"an argument");
            assert_eq!(worker.peer_call(), Some(PeerCall { name: b"f", argument: b"an argument" }));
            worker.answer_peer(Ok(b"a result")).unwrap();
            assert_eq!(worker.peer_call(), None);
            assert_eq!(finish(&mut worker), "8 a result\n", "round {round}");
        }
        assert_eq!(text(&mut worker, "/ok"), "ok\n");
    }
}

#[test]
fn a_reset_after_a_call_leaves_nothing() {
    let snapshot = snapshot("faults");
    let mut worker = Worker::fork(&snapshot).unwrap();
    let fresh = text(&mut Worker::fork(&snapshot).unwrap(), "/state");
    call(&mut worker, "/ok", b"").unwrap();
    let steady = call(&mut worker, "/ok", b"").unwrap().0;
    start_and_call(&mut worker, "/peer", b"x");
    worker.answer_peer(Ok(b"y")).unwrap();
    finish(&mut worker);
    assert_eq!(worker.differences(), 0);
    // In the middle of a call, before and after its answer.
    start_and_call(&mut worker, "/peer", &vec![b'x'; 100 << 10]);
    worker.reset().unwrap();
    assert_eq!((worker.state(), worker.differences(), worker.peer_call()), (WorkerState::Ready, 0, None));
    start_and_call(&mut worker, "/peer-result-new", b"x");
    worker.answer_peer(Ok(b"some result")).unwrap();
    worker.reset().unwrap();
    assert_eq!((worker.state(), worker.differences()), (WorkerState::Ready, 0));
    assert_eq!(text(&mut worker, "/state"), fresh);
    call(&mut worker, "/ok", b"").unwrap();
    assert_eq!(call(&mut worker, "/ok", b"").unwrap().0, steady, "the doorbell rewinds again");
}

#[test]
fn every_error_has_its_number() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    for (error, number) in [
        (PeerError::NoPeer, -107),
        (PeerError::UnknownFunction, -2),
        (PeerError::TooLarge, -90),
        (PeerError::TimedOut, -110),
        (PeerError::Busy, -16),
        (PeerError::Failed, -5),
    ] {
        start_and_call(&mut worker, "/peer", b"");
        worker.answer_peer(Err(error)).unwrap();
        assert_eq!(finish(&mut worker), format!("error {number}\n"));
    }
    start_and_call(&mut worker, "/peer", b"");
    assert_eq!(finish(&mut worker), "error -107\n", "resumed without an answer");
    assert_eq!(text(&mut worker, "/peer"), "error -107\n", "the caller has no storage program");
}

#[test]
fn results_are_bounded_by_buffer_and_limit() {
    let limits = Limits { response_bytes: 8192, ..patient() };
    let mut worker = Worker::fork(&boot("faults", &[], &limits).unwrap()).unwrap();
    for (target, size, expected) in [
        ("/peer?0", 0, "0 \n"),
        ("/peer?0", 1, EMSGSIZE),
        ("/peer?10", 10, "10 rrrrrrrrrr\n"),
        ("/peer?10", 11, EMSGSIZE),
        ("/peer-capacity-size?0xffffffffffffffff", 3, "3 rrr\n"),
        ("/peer-capacity-size?0xffffffffffffffff", 8193, EMSGSIZE),
    ] {
        start_and_call(&mut worker, target, b"");
        worker.answer_peer(Ok(&vec![b'r'; size])).unwrap();
        assert_eq!(finish(&mut worker), expected, "{target} {size}");
    }
}

#[test]
fn a_call_that_breaks_a_rule_never_goes_out() {
    let limits = Limits { request_bytes: 16 << 10, ..patient() };
    let mut worker = Worker::fork(&boot("faults", &[], &limits).unwrap()).unwrap();
    for part in ["struct", "name", "argument"] {
        for place in ["null", "low", "kernel", "non-canonical", "unmapped", "straddle"] {
            assert_eq!(refused(&mut worker, &format!("/peer-{part}-{place}")), EFAULT, "{part} {place}");
        }
    }
    for (target, expected) in [
        ("/peer-name-size?0", EINVAL),
        ("/peer-name-size?129", EINVAL),
        ("/peer-name-size?0xffffffffffffffff", EINVAL),
        ("/peer-name-spaces", EINVAL),
        ("/peer-argument-size?16385", EMSGSIZE),
        ("/peer-argument-size?0x8000000000000000", EMSGSIZE),
        ("/peer-argument-size?0xffffffffffffffff", EMSGSIZE),
        ("/hooks", "-71\n"),
    ] {
        assert_eq!(refused(&mut worker, target), expected, "{target}");
    }
    start_and_call(&mut worker, "/peer-name-size?128", b"");
    assert_eq!(worker.peer_call().unwrap().name, [b'n'; 128]);
    worker.reset().unwrap();
    assert_eq!(worker.differences(), 0);
}

#[test]
fn a_result_that_cannot_be_written_gives_the_program_an_error() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    for place in ["null", "low", "kernel", "non-canonical", "unmapped", "straddle", "read-only"] {
        start_and_call(&mut worker, &format!("/peer-result-{place}"), b"");
        worker.answer_peer(Ok(b"resultat")).unwrap();
        assert_eq!(finish(&mut worker), EFAULT, "{place}");
        assert_eq!(worker.differences(), 0, "{place}");
    }
    start_and_call(&mut worker, "/peer-result-new", b"");
    worker.answer_peer(Ok(b"resultat")).unwrap();
    assert_eq!(finish(&mut worker), "8 resultat\n", "a page that was not touched before");
}

#[test]
fn there_is_no_call_at_boot() {
    let log = std::sync::Arc::new(common::Kept::default());
    let program = common::program("faults", &["boot:peer"]);
    Snapshot::boot(&mayfly_sandbox::Host::open().unwrap(), &program, &patient(), log.clone()).unwrap();
    assert_eq!(String::from_utf8(log.0.lock().unwrap().clone()).unwrap(), "error -71\n");
}

#[test]
fn calls_without_end_hit_the_limits() {
    let limits = Limits { cpu_time: Duration::from_millis(300), ..patient() };
    let mut worker = Worker::fork(&boot("faults", &[], &limits).unwrap()).unwrap();
    start_and_call(&mut worker, "/peer-endless", b"");
    let error = loop {
        worker.answer_peer(Ok(b"again")).unwrap();
        match worker.resume(Duration::from_millis(1), &mut BufferedResponse::default()) {
            Ok(other @ (Progress::Answered(_) | Progress::Restored | Progress::Waits { .. })) => {
                unreachable!("{other:?}: it calls forever")
            }
            Ok(Progress::Calls) => {}
            Ok(Progress::Paused) => {
                let error = worker.answer_peer(Ok(b"")).unwrap_err();
                assert!(matches!(error, CallError::Poisoned), "there is no call to answer");
                break CallError::CpuLimit { limit: limits.cpu_time };
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CallError::CpuLimit { .. }), "{error:?}");
    assert_eq!(worker.state(), WorkerState::Poisoned);
}

/// Carries out a call as the floor above does.
fn carry_out(storage: &mut Worker, call: PeerCall<'_>) -> (u16, Vec<u8>) {
    let request =
        Request { method: METHOD_CALL, path: call.name, query: b"", headers: &[], body: call.argument, client: None };
    let mut response = BufferedResponse::default();
    storage.call(0, &request, &mut response).unwrap();
    (response.status, response.body)
}

#[test]
fn a_program_calls_what_a_storage_program_serves() {
    let mut front = Worker::fork(&boot_as("boot:sdk-program")).unwrap();
    let mut storage = Worker::fork_keeping_state(&boot_as("boot:sdk-storage")).unwrap();
    let mut ask = |target: &str| {
        start_and_call(&mut front, target, b"");
        let (status, body) = carry_out(&mut storage, front.peer_call().unwrap());
        let answer = match status {
            200 => Ok(body.as_slice()),
            404 => Err(PeerError::UnknownFunction),
            _ => Err(PeerError::Failed),
        };
        front.answer_peer(answer).unwrap();
        finish(&mut front)
    };
    assert_eq!(ask("/append?-a"), "nothing-a");
    assert_eq!(ask("/append?-b"), "nothing-a-b", "the storage program keeps its state");
    assert_eq!(ask("/large").len(), 4096);
    assert_eq!(ask("/none"), "-2");
    assert_eq!(ask(&format!("/append?{}", "x".repeat(100))), "-5");
    assert_eq!(call(&mut storage, "/append", b"").unwrap().1.status, 405, "it does not serve clients' requests");
}

#[test]
fn state_goes_from_one_generation_to_the_next() {
    for program in ["boot:sdk-program", "boot:sdk-storage"] {
        let (old, new) = (boot_as(program), boot_as(program));
        assert!(old.has_handover() && new.has_handover());
        let mut old = Worker::fork_keeping_state(&old).unwrap();
        assert_eq!(old.save().unwrap(), b"nothing");
        old.restore(b"something").unwrap();
        let mut new = Worker::fork_keeping_state(&new).unwrap();
        new.restore(&old.save().unwrap()).unwrap();
        assert_eq!(new.save().unwrap(), b"something");
        assert!(matches!(new.restore(b"bad"), Err(CallError::Handover { status: Some(500) })));
        assert!(matches!(new.restore(&[0; 2 << 20]), Err(CallError::RequestTooLarge { .. })));
        assert_eq!(new.save().unwrap(), b"something", "and it goes on");
    }
    let mut worker = Worker::fork_keeping_state(&boot_as("boot:sdk-program")).unwrap();
    call(&mut worker, "/state", b"as a request left it").unwrap();
    assert_eq!(worker.save().unwrap(), b"as a request left it");
}

#[test]
fn a_program_without_hooks_hands_nothing_over() {
    let snapshot = snapshot("hello");
    assert!(!snapshot.has_handover());
    let mut worker = Worker::fork_keeping_state(&snapshot).unwrap();
    assert!(matches!(worker.save(), Err(CallError::Handover { status: None })));
    assert!(matches!(worker.restore(b""), Err(CallError::Handover { status: None })));
    assert_eq!(worker.state(), WorkerState::Ready);
    call(&mut worker, "/", b"").unwrap();
}

#[test]
fn hooks_of_another_abi_do_not_count() {
    let error = boot("faults", &["boot:doorbell-abi=9"], &patient()).map(|_| ()).unwrap_err();
    assert!(matches!(error, BootError::Abi { wanted: 9, .. }));
}
