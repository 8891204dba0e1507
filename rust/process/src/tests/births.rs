// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a stub is born with, and how it talks.

use std::time::{Duration, Instant};

use mayfly_machine::Regs;
use mayfly_machine::layout::{CONTROL, DOORBELL, PAGE_SIZE};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use super::programs::{
    CODE, SYSCALL, bell, code_page, code_region, memory, mov_eax, nursery, nursery_on, run, start, stub,
};
use crate::error::{ForkError, RingError};
use crate::host::{Host, Wake};
use crate::layout;
use crate::ring::ring::Event;
use crate::stub::{Nursery, Stub};

#[test]
fn a_stub_has_its_pages_and_nothing_of_the_kernels_or_the_servers() {
    // The kernel's pages are at random places, now and then above the host code.
    let host = Host::probe().unwrap();
    for _ in 0..50 {
        let nursery = nursery_on(&host);
        inspect(&stub(&nursery, &[]));
    }
}

fn inspect(stub: &Stub) {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", stub.pid())).unwrap();
    let seen: Vec<String> = maps
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        // A page of the kernel's own; calls there go through the filter.
        .filter(|line| !line.starts_with("ffffffffff600000-"))
        .collect();
    let mapping = |address, bytes, access| format!("{address:08x}-{:08x} {access}", address + bytes);
    let expected = [
        mapping(CODE, PAGE_SIZE, "r-xp"),
        mapping(DOORBELL, PAGE_SIZE, "r-xp"),
        mapping(layout::ORDERS, layout::ORDERS_BYTES, "r--s"),
        mapping(layout::CODE, layout::CODE_BYTES, "r-xp"),
        mapping(CONTROL, PAGE_SIZE, "r--p"),
        mapping(layout::FRAMES, layout::FRAMES_BYTES, "rw-s"),
    ];
    assert_eq!(seen, expected, "{maps}");
    let descriptors: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", stub.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(descriptors, ["0"], "its memory");
    // It has rung, and may still be on its way to sleep.
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", stub.pid())).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !stat().contains(") S ") && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(stat().contains(") S "), "a stub that waits is no load: {}", stat());
    let status = std::fs::read_to_string(format!("/proc/{}/status", stub.pid())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "Threads:\t1", "SigBlk:\t0000000000000000"] {
        assert!(status.lines().any(|seen| seen == line), "{line} in {status}");
    }
    let order = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(order(&stub.pid().to_string()), "1000\n", "it is killed before the server is");
    assert_ne!(order("self"), "1000\n");
}

#[test]
fn a_stub_that_is_bound_follows_the_thread_that_runs_it() {
    let bound_to = |pid: i32| {
        let set = sched_getaffinity(Pid::from_raw(pid)).unwrap();
        (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect::<Vec<_>>()
    };
    let allowed = bound_to(0);
    let nursery = Nursery::start(&Host::probe().unwrap(), Wake::Pinned, true).unwrap();
    let mut bound = stub(&nursery, &[]);
    // Only this test's thread is bound.
    for processor in allowed {
        let mut set = CpuSet::new();
        set.set(processor);
        sched_setaffinity(None, &set).unwrap();
        bound.follow();
        assert_eq!(bound_to(bound.pid()), [processor]);
    }
}

#[test]
fn arguments_reach_the_server_and_values_the_program() {
    // getpid with the last result as its first argument, for ever.
    let code = [&mov_eax(39)[..], &SYSCALL, &[0x48, 0x89, 0xc7], &[0xeb, 0xf4]].concat();
    let nursery = nursery();
    let mut stub = stub(&nursery, &code);
    let regs = Regs { rdi: 1, rsi: 2, rdx: 3, r10: 4, r8: 5, r9: u64::MAX, ..start() };
    stub.start(&regs, 0, 0).unwrap();
    let mut first = 1;
    for round in 0..1_000_i64 {
        let arguments = [first, 2, 3, 4, 5, u64::MAX];
        assert_eq!(stub.receive().unwrap(), Event::Call { number: 39, arguments, rip: CODE + 7 });
        let value = round << 40 | -round;
        stub.answer(value).unwrap();
        first = value as u64;
    }
}

#[test]
fn a_trapped_call_arrives_with_all_registers_and_goes_on_with_others() {
    // read, which is trapped; then the doorbell with RAX, XMM5, RDX.
    let code = [
        &[0x66, 0x48, 0x0f, 0x6e, 0xea][..], // movq %rdx, %xmm5
        &SYSCALL,
        &[0x48, 0x89, 0xc7],             // mov %rax, %rdi
        &[0x66, 0x48, 0x0f, 0x7e, 0xee], // movq %xmm5, %rsi
        &bell(),
    ]
    .concat();
    let nursery = nursery();
    let mut stub = stub(&nursery, &code);
    let regs = Regs {
        rbx: 1,
        rdx: 0x1122_3344_5566_7788,
        rsi: 3,
        rdi: 4,
        rsp: 0x7ffe_dead_beef,
        rbp: 5,
        r8: 6,
        r9: 7,
        r10: 8,
        r12: 9,
        r13: 10,
        r14: 11,
        r15: 12,
        ..start()
    };
    stub.start(&regs, 0x1234_5000, 0x6789_a000).unwrap();
    let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
    let after = CODE + 7;
    // SYSCALL puts RIP into RCX, and RFLAGS into R11.
    let expected = Regs { rip: after, rcx: after, r11: seen.regs.rflags, rflags: seen.regs.rflags, ..regs };
    assert_eq!((seen.signal, seen.regs), (libc::SIGSYS, expected));
    assert_eq!((seen.fs_base, seen.gs_base), (0x1234_5000, 0x6789_a000));
    stub.resume(&Regs { rax: 99, rdx: 77, ..seen.regs }, None).unwrap();
    assert!(matches!(stub.receive().unwrap(), Event::Doorbell([99, 0x1122_3344_5566_7788, 77, ..])));
}

#[test]
fn an_answer_must_fit_what_waits() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &[&mov_eax(39)[..], &SYSCALL, &mov_eax(0), &SYSCALL].concat());
    // A value would be taken for an address to load registers from.
    assert!(matches!(stub.answer(0x1000), Err(RingError::NotWaiting)));
    assert!(matches!(stub.resume(&start(), None), Err(RingError::NotWaiting)), "nothing was interrupted yet");
    assert!(matches!(stub.receive(), Err(RingError::NotWaiting)));
    stub.start(&start(), 0, 0).unwrap();
    assert!(matches!(stub.start(&start(), 0, 0), Err(RingError::NotWaiting)));
    stub.receive().unwrap();
    assert!(matches!(stub.start(&start(), 0, 0), Err(RingError::NotWaiting)));
    assert!(matches!(stub.resume(&start(), None), Err(RingError::NotWaiting)));
    stub.answer(0).unwrap();
    stub.receive().unwrap();
    assert!(matches!(stub.answer(0x1000), Err(RingError::NotWaiting)));
    stub.resume(&start(), None).unwrap();
}

