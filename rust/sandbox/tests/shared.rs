// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory in whole workers: kept over resets, visible to all, and as untrusted as all memory of programs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use common::{Kept, call, patient, program, snapshot, text};
use mayfly_sandbox::inventory::{INVENTORY, KEPT};
use mayfly_sandbox::{CallError, Host, LogSink, NoLog, ResponseError, SharedMemory, Snapshot, Worker, WorkerState};

const PAGES: u64 = 2;
const BYTES: u64 = PAGES * mayfly_machine::PAGE_SIZE;

fn region() -> SharedMemory {
    SharedMemory::anonymous(BYTES).unwrap()
}

/// `faults`, booted with a region; `args` as on its command line.
fn boot_with(region: &SharedMemory, args: &[&str], log: Arc<dyn LogSink>) -> Snapshot {
    let mut program = program("faults", args);
    program.shared = Some(region.clone());
    Snapshot::boot(&Host::open().expect("these tests need an engine"), &program, &patient(), log).unwrap()
}

fn worker() -> Worker {
    Worker::fork(&boot_with(&region(), &[], Arc::new(NoLog))).unwrap()
}

#[test]
fn the_inventory_names_it_as_the_exception() {
    assert_eq!(KEPT.iter().map(|item| item.name).collect::<Vec<_>>(), ["shared-memory", "durable-file"]);
    assert!(INVENTORY.iter().all(|item| !item.restored_by.is_empty()));
}

#[test]
fn boot_and_workers_see_one_region_at_one_address_and_reset_leaves_it_alone() {
    let region = region();
    let snapshot = boot_with(&region, &["boot:shared-add=5"], Arc::new(NoLog));
    let mut workers = [Worker::fork(&snapshot).unwrap(), Worker::fork(&snapshot).unwrap()];
    let place = text(&mut workers[0], "/shared");
    assert!(place.ends_with(&format!(" {BYTES}\n")), "{place}");
    let mut sum = 5;
    for _ in 0..3 {
        for worker in &mut workers {
            assert_eq!(text(worker, "/shared"), place);
            sum += 1;
            assert_eq!(text(worker, "/shared-add"), format!("{sum}\n"));
            assert_eq!(worker.differences(), 0);
        }
    }
    // The next generation finds it as it is; so does a worker that keeps its state.
    let next = boot_with(&region, &[], Arc::new(NoLog));
    assert_eq!(text(&mut Worker::fork(&next).unwrap(), "/shared-add"), format!("{}\n", sum + 1));
    assert_eq!(text(&mut Worker::fork_keeping_state(&next).unwrap(), "/shared-add"), format!("{}\n", sum + 2));
}

#[test]
fn it_costs_no_exit_and_no_private_page() {
    let mut worker = worker();
    for target in ["/ok", "/shared-add"] {
        call(&mut worker, target, b"").unwrap();
    }
    let (plain, _) = call(&mut worker, "/ok", b"").unwrap();
    let private = worker.private_bytes();
    for _ in 0..3 {
        assert_eq!(call(&mut worker, "/shared-add", b"").unwrap().0, plain);
        assert_eq!(worker.private_bytes(), private);
    }
}

#[test]
fn atomics_of_two_threads_add_up() {
    const ROUNDS: u64 = 20;
    const COUNT: u64 = 10_000;
    let snapshot = boot_with(&region(), &[], Arc::new(NoLog));
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut worker = Worker::fork(&snapshot).unwrap();
                start.wait();
                for _ in 0..ROUNDS {
                    call(&mut worker, &format!("/shared-add?{COUNT}"), b"").unwrap();
                }
            });
        }
    });
    let sum = text(&mut Worker::fork(&snapshot).unwrap(), "/shared-add");
    assert_eq!(sum, format!("{}\n", 2 * ROUNDS * COUNT + 1));
}

