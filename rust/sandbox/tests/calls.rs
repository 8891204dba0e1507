// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole workers: calls, limits, hostile programs.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Kept, boot, call, patient, program, snapshot, text};
use mayfly_sandbox::{
    Allowance, BootError, BufferedResponse, CallError, Header, Host, Ledger, LimitHits, Limits, NoLog, Request,
    ResponseError, Snapshot, Worker, WorkerState,
};

#[test]
fn hello_answers_with_one_exit_a_request() {
    let mut worker = Worker::fork(&snapshot("hello")).unwrap();
    call(&mut worker, "/", b"").unwrap();
    for _ in 0..10 {
        let (stats, response) = call(&mut worker, "/", b"").unwrap();
        assert_eq!((stats.exits, stats.syscalls, stats.faults), (1, 0, 0));
        assert_eq!((response.status, response.body.as_slice()), (200, b"Hello World!".as_slice()));
        assert_eq!(response.headers, [(b"content-type".to_vec(), b"text/plain".to_vec())]);
    }
}

#[test]
fn the_second_workers_first_request_takes_no_faults() {
    let snapshot = snapshot("pythran");
    let mut first = Worker::fork(&snapshot).unwrap();
    assert!(call(&mut first, "/", b"").unwrap().0.faults > 0);
    let mut second = Worker::fork(&snapshot).unwrap();
    let (stats, response) = call(&mut second, "/", b"").unwrap();
    assert_eq!((stats.exits, stats.faults), (1, 0));
    assert_eq!(response.body, std::fs::read(common::tenant("pythran").with_file_name("page.txt")).unwrap());
}