#[test]
fn regions_outside_the_programs_addresses_are_refused() {
    let nursery = nursery();
    let file = code_page(&[]);
    let region = code_region(&file);
    for (address, bytes) in [
        (layout::CODE, PAGE_SIZE),
        (0, PAGE_SIZE),
        (CODE + 1, PAGE_SIZE),
        (CODE, 0),
        (CODE, PAGE_SIZE - 1),
        (layout::ORDERS - PAGE_SIZE * 5, PAGE_SIZE * 5),
        (layout::ORDERS, PAGE_SIZE),
        (layout::FRAMES, PAGE_SIZE),
        (u64::MAX - PAGE_SIZE + 1, PAGE_SIZE),
    ] {
        let refused = nursery.stub(&[crate::Region { address, bytes, ..region }], memory(&file));
        assert!(matches!(refused, Err(ForkError::Region { .. })), "{address:#x}+{bytes:#x}");
    }
    assert!(matches!(nursery.stub(&[region; 49], memory(&file)), Err(ForkError::Regions { most: 48 })));
    let files: Vec<_> = (0..8).map(|_| code_page(&[])).collect();
    let regions: Vec<_> = files.iter().map(code_region).collect();
    assert!(matches!(nursery.stub(&regions, memory(&file)), Err(ForkError::Files { most: 7 })));
    nursery.stub(&regions[..7], memory(&file)).unwrap();
}

#[test]
fn a_program_sees_no_register_of_the_host_code() {
    let nursery = nursery();
    let mut stub = run(&nursery, &SYSCALL);
    let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
    let after = CODE + 2;
    let expected = Regs { rip: after, rcx: after, r11: seen.regs.rflags, rflags: seen.regs.rflags, ..Regs::default() };
    assert_eq!(seen.regs, expected);
}

#[test]
fn a_program_with_the_nested_task_flag_goes_on_behind_a_trapped_call() {
    // push $0x4000; popfq; then two calls that are trapped. Its stack is in the frames, all memory that it can write.
    let code = [&[0x68, 0, 0x40, 0, 0, 0x9d][..], &mov_eax(59), &SYSCALL, &mov_eax(57), &SYSCALL].concat();
    let nursery = nursery();
    let mut stub = stub(&nursery, &code);
    stub.start(&Regs { rsp: layout::FRAMES + layout::FRAMES_BYTES - 64, ..start() }, 0, 0).unwrap();
    for after in [13, 20] {
        let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
        assert_eq!((seen.signal, seen.regs.rip), (libc::SIGSYS, CODE + after));
        stub.resume(&seen.regs, None).unwrap();
    }
}