#[test]
fn a_file_outlives_all_that_used_it() {
    let path = std::env::temp_dir().join(format!("mayfly-shared-{}-sandbox", std::process::id()));
    for sum in [3, 6] {
        let region = SharedMemory::file(&path, BYTES).unwrap();
        let snapshot = boot_with(&region, &[], Arc::new(NoLog));
        assert_eq!(text(&mut Worker::fork(&snapshot).unwrap(), "/shared-add?3"), format!("{sum}\n"));
        // The host's own copies go through the file, and see the same bytes.
        let (_, response) = call(&mut Worker::fork(&snapshot).unwrap(), "/shared-answer", b"").unwrap();
        assert_eq!(response.body, b"a value.");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_response_may_lie_there_but_not_leave_it() {
    let mut worker = worker();
    let (_, response) = call(&mut worker, "/shared-answer", b"").unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, b"a value.".as_slice()));
    assert_eq!(response.headers, [(b"x-shared".to_vec(), b"a value.".to_vec())]);
    let (_, response) = call(&mut worker, "/shared-body?5000", b"").unwrap();
    assert_eq!(response.body, [b's'; 5000]);
    let error = call(&mut worker, "/shared-body-past", b"").unwrap_err();
    assert!(matches!(error, CallError::Response(ResponseError::Address { part: "body", .. })), "{error:?}");
    assert_eq!(worker.state(), WorkerState::Ready);
    assert_eq!(worker.differences(), 0);
}

#[test]
fn system_calls_take_buffers_there_and_refuse_those_that_leave_it() {
    let log = Arc::new(Kept::default());
    let mut worker = Worker::fork(&boot_with(&region(), &[], log.clone())).unwrap();
    assert_eq!(text(&mut worker, "/shared-print"), "7 -14\n");
    assert_eq!(*log.0.lock().unwrap(), b"shared\n");
    assert_eq!(text(&mut worker, "/shared-time"), "0 -14\n");
}

#[test]
fn no_system_call_takes_it_away_or_changes_it() {
    let mut worker = worker();
    // munmap(2) of what the program has not mapped succeeds and does nothing, as on Linux.
    assert_eq!(text(&mut worker, "/shared-remap"), "0 -12 -12 -14 -12 1\n");
    assert_eq!(worker.differences(), 0);
    assert_eq!(text(&mut worker, "/shared-add"), "2\n");
}

#[test]
fn it_cannot_be_run_and_has_an_end() {
    let region = region();
    let snapshot = boot_with(&region, &[], Arc::new(NoLog));
    for target in ["/shared-exec", "/shared-past"] {
        let mut worker = Worker::fork(&snapshot).unwrap();
        let error = call(&mut worker, target, b"").map(|(_, response)| response).unwrap_err();
        assert!(matches!(error, CallError::Faulted(fault) if fault.signal == libc::SIGSEGV), "{target}: {error:?}");
        assert_eq!(worker.state(), WorkerState::Poisoned);
    }
}

#[test]
fn a_tenant_that_has_none_finds_none() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    assert_eq!(text(&mut worker, "/shared"), "there is no shared memory\n");
}

/// Ends the other thread however this one ends.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The bytes that are checked are the bytes that are sent, while another worker changes every part of the response:
/// lengths, counts and text.
#[test]
fn a_response_that_changes_while_it_is_read_is_sent_as_it_was_checked() {
    let snapshot = boot_with(&region(), &[], Arc::new(NoLog));
    let mut reader = Worker::fork(&snapshot).unwrap();
    let mut spoiler = Worker::fork(&snapshot).unwrap();
    let stop = AtomicBool::new(false);
    let (mut sent, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                call(&mut spoiler, "/shared-spoil?1001", b"").unwrap();
            }
        });
        let _stop = OnDrop(&stop);
        // Runs until both outcomes have been seen, so that there was a race: on a busy machine it takes some time until
        // both workers run at once. The limit ends a test that cannot see them.
        let begun = Instant::now();
        for round in 0.. {
            let has_raced = sent > 0 && refused > 0;
            if (has_raced && round >= 20_000) || begun.elapsed() > Duration::from_secs(60) {
                break;
            }
            match call(&mut reader, "/shared-race", b"") {
                Ok((_, response)) => {
                    sent += 1;
                    assert_eq!(response.status, 200);
                    assert!(response.headers.len() <= 1 && response.body.len() <= 8);
                    for (name, value) in &response.headers {
                        assert!(!name.is_empty() && name.iter().all(|byte| *byte == b'x'), "{name:?}");
                        assert!(value.iter().all(|byte| *byte == b'v'), "{value:?}");
                    }
                }
                Err(CallError::Response(_)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            assert_eq!(reader.state(), WorkerState::Ready);
            if sent >= 500 && refused >= 500 {
                break;
            }
        }
    });
    println!("{sent} sent, {refused} refused");
    assert!(sent > 0 && refused > 0, "{sent} sent, {refused} refused: no race");
}
