// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walks the table of the state that each way back into a program meets: drives it to its extremes, and compares what
//! the next request finds with what a fresh fork finds, in programs that ring the doorbell and in programs that serve
//! connections.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::plain::Plain;
use common::{call, patient, program, snapshot, text};
use mayfly_engine::{testing::Extreme, testing::Way, testing::extremes, testing::ways};
use mayfly_sandbox::ways::{MEETS, SetBy, WAYS};
use mayfly_sandbox::{
    BufferedResponse, CallError, Host, NoLog, Progress, Request, Service, Snapshot, Worker, WorkerState,
};

/// A program that answers with the registers of the code that faulted.
fn catching() -> Snapshot {
    common::boot("faults", &["boot:catch"], &patient()).unwrap()
}

fn serving() -> Snapshot {
    let mut program = program("faults", &["boot:catch", "boot:serve"]);
    program.service = Some(Service::new(Arc::new(Plain)));
    Snapshot::boot(&Host::open().unwrap(), &program, &patient(), Arc::new(NoLog)).unwrap()
}

/// How a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    /// By the program's handler, in the request that faulted.
    Caught,
    GivenUp,
    Faulted,
    Violation,
}

/// Runs a request's code up to its end, in slices where the way is to be interrupted.
fn go(worker: &mut Worker, extreme: &Extreme, way: &Way) -> End {
    let code = [extreme.code, way.code].concat();
    let request = Request { method: b"POST", path: b"/way", query: b"", headers: &[], body: &code, client: None };
    let slice = match way.name {
        "interrupt" => Duration::from_millis(1),
        "pause" => Duration::from_micros(50),
        _ => Duration::MAX,
    };
    let mut sink = BufferedResponse::default();
    let mut progress = worker.start(7, &request, slice, &mut sink);
    if way.name == "pause" {
        for _ in 0..3 {
            if matches!(progress, Ok(Progress::Paused)) {
                progress = worker.resume(slice, &mut sink);
            }
        }
    }
    let end = match progress {
        Ok(Progress::Answered(_)) if sink.body == b"went\n" => End::Answered,
        Ok(Progress::Answered(_)) => {
            let text = String::from_utf8_lossy(&sink.body).into_owned();
            assert!(text.starts_with("caught "), "{}, {}: {text}", extreme.name, way.name);
            End::Caught
        }
        Ok(_) => End::GivenUp,
        Err(CallError::Faulted(_)) => End::Faulted,
        Err(CallError::Violation(what)) => {
            assert_eq!(worker.state(), WorkerState::Poisoned, "{what}");
            End::Violation
        }
        Err(error) => panic!("{}, {}: {error}", extreme.name, way.name),
    };
    if worker.state() != WorkerState::Poisoned {
        worker.reset().unwrap_or_else(|error| panic!("{}, {}: {error}", extreme.name, way.name));
    }
    end
}

/// What a request finds in the processor.
fn state(worker: &mut Worker) -> String {
    text(worker, "/processor")
}

/// The ways of a program that rings the doorbell, and of one that serves connections. The trampoline is not one of
/// them: a program that enters it by itself begins the same request again, forever.
const AT_THE_DOORBELL: [&str; 6] = ["doorbell", "own doorbell", "fault", "page fault", "interrupt", "pause"];
const ON_A_CONNECTION: [&str; 5] = ["system call", "second system call", "forged system call", "fault", "interrupt"];

/// Walks extremes and ways; a worker goes on from one to the next for as long as it lives. Returns how often requests
/// ended in which way.
fn walk(
    snapshot: &Snapshot,
    ways_in: &[&str],
    is_in: impl Fn(&Extreme) -> bool,
) -> BTreeMap<(&'static str, End), usize> {
    let fresh = state(&mut Worker::fork(snapshot).unwrap());
    let mut worker = Worker::fork(snapshot).unwrap();
    let mut ends = BTreeMap::new();
    for (number, extreme) in extremes().into_iter().filter(is_in).enumerate() {
        for way in ways().iter().filter(|way| ways_in.contains(&way.name)) {
            let end = go(&mut worker, &extreme, way);
            *ends.entry((way.name, end)).or_default() += 1;
            if worker.state() == WorkerState::Poisoned {
                worker = Worker::fork(snapshot).unwrap();
                continue;
            }
            assert_eq!(state(&mut worker), fresh, "{}, {}: {end:?}", extreme.name, way.name);
        }
        // An audit of all memory, the slowest part.
        if number % 8 == 0 {
            assert_eq!(worker.differences(), 0, "up to {}", extreme.name);
        }
    }
    ends
}

#[test]
fn the_table_and_its_extremes_know_of_each_other() {
    let driven: BTreeSet<&str> = extremes().iter().map(|extreme| extreme.what).collect();
    let table: BTreeSet<&str> = MEETS.iter().filter(|row| row.has_extremes).map(|row| row.name).collect();
    assert_eq!(driven, table);
    assert_eq!(MEETS.iter().map(|row| row.name).collect::<BTreeSet<_>>().len(), MEETS.len(), "each has one row");
    for row in MEETS {
        assert!(!row.what.is_empty() && !row.why.is_empty());
        for (way, set_by) in WAYS.iter().zip(row.set_by) {
            // A request's own state goes on only where the same code goes on.
            let is_own_way = matches!(way, mayfly_sandbox::ways::Way::Kept | mayfly_sandbox::ways::Way::Resumed);
            assert!(set_by != SetBy::Own || is_own_way, "{}, {way:?}", row.name);
            assert!(row.has_extremes || matches!(set_by, SetBy::Fixed | SetBy::Host | SetBy::Ioctl), "{}", row.name);
        }
    }
}

