// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sample tenants that keep state, as whole workers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use common::{boot, call, patient, program, snapshot, text};
use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, Host, Limits, METHOD_CALL, NoLog, PeerError, Progress, Request,
    SharedMemory, Snapshot, Worker,
};

fn counter(region: Option<&SharedMemory>) -> Result<Snapshot, BootError> {
    let mut program = program("counter", &[]);
    program.shared = region.cloned();
    Snapshot::boot(&Host::open().expect("these tests need an engine"), &program, &patient(), Arc::new(NoLog))
}

#[test]
fn counter_counts_over_threads_and_generations() {
    const REQUESTS: u64 = 300;
    let region = SharedMemory::anonymous(1).unwrap();
    for generation in 0..3 {
        let snapshot = counter(Some(&region)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut worker = Worker::fork(&snapshot).unwrap();
                    for _ in 0..REQUESTS {
                        let answer = text(&mut worker, "/");
                        assert!(answer.starts_with("Hello ") && answer.ends_with(" World!\n"), "{answer}");
                    }
                });
            }
        });
        let next = (2 * REQUESTS + 1) * (generation + 1);
        assert_eq!(text(&mut Worker::fork(&snapshot).unwrap(), "/"), format!("Hello {next} World!\n"));
    }
}

#[test]
fn counter_costs_what_hello_costs() {
    let (mut hello, mut counter) = (
        Worker::fork(&snapshot("hello")).unwrap(),
        Worker::fork(&counter(Some(&SharedMemory::anonymous(1).unwrap())).unwrap()).unwrap(),
    );
    let stats = [&mut hello, &mut counter].map(|worker| {
        call(worker, "/", b"").unwrap();
        (call(worker, "/", b"").unwrap().0, worker.work_pages())
    });
    assert_eq!(stats[0], stats[1]);
}

#[test]
fn counter_without_shared_memory_says_so_and_does_not_boot() {
    assert!(matches!(counter(None), Err(BootError::Exited { status: 1 })));
}

#[test]
fn visits_counts_as_its_mode_says() {
    let snapshot = snapshot("visits");
    let visits = |mut worker: Worker| [1, 2, 3, 4].map(|_| text(&mut worker, "/"));
    let every = NonZeroU32::new(2).unwrap();
    let lines = |numbers: [u32; 4]| numbers.map(|number| format!("visit {number}\n"));
    assert_eq!(visits(Worker::fork(&snapshot).unwrap()), lines([1, 1, 1, 1]));
    assert_eq!(visits(Worker::fork_resetting_every(&snapshot, every).unwrap()), lines([1, 2, 1, 2]));
    assert_eq!(visits(Worker::fork_keeping_state(&snapshot).unwrap()), lines([1, 2, 3, 4]));
}

#[test]
fn visits_hands_its_count_over() {
    let mut old = Worker::fork_keeping_state(&snapshot("visits")).unwrap();
    assert_eq!([text(&mut old, "/"), text(&mut old, "/")].concat(), "visit 1\nvisit 2\n");
    let state = old.save().unwrap();
    let mut new = Worker::fork_keeping_state(&snapshot("visits")).unwrap();
    assert!(matches!(new.restore(b"not a state"), Err(CallError::Handover { .. })), "refused, and still usable");
    new.restore(&state).unwrap();
    assert_eq!(text(&mut new, "/"), "visit 3\n");
    assert_eq!(text(&mut old, "/"), "visit 3\n", "the old worker still works, in case the new one is not used");
}

/// A worker of a program and one of its storage program, joined as the floor above joins them.
struct Pair {
    front: Worker,
    store: Worker,
}

impl Pair {
    fn new() -> Self {
        Self {
            front: Worker::fork(&snapshot("notes")).unwrap(),
            store: Worker::fork_keeping_state(&snapshot("store")).unwrap(),
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> BufferedResponse {
        let request =
            Request { method: method.as_bytes(), path: path.as_bytes(), query: b"", headers: &[], body, client: None };
        let mut response = BufferedResponse::default();
        let mut progress = self.front.start(1, &request, Duration::MAX, &mut response).unwrap();
        while matches!(progress, Progress::Calls) {
            let call = self.front.peer_call().unwrap();
            let request = Request {
                method: METHOD_CALL,
                path: call.name,
                query: b"",
                headers: &[],
                body: call.argument,
                client: None,
            };
            let mut result = BufferedResponse::default();
            self.store.call(2, &request, &mut result).unwrap();
            let answer = if result.status == 200 { Ok(result.body.as_slice()) } else { Err(PeerError::Failed) };
            self.front.answer_peer(answer).unwrap();
            progress = self.front.resume(Duration::MAX, &mut response).unwrap();
        }
        assert!(matches!(progress, Progress::Answered(_)));
        self.front.reset().unwrap();
        assert_eq!(self.front.differences(), 0);
        response
    }

    fn status(&mut self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.ask(method, path, body).status
    }
}

#[test]
fn notes_keeps_in_its_store_what_it_forgets_itself() {
    let mut pair = Pair::new();
    let long = [b'v'; 2048];
    assert_eq!(pair.status("GET", "/notes/a", b""), 404);
    assert_eq!(pair.status("PUT", "/notes/a", b"one\0\n"), 201);
    assert_eq!(pair.status("PUT", "/notes/b", &long), 201);
    assert_eq!(pair.status("PUT", "/notes/a", b"two"), 204);
    assert_eq!(pair.ask("GET", "/notes/a", b"").body, b"two");
    assert_eq!(pair.ask("GET", "/notes/b", b"").body, long);
    assert_eq!(pair.ask("GET", "/notes", b"").body, b"2");
    assert_eq!(pair.status("DELETE", "/notes/b", b""), 204);
    assert_eq!(pair.status("DELETE", "/notes/b", b""), 404);

    // The store's next generation takes them over, under the default limits.
    let state = pair.store.save().unwrap();
    pair.store = Worker::fork_keeping_state(&boot("store", &[], &Limits::default()).unwrap()).unwrap();
    assert_eq!(pair.status("GET", "/notes/a", b""), 404);
    pair.store.restore(&state).unwrap();
    assert_eq!(pair.ask("GET", "/notes/a", b"").body, b"two");
}

#[test]
fn notes_stops_at_the_stores_bounds() {
    let mut pair = Pair::new();
    for number in 0..256 {
        assert_eq!(pair.status("PUT", &format!("/notes/{number}"), b"x"), 201);
    }
    assert_eq!(pair.status("PUT", "/notes/more", b"x"), 507);
    assert_eq!(pair.status("PUT", "/notes/7", b"y"), 204);
    assert_eq!(pair.status("PUT", "/notes/7", &[b'v'; 2049]), 413);
    let state = pair.store.save().unwrap();
    assert!(state.len() < 1 << 20, "{} bytes fit the default limit on requests", state.len());
}

#[test]
fn spin_answers_at_once_unless_it_is_to_spin() {
    let limits = Limits { cpu_time: Duration::from_millis(200), ..patient() };
    let mut worker = Worker::fork(&boot("spin", &[], &limits).unwrap()).unwrap();
    assert_eq!(text(&mut worker, "/noisy"), "Hello World!");
    assert_eq!(text(&mut worker, "/noisy/spin?loops=1000"), "Hello World!");
    assert!(matches!(call(&mut worker, "/noisy/spin", b""), Err(CallError::CpuLimit { .. })));
}