#[test]
fn every_part_of_the_request_arrives() {
    let mut worker = Worker::fork(&snapshot("echo")).unwrap();
    let headers = [Header { name: b"host", value: b"a.example" }, Header { name: b"x-empty", value: b"" }];
    let request = Request {
        method: b"PATCH",
        path: b"/a%20b",
        query: b"c=d&e",
        headers: &headers,
        body: "bödy\0".as_bytes(),
        client: None,
    };
    let mut response = BufferedResponse::default();
    for id in [1, 0xffff_ffff_ffff_fff0] {
        worker.call(id, &request, &mut response).unwrap();
        let text = String::from_utf8(response.body.clone()).unwrap();
        for part in ["\"PATCH\"", "\"/a%20b\"", "\"c=d&e\"", "a.example", "x-empty", "bödy\\u0000"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn entropy_and_time_do_not_repeat() {
    let snapshot = snapshot("faults");
    let mut seen = std::collections::HashSet::new();
    for _ in 0..2 {
        let mut worker = Worker::fork(&snapshot).unwrap();
        for _ in 0..8 {
            for line in text(&mut worker, "/random").lines().filter(|line| !line.is_empty()) {
                assert!(seen.insert(line.to_owned()), "{line} came twice");
            }
            assert!(seen.insert(text(&mut worker, "/time")));
        }
    }
}

#[test]
fn a_worker_that_keeps_its_state_keeps_it() {
    let snapshot = snapshot("faults");
    let mut worker = Worker::fork_keeping_state(&snapshot).unwrap();
    let value = |worker: &mut Worker, target| {
        text(worker, target).lines().find(|line| line.starts_with("data ")).unwrap().to_owned()
    };
    let fresh = value(&mut worker, "/state");
    let dirty = value(&mut worker, "/dirty-data");
    assert_ne!(fresh, dirty);
    for _ in 0..5 {
        assert_eq!(value(&mut worker, "/state"), dirty);
    }
    assert_eq!(value(&mut Worker::fork(&snapshot).unwrap(), "/state"), fresh);
}

/// The expected result of a hostile request: an error of this kind, and a worker in this state.
fn hostile(target: &str, limits: &Limits, expected: fn(&CallError) -> bool, state: WorkerState) {
    let snapshot = boot("faults", &[], limits).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    let error = match call(&mut worker, target, b"") {
        Err(error) => error,
        Ok((_, response)) => panic!("{target} was answered: {response:?}"),
    };
    assert!(expected(&error), "{target}: {error:?}");
    assert_eq!(worker.state(), state, "{target}: {error}");
    let answer = call(&mut worker, "/ok", b"");
    if state == WorkerState::Ready {
        assert_eq!(answer.unwrap().1.status, 200, "{target}");
        assert_eq!(worker.differences(), 0, "{target}");
    } else {
        assert!(matches!(answer, Err(CallError::Poisoned)), "a poisoned worker is never reused");
    }
    // Whatever happened to this worker, its snapshot is unchanged.
    assert_eq!(call(&mut Worker::fork(&snapshot).unwrap(), "/ok", b"").unwrap().1.status, 200, "{target}");
}

#[test]
fn a_program_that_ends_poisons_its_worker() {
    for target in ["/exit?3", "/exit-thread?3"] {
        hostile(target, &patient(), |error| matches!(error, CallError::Exited { status: 3 }), WorkerState::Poisoned);
    }
    hostile(
        "/abort",
        &patient(),
        |error| matches!(error, CallError::Faulted(fault) if fault.signal == 6),
        WorkerState::Poisoned,
    );
}

#[test]
fn a_program_that_faults_poisons_its_worker() {
    let targets = [
        "/null",
        "/null-write",
        "/null-call",
        "/kernel-half",
        "/non-canonical",
        "/write-text",
        "/exec-data",
        "/write-request",
        "/write-page",
        "/stack-overflow",
        "/ud2",
        "/div",
        "/int3",
        "/hlt",
        "/cli",
        "/mov-cr3",
        "/read-cr3",
        "/rdmsr",
        "/wrmsr",
        "/lgdt",
        "/invlpg",
        "/swapgs",
        "/sysret",
        "/xsetbv",
        "/in?0xd0",
        "/out?0x80",
        "/out?0xa0",
        "/int?0x80",
    ];
    for target in targets {
        hostile(target, &patient(), |error| matches!(error, CallError::Faulted(_)), WorkerState::Poisoned);
    }
}

#[test]
fn a_program_that_never_answers_hits_the_time_limit() {
    // A thread that gets no CPU time has the other limit.
    let limits = Limits { cpu_time: Duration::from_secs(1), wall_time: Duration::from_secs(10), ..patient() };
    for target in ["/loop", "/loop-syscall", "/loop-doorbell", "/loop-write", "/loop-mmap"] {
        let start = Instant::now();
        hostile(
            target,
            &limits,
            |error| {
                matches!(
                    error,
                    CallError::CpuLimit { .. } | CallError::WallLimit { .. } | CallError::MemoryLimit { .. }
                )
            },
            WorkerState::Poisoned,
        );
        assert!(start.elapsed() < Duration::from_secs(60), "{target}");
    }
}

#[test]
fn the_time_limit_holds_on_a_thread_that_blocks_all_signals() {
    let limits = Limits { cpu_time: Duration::from_millis(100), ..patient() };
    let mut worker = Worker::fork(&boot("faults", &[], &limits).unwrap()).unwrap();
    let thread = std::thread::spawn(move || {
        // SAFETY: the set is filled before it is used, and only this thread's mask changes.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        }
        call(&mut worker, "/loop", b"").map(|_| ())
    });
    assert!(matches!(thread.join().unwrap(), Err(CallError::CpuLimit { .. })));
}

#[test]
fn a_program_that_waits_for_what_cannot_come_is_stopped_at_once() {
    for target in ["/futex", "/pause", "/poll"] {
        hostile(target, &patient(), |error| matches!(error, CallError::Stuck { .. }), WorkerState::Poisoned);
    }
}

#[test]
fn a_program_that_takes_all_memory_hits_the_memory_limit() {
    let limits = Limits { private_memory_bytes: 2 << 20, ..patient() };
    for target in ["/alloc-mmap", "/alloc-malloc", "/alloc-brk"] {
        hostile(
            target,
            &limits,
            |error| matches!(error, CallError::MemoryLimit { limit_bytes } if *limit_bytes == 2 << 20),
            WorkerState::Poisoned,
        );
    }
}

#[test]
fn a_program_is_refused_what_is_above_its_limits_and_goes_on() {
    let limits = Limits { descriptors: 10, mappings: 50, ..patient() };
    let hits = |descriptors, threads, mappings| LimitHits { descriptors, threads, mappings };
    let snapshot = boot("faults", &[], &limits).unwrap();
    assert_eq!(snapshot.limit_hits(), LimitHits::default());
    let mut worker = Worker::fork(&snapshot).unwrap();
    for _ in 0..2 {
        assert_eq!(text(&mut worker, "/alloc-descriptors"), "4, then -24\n");
        assert_eq!(worker.limit_hits(), hits(1, 0, 0), "also after the reset");
        assert_eq!(text(&mut worker, "/alloc-thread"), "-11 -11, fork -38\n");
        assert_eq!(worker.limit_hits(), hits(0, 2, 0));
        let mappings: u32 = text(&mut worker, "/alloc-maps").trim().parse().unwrap();
        assert!((20..50).contains(&mappings), "{mappings}");
        assert_eq!(worker.limit_hits(), hits(0, 0, 1));
        call(&mut worker, "/ok", b"").unwrap();
        assert_eq!(worker.limit_hits(), LimitHits::default());
        assert_eq!(worker.differences(), 0);
    }
    let snapshot =
        boot("faults", &["boot:alloc-descriptors", "boot:alloc-thread", "boot:alloc-maps"], &limits).unwrap();
    assert_eq!(snapshot.limit_hits(), hits(1, 2, 1), "and at boot");
    let mut worker = Worker::fork(&snapshot).unwrap();
    assert_eq!(worker.limit_hits(), LimitHits::default(), "the worker did not hit them");
    assert_eq!(text(&mut worker, "/alloc-descriptors"), "0, then -24\n");
}

#[test]
fn a_response_that_lies_nowhere_is_refused() {
    let mut targets: Vec<String> = Vec::new();
    for part in ["response", "body", "headers", "name", "value"] {
        for place in ["low", "kernel", "non-canonical", "unmapped", "straddle"] {
            targets.push(format!("/{part}-{place}"));
        }
    }
    let snapshot = snapshot("faults");
    let mut worker = Worker::fork(&snapshot).unwrap();
    for target in &targets {
        let error = call(&mut worker, target, b"").map(|(_, response)| response).expect_err(target);
        assert!(matches!(error, CallError::Response(ResponseError::Address { .. })), "{target}: {error:?}");
        assert_eq!(worker.state(), WorkerState::Ready, "{target}");
        assert_eq!(call(&mut worker, "/ok", b"").unwrap().1.status, 200);
    }
}

#[test]
fn a_malformed_response_is_refused() {
    let large = |error: &CallError| matches!(error, CallError::Response(ResponseError::TooLarge { .. }));
    let name = |error: &CallError| matches!(error, CallError::Response(ResponseError::HeaderName { .. }));
    let value = |error: &CallError| matches!(error, CallError::Response(ResponseError::HeaderValue { .. }));
    let reserved = |error: &CallError| matches!(error, CallError::Response(ResponseError::HeaderReserved { .. }));
    let count = |error: &CallError| matches!(error, CallError::Response(ResponseError::HeaderCount { .. }));
    let status = |error: &CallError| matches!(error, CallError::Response(ResponseError::Status { .. }));
    type Case = (&'static str, fn(&CallError) -> bool);
    let cases: &[Case] = &[
        ("/body-huge", large),
        ("/body-wrap", large),
        ("/body-over", large),
        ("/name-huge", large),
        ("/value-huge", large),
        ("/header-crlf-value", value),
        ("/header-lf-value", value),
        ("/header-nul-value", value),
        ("/header-crlf-name", name),
        ("/header-space-name", name),
        ("/header-colon-name", name),
        ("/header-empty-name", name),
        ("/header-utf8-name", name),
        ("/header-content-length", reserved),
        ("/header-transfer-encoding", reserved),
        ("/header-connection", reserved),
        ("/header-proxy", reserved),
        ("/header-count?65", count),
        ("/header-max", count),
        ("/status?0", status),
        ("/status?199", status),
        ("/status?600", status),
        ("/status?65736", status),
    ];
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    for (target, expected) in cases {
        let error = call(&mut worker, target, b"").map(|(_, response)| response).expect_err(target);
        assert!(expected(&error), "{target}: {error:?}");
        assert_eq!(worker.state(), WorkerState::Ready, "{target}");
    }
    for target in ["/body-limit", "/header-cookies", "/header-empty-value", "/header-count?64", "/status?599"] {
        call(&mut worker, target, b"").expect(target);
    }
}

#[test]
fn the_doorbell_refuses_what_a_program_may_not_do() {
    let mut worker = Worker::fork(&snapshot("faults")).unwrap();
    assert!(text(&mut worker, "/doorbell-unknown").contains("-38"));
    assert!(text(&mut worker, "/wait-twice").contains("-71"));
    assert_eq!(worker.differences(), 0);
    call(&mut worker, "/ok", b"").unwrap();
    assert_eq!(worker.differences(), 0);
}

#[test]
fn a_request_larger_than_the_inbox_never_reaches_the_program() {
    let limits = Limits { request_bytes: 16 << 10, ..patient() };
    let mut worker = Worker::fork(&boot("echo", &[], &limits).unwrap()).unwrap();
    let error = call(&mut worker, "/", &vec![b'x'; 20 << 10]).unwrap_err();
    assert!(matches!(error, CallError::RequestTooLarge { .. }));
    assert_eq!(worker.state(), WorkerState::Ready);
    assert!(call(&mut worker, "/", &vec![b'x'; 16 << 10]).is_err(), "to the byte, not to the page");
    let (_, response) = call(&mut worker, "/", &vec![b'x'; 12 << 10]).unwrap();
    assert_eq!(response.status, 200);
    assert!(call(&mut worker, "/", b"").unwrap().1.body.len() < 1000, "nothing is left of the last request");
}

#[test]
fn a_large_work_set_is_given_back() {
    let limits = Limits { retained_bytes: 64 << 10, retains_more: false, ..patient() };
    let mut worker = Worker::fork(&boot("faults", &[], &limits).unwrap()).unwrap();
    for _ in 0..3 {
        call(&mut worker, "/touch?2", b"").unwrap();
        assert!(worker.private_bytes() < 1 << 20, "{}", worker.private_bytes());
        assert_eq!(worker.differences(), 0);
        call(&mut worker, "/ok", b"").unwrap();
    }
}

#[test]
fn a_large_work_set_stays_while_memory_is_ample() {
    const REGION: u64 = 2 << 20;
    let ledger = Ledger::default();
    let host = Host::open().unwrap().on_account(&ledger.account());
    let limits = Limits { retained_bytes: 64 << 10, private_memory_bytes: 8 << 20, ..patient() };
    let program = program("faults", &["boot:region=2"]);
    let snapshot = Snapshot::boot(&host, &program, &limits, Arc::new(NoLog)).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    let faults = |worker: &mut Worker| call(worker, "/region?2", b"").unwrap().0.faults;
    let first = faults(&mut worker);
    assert!((1..100).contains(&first), "512 pages one after the other took {first} faults");
    for _ in 0..2 {
        assert!(worker.private_bytes() > REGION, "{}", worker.private_bytes());
        assert_eq!(faults(&mut worker), 0);
        assert_eq!(worker.differences(), 0);
    }
    // More than a quarter of what there may be.
    let most = 3 * ledger.held().all;
    ledger.allow(Allowance { most, band: 0, share: u64::MAX, alarm: u64::MAX });
    for _ in 0..2 {
        faults(&mut worker);
        assert!(worker.private_bytes() < REGION / 2, "{}", worker.private_bytes());
        assert_eq!(worker.differences(), 0);
    }
    assert!(faults(&mut worker) > 0);
    // More than half of its own limit.
    let tight = Limits { private_memory_bytes: 3 << 20, ..limits };
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program, &tight, Arc::new(NoLog)).unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    faults(&mut worker);
    assert!(worker.private_bytes() < REGION / 2, "{}", worker.private_bytes());
}

#[test]
fn files_that_the_boot_wrote_count_as_long_as_the_snapshot_lives() {
    const PAGES: u64 = (4 << 20) / 4096;
    let held = |args: &[&str]| {
        let ledger = Ledger::default();
        let host = Host::open().unwrap().on_account(&ledger.account());
        let snapshot = Snapshot::boot(&host, &program("faults", args), &patient(), Arc::new(NoLog)).unwrap();
        let held = ledger.held().all;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("snapshot");
        snapshot.save(&file).unwrap();
        drop(snapshot);
        assert_eq!(ledger.held().all, 0);
        let load = || Snapshot::load(&host, &program("faults", args), &patient(), Arc::new(NoLog), &file);
        let loaded = load().unwrap();
        let again = ledger.held().all;
        drop(loaded);
        // Holds take a few pages more than they must, where there are.
        ledger.allow(Allowance { most: again - 40, band: 0, share: u64::MAX, alarm: u64::MAX });
        assert!(load().is_err());
        assert_eq!(ledger.held().all, 0);
        [held, again]
    };
    let (without, with) = (held(&[]), held(&["boot:write-file=4"]));
    for (without, with) in without.into_iter().zip(with) {
        assert!((PAGES - 40..PAGES + 40).contains(&(with - without)), "{without} and {with} pages");
    }
}

#[test]
fn boots_that_fail_say_why() {
    let limits = Limits { boot_memory_bytes: 16 << 20, ..patient() };
    let hasty = Limits { boot_time: Duration::from_secs(1), ..limits.clone() };
    let fails = |args: &[&str], limits: &Limits| boot("faults", args, limits).map(|_| ()).expect_err(args[0]);
    assert!(matches!(fails(&["boot:exit=4"], &limits), BootError::Exited { status: 4 }));
    assert!(matches!(fails(&["boot:null"], &limits), BootError::Faulted(fault) if fault.signal == 11));
    assert!(matches!(fails(&["boot:loop"], &hasty), BootError::TimedOut { .. }));
    let error = fails(
        &["boot:alloc-descriptors", "boot:alloc-thread", "boot:exit=4"],
        &Limits { descriptors: 10, ..limits.clone() },
    );
    let message = error.to_string();
    assert!(message.starts_with("the program exited with status 4 "), "{message}");
    let limits_hit = "; before that, its limit descriptors was reached, its limit threads was reached 2 times: if the program needs more, raise limits.descriptors";
    assert!(message.ends_with(limits_hit), "{message}");
    assert!(matches!(fails(&["boot:doorbell-abi=9"], &limits), BootError::Abi { wanted: 9, .. }));
    let error = boot("faults", &["boot:alloc-mmap"], &limits).map(|_| ()).unwrap_err();
    assert!(matches!(error, BootError::MemoryLimit { .. }), "{error:?}");
}

#[test]
fn what_is_no_program_is_refused() {
    let host = Host::open().unwrap();
    let good = program("hello", &[]);
    let whole = std::fs::read(common::tenant("hello")).unwrap();
    let mut cases = vec![("empty", Vec::new()), ("text", b"#!/bin/sh\n".to_vec())];
    for length in [4, 63, 64, 100, 1000] {
        cases.push(("truncated", whole[..length].to_vec()));
    }
    let mut foreign = whole;
    foreign[18] = 183; // EM_AARCH64
    cases.push(("another machine", foreign));
    for (what, elf) in cases {
        let program = mayfly_sandbox::Program { elf: elf.into(), ..good.clone() };
        let result = Snapshot::boot(&host, &program, &Limits::default(), Arc::new(mayfly_sandbox::NoLog));
        assert!(matches!(result, Err(BootError::Exec(_))), "{what}: {result:?}");
    }
}

#[test]
fn what_a_program_prints_goes_to_its_log() {
    let log = Arc::new(Kept::default());
    let snapshot = Snapshot::boot(&Host::open().unwrap(), &program("pythran", &[]), &patient(), log.clone()).unwrap();
    call(&mut Worker::fork(&snapshot).unwrap(), "/", b"").unwrap();
    assert_eq!(String::from_utf8(log.0.lock().unwrap().clone()).unwrap(), "Hello from Python\n");
}

#[test]
fn workers_serve_from_many_threads_at_once() {
    let snapshot = snapshot("hello");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut worker = Worker::fork(&snapshot).unwrap();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    assert_eq!(call(&mut worker, "/", b"").unwrap().1.status, 200);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn workers_leave_nothing_behind() {
    let snapshot = snapshot("hello");
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..20 {
        call(&mut Worker::fork(&snapshot).unwrap(), "/", b"").unwrap();
    }
    // Other tests of this process open descriptors meanwhile, but none a worker each.
    assert!(descriptors() < before + 200, "{before} then {}", descriptors());
}

#[test]
fn a_large_program_is_mapped_from_its_file() {
    let path = std::env::temp_dir().join(format!("mayfly-large-{}", std::process::id()));
    std::fs::copy(common::tenant("hello"), &path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(mayfly_sandbox::MAPPED_FROM).unwrap();
    let load = || mayfly_sandbox::Program::load(&path).unwrap();
    let (large, again) = (load(), load());
    assert!(matches!(large.elf, mayfly_sandbox::Elf::File(_)));
    assert_eq!(large.elf, again.elf);
    let boot =
        |program| Snapshot::boot(&Host::open().unwrap(), program, &patient(), Arc::new(mayfly_sandbox::NoLog)).unwrap();
    let mapped = boot(&large);
    let copied = boot(&program("hello", &[]));
    assert!(mapped.image_bytes() < copied.image_bytes(), "its pages are not copied");
    // The file may be replaced by another while the program runs.
    std::fs::remove_file(&path).unwrap();
    let mut worker = Worker::fork(&mapped).unwrap();
    let mut other = Worker::fork(&copied).unwrap();
    for _ in 0..3 {
        let (_, response) = call(&mut worker, "/", b"").unwrap();
        assert_eq!(response.body, call(&mut other, "/", b"").unwrap().1.body);
    }
    std::fs::copy(common::tenant("hello"), &path).unwrap();
    assert!(load().elf != large.elf, "small, and another file");
    std::fs::remove_file(&path).unwrap();
}

/// Page tables for pages of the snapshot stay over resets, as those pages do. A request that touches pages far from
/// each other must not leave later ones with less memory than a fresh fork has.
#[test]
fn tables_that_a_request_leaves_take_no_memory_from_the_next() {
    let limits = Limits { private_memory_bytes: 64 << 20, ..patient() };
    let snapshot = boot("faults", &["boot:touch-apart=0"], &limits).unwrap();
    let needs = "/touch-pages?12000";
    call(&mut Worker::fork(&snapshot).unwrap(), needs, b"").unwrap();
    let mut worker = Worker::fork(&snapshot).unwrap();
    call(&mut worker, "/touch-apart?5000", b"").unwrap();
    // A poisoned worker is replaced.
    if worker.state() == WorkerState::Ready {
        call(&mut worker, needs, b"").unwrap();
    }
    // A few do no harm.
    let mut worker = Worker::fork(&snapshot).unwrap();
    for _ in 0..3 {
        call(&mut worker, "/touch-apart?200", b"").unwrap();
        assert_eq!(worker.state(), WorkerState::Ready);
    }
}