#[test]
fn whatever_a_request_leaves_the_next_one_at_the_doorbell_finds_what_a_fresh_fork_finds() {
    let ends = walk(&catching(), &AT_THE_DOORBELL, |_| true);
    println!("{ends:?}");
    // By an `out` instruction, which only a virtual machine's program may use.
    let is_machine = Host::open().unwrap().report().kind != "process";
    let own = ("own doorbell", if is_machine { End::Answered } else { End::Caught });
    for way in [("doorbell", End::Answered), own, ("fault", End::Caught)] {
        assert!(ends.get(&way).is_some_and(|count| *count > 20), "{way:?}: {ends:?}");
    }
    assert!(ends[&("interrupt", End::GivenUp)] > 20 && ends.contains_key(&("pause", End::Answered)), "{ends:?}");
}

#[test]
fn whatever_a_request_leaves_the_next_connection_finds_what_a_fresh_fork_finds() {
    let ends = walk(&serving(), &ON_A_CONNECTION, |_| true);
    println!("{ends:?}");
    assert!(ends[&("system call", End::Answered)] > 20, "{ends:?}");
    assert!(ends[&("second system call", End::Answered)] > 20, "{ends:?}");
    assert!(ends[&("interrupt", End::GivenUp)] > 20, "{ends:?}");
}

#[test]
fn a_program_without_handlers_leaves_nothing_either() {
    walk(&snapshot("faults"), &["doorbell", "fault"], |extreme| matches!(extreme.what, "rsp" | "cpl" | "flags"));
}

#[test]
fn a_wild_stack_pointer_does_not_show_one_request_the_registers_of_another() {
    for name in ["rsp_wild_first", "rsp_wild_text", "rsp_wild_last"] {
        let wild = extremes().into_iter().find(|extreme| extreme.name == name).unwrap();
        for (snapshot, by) in [(catching(), "doorbell"), (serving(), "system call")] {
            let by = ways().into_iter().find(|way| way.name == by).unwrap();
            let fresh = state(&mut Worker::fork(&snapshot).unwrap());
            let mut worker = Worker::fork(&snapshot).unwrap();
            for _ in 0..3 {
                let end = go(&mut worker, &wild, &by);
                if worker.state() == WorkerState::Poisoned {
                    // A system call with such a stack pointer, where KVM emulates it, ends that request only.
                    assert_eq!(end, End::Violation);
                    worker = Worker::fork(&snapshot).unwrap();
                }
                let found = state(&mut worker);
                assert!(!found.contains("caught") && !found.contains("5ec7e7"), "{name}, {}: {found}", by.name);
                assert_eq!(found, fresh, "{name}, {}", by.name);
            }
        }
    }
}

/// Code that jumps to an address.
fn jump_to(address: u64) -> Vec<u8> {
    [&[0x48, 0xb8][..], &address.to_le_bytes(), &[0xff, 0xe0]].concat()
}

#[test]
fn a_fault_in_mayflys_own_code_is_a_violation_and_never_a_signal() {
    let snapshot = catching();
    // The kernel's pages; the middle of the trampoline with a pointer that faults there is another request's way.
    for address in
        [0x7fff_0000_4002_u64, 0x7fff_0000_5000, 0x7fff_0000_6000, 0x7fff_0000_7000, 0x7fff_0000_8000, 0x7fff_0000_1ff0]
    {
        let mut worker = Worker::fork(&snapshot).unwrap();
        let error = call(&mut worker, "/way", &jump_to(address)).unwrap_err();
        assert!(matches!(error, CallError::Violation(_)), "{address:#x}: {error}");
        assert_eq!(worker.state(), WorkerState::Poisoned, "{address:#x}");
    }
    // The program's own pages, the request's, the vDSO's with a bad pointer: its own faults, which its handler gets.
    let mut worker = Worker::fork(&snapshot).unwrap();
    for code in [vec![0xf4], jump_to(0x10), jump_to(Worker::inbox_address())] {
        let (_, response) = call(&mut worker, "/way", &code).unwrap();
        assert!(response.body.starts_with(b"caught 11"), "{code:x?}: {}", String::from_utf8_lossy(&response.body));
    }
    let text = text(&mut worker, "/vdso?16");
    assert!(text.starts_with("caught 11 at 7fff00009"), "as on Linux: {text}");
}

#[test]
fn a_worker_that_keeps_its_state_fails_by_its_own_wild_stack_pointer_alone() {
    let snapshot = catching();
    let wild = extremes().into_iter().find(|extreme| extreme.name == "rsp_wild_first").unwrap();
    let by_doorbell = ways().into_iter().find(|way| way.name == "doorbell").unwrap();
    let mut worker = Worker::fork_keeping_state(&snapshot).unwrap();
    assert_eq!(go(&mut worker, &wild, &by_doorbell), End::Answered);
    // The doorbell returns, and cannot.
    let error = call(&mut worker, "/state", b"").unwrap_err();
    assert!(matches!(error, CallError::Violation(_)), "{error}");
    assert_eq!(worker.state(), WorkerState::Poisoned);
}
