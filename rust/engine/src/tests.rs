// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole machines on a real engine, with small guests written in assembly.

use std::arch::global_asm;
use std::time::Instant;

use mayfly_machine::layout::{DOORBELL_ENTRY, INBOX, USER_END, USER_MIN};
use mayfly_machine::{Exit, MemoryError, Origin, PAGE_SIZE, Prot, Regs, Unexpected};

use crate::host::Engine;
use crate::image::image::Image;
use crate::machine::machine::Machine;
use crate::testing;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const STACK: u64 = 0x7f_f000;
const STACK_TOP: u64 = STACK + PAGE_SIZE;
const RW: Prot = Prot::READ.union(Prot::WRITE);
const RX: Prot = Prot::READ.union(Prot::EXEC);

macro_rules! guest {
    ($name:ident, $($line:literal),+ $(,)?) => {
        global_asm!(
            ".pushsection .rodata",
            concat!("mayfly_test_", stringify!($name), "_start:"),
            $($line,)+
            concat!("mayfly_test_", stringify!($name), "_end:"),
            ".popsection",
        );
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("mayfly_test_", stringify!($name), "_start")]
                static START: u8;
                #[link_name = concat!("mayfly_test_", stringify!($name), "_end")]
                static END: u8;
            }
            // SAFETY: both symbols are defined above, in one section, the end after the start.
            unsafe { std::slice::from_raw_parts(&raw const START, (&raw const END).offset_from_unsigned(&raw const START)) }
        }
    };
}

/// A guest that runs `before` and waits, then adds up the first words of as many pages at DATA as the inbox says, runs
/// `each` on each of them, whose address is in R9, and answers the sum.
macro_rules! summing_guest {
    ($name:ident, before [$($before:literal),*], each [$($each:literal),*]) => {
        guest!(
            $name,
            $($before,)*
            "mov edi, 1",
            "mov rax, 0x7fff00001100",
            "call rax",
            "mov rcx, [rax]",
            "xor r8d, r8d",
            "mov r9, 0x500000",
            "2: add r8, [r9]",
            $($each,)*
            "add r9, 4096",
            "dec rcx",
            "jnz 2b",
            "mov edi, 2",
            "mov rsi, r8",
            "mov rax, 0x7fff00001100",
            "call rax",
            "ud2",
        );
    };
}

// Behind the macros, which they use.
mod aliases;
mod files;
mod registers;
mod residency;
mod saved;
mod scattered;
mod shared;
mod shared_files;
mod ways;
mod zeroes;

// Increments the words that it adds up.
summing_guest!(counter, before [], each ["add qword ptr [r9], 1"]);

// Waits by a call of the system, and answers what is in a register.
guest!(
    waiter,
    "mov ebx, 7",
    "mov edi, 1",
    "syscall",
    "mov edi, 2",
    "mov r9d, ebx",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
);

// Makes a system call in a loop.
guest!(caller, "mov eax, 39", "2: syscall", "mov rdi, rax", "jmp 2b");

// Waits, then answers the time-stamp counter forever.
guest!(
    teller,
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "2: lfence",
    "rdtsc",
    "shl rdx, 32",
    "lea r8, [rax + rdx]",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "jmp 2b",
);

fn boot(code: &[u8], data_pages: u64) -> Machine {
    let mut machine = testing::boot_machine(16 << 20);
    machine.map_zero(CODE, RX, Origin::Snapshot).unwrap();
    machine.load(CODE, code).unwrap();
    machine.map_zero(STACK, RW, Origin::Snapshot).unwrap();
    for page in 0..data_pages {
        machine.map_zero(DATA + page * PAGE_SIZE, RW, Origin::Snapshot).unwrap();
    }
    machine.set_regs(&Regs { rip: CODE, rsp: STACK_TOP, ..Default::default() });
    machine
}

/// Runs until the doorbell, letting the guest write wherever it writes.
fn run(machine: &mut Machine, faults: &mut u64) -> Regs {
    loop {
        match machine.run().unwrap() {
            Exit::Doorbell => return machine.regs(),
            Exit::PageFault { address, code, .. } if code.write() || !code.present() => {
                *faults += 1;
                let page = address & !(PAGE_SIZE - 1);
                if machine.is_mapped(page) {
                    machine.make_writable(page, Origin::Snapshot).unwrap();
                } else {
                    machine.map_zero(page, RW, Origin::Snapshot).unwrap();
                }
            }
            other => panic!("{other:?} {:x?}", machine.regs()),
        }
    }
}

/// As [`freeze`], of a program that waits in a system call.
fn freeze_at_call(mut machine: Machine) -> Image {
    assert_eq!(machine.run().unwrap(), Exit::Syscall);
    let context = machine.context().unwrap().unwrap();
    machine.set_context(&context).unwrap();
    Image::freeze(machine, INBOX).unwrap()
}

fn freeze(mut machine: Machine) -> Image {
    assert_eq!(run(&mut machine, &mut 0).rdi, 1);
    Image::freeze(machine, INBOX).unwrap()
}

#[test]
fn a_worker_sees_the_snapshot_at_every_request() {
    let image = freeze(boot(counter(), 8));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for request in 0..5 {
        assert!(worker.write_inbox(0, &8u64.to_le_bytes()));
        let mut faults = 0;
        let regs = run(&mut worker, &mut faults);
        assert_eq!((regs.rdi, regs.rsi), (2, 0), "every page read as it was frozen");
        // Eight data pages and the stack fault once, in the first request only.
        assert_eq!(faults, if request == 0 { 9 } else { 0 });
        let report = worker.reset().unwrap();
        assert_eq!((report.pages, report.entries), (9, 0));
    }
}

#[test]
fn a_worker_that_learned_takes_no_faults() {
    let image = freeze(boot(counter(), 8));
    let mut first = Machine::fork(&image, 256, &[]).unwrap();
    first.write_inbox(0, &10u64.to_le_bytes());
    let mut faults = 0;
    run(&mut first, &mut faults);
    assert_eq!(faults, 11, "two of the pages were not in the snapshot at all");
    first.reset().unwrap();
    let learned: Vec<_> = first.learned().collect();
    let mut second = Machine::fork(&image, 256, &learned).unwrap();
    second.write_inbox(0, &10u64.to_le_bytes());
    let mut faults = 0;
    assert_eq!(run(&mut second, &mut faults).rsi, 0);
    assert_eq!(faults, 0);
}

#[test]
fn a_page_that_every_request_maps_anew_is_reached_by_all_of_them() {
    let image = freeze(boot(counter(), 8));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for _ in 0..30 {
        // The ninth page is no page of the snapshot's.
        worker.write_inbox(0, &9u64.to_le_bytes());
        let regs = loop {
            match worker.run().unwrap() {
                Exit::Doorbell => break worker.regs(),
                Exit::PageFault { address, .. } => {
                    let page = address & !(PAGE_SIZE - 1);
                    if worker.is_mapped(page) {
                        worker.make_writable(page, Origin::Snapshot).unwrap();
                    } else {
                        worker.map_zero(page, RW, Origin::Request).unwrap();
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(regs.rsi, 0);
        assert_eq!(worker.reset().unwrap().entries, 1);
        assert_eq!(worker.audit(), []);
    }
}

#[test]
fn a_work_set_that_was_given_back_is_faulted_in_again() {
    let image = freeze(boot(counter(), 8));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    worker.write_inbox(0, &12u64.to_le_bytes());
    run(&mut worker, &mut 0);
    let before = worker.private_pages();
    assert_eq!(worker.release_work_set().unwrap().pages, 13);
    assert!(worker.private_pages() < before);
    worker.write_inbox(0, &12u64.to_le_bytes());
    let mut faults = 0;
    assert_eq!(run(&mut worker, &mut faults).rsi, 0);
    assert_eq!(faults, 13);
}

#[test]
fn a_system_call_returns_behind_itself() {
    let mut machine = boot(caller(), 0);
    for answer in 1..4 {
        assert_eq!(machine.run().unwrap(), Exit::Syscall);
        assert_eq!(machine.regs().rax, if answer == 1 { 39 } else { answer - 1 });
        machine.return_from_syscall(answer).unwrap();
    }
}

#[test]
fn what_a_request_maps_and_unmaps_is_undone() {
    let image = freeze(boot(counter(), 4));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    let fresh = worker.audit();
    for _ in 0..3 {
        let free = worker.private_pages();
        worker.map_zero(DATA + 64 * PAGE_SIZE, RW, Origin::Request).unwrap();
        worker.write(DATA + 64 * PAGE_SIZE, b"secret").unwrap();
        worker.unmap(DATA, 2 * PAGE_SIZE).unwrap();
        worker.map_zero(DATA, RW, Origin::Request).unwrap();
        worker.write(DATA, b"secret").unwrap();
        worker.protect(DATA + 2 * PAGE_SIZE, PAGE_SIZE, Prot::NONE).unwrap();
        worker.move_pages(DATA + 3 * PAGE_SIZE, DATA + 80 * PAGE_SIZE, PAGE_SIZE).unwrap();
        worker.make_writable(DATA + 80 * PAGE_SIZE, Origin::Request).unwrap();
        worker.write(DATA + 80 * PAGE_SIZE, b"secret").unwrap();
        worker.protect(CODE, PAGE_SIZE, RW).unwrap();
        worker.make_writable(CODE, Origin::Request).unwrap();
        worker.write(CODE, b"secret").unwrap();
        assert_ne!(worker.audit(), fresh);
        worker.reset().unwrap();
        assert_eq!(worker.audit(), fresh);
        // Tables stay; frames do not.
        assert!(worker.private_pages() <= free + 2, "{} then {}", free, worker.private_pages());
        worker.write_inbox(0, &4u64.to_le_bytes());
        assert_eq!(run(&mut worker, &mut 0).rsi, 0);
        worker.reset().unwrap();
    }
}

#[test]
fn a_guest_never_writes_through_a_translation_that_was_taken_away() {
    // The guest writes its pages, the host takes one away, the guest must fault there again; on both kinds of KVM.
    let image = freeze(boot(counter(), 4));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    worker.write_inbox(0, &4u64.to_le_bytes());
    run(&mut worker, &mut 0);
    worker.reset().unwrap();
    for _ in 0..3 {
        worker.unmap(DATA + PAGE_SIZE, PAGE_SIZE).unwrap();
        let Exit::PageFault { address, .. } = worker.run().unwrap() else { panic!() };
        assert_eq!(address, DATA + PAGE_SIZE);
        // The request is given up in the middle: at CPL 0 in the fault handler. A fresh one must start anyway.
        let mut again = Machine::fork(&image, 256, &[]).unwrap();
        again.write_inbox(0, &4u64.to_le_bytes());
        assert_eq!(run(&mut again, &mut 0).rsi, 0);
        worker = again;
        worker.reset().unwrap();
    }
}

#[test]
fn the_private_limit_holds() {
    let image = freeze(boot(counter(), 8));
    let mut worker = Machine::fork(&image, 8, &[]).unwrap();
    let mut mapped = 0;
    let error = loop {
        match worker.map_zero(DATA + (100 + mapped) * PAGE_SIZE, RW, Origin::Request) {
            Ok(()) => mapped += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, MemoryError::Limit { limit_pages: 8 });
    assert!((1..=8).contains(&mapped));
    worker.reset().unwrap();
    worker.map_zero(DATA + 100 * PAGE_SIZE, RW, Origin::Request).unwrap();
}

#[test]
fn addresses_outside_the_program_are_refused() {
    let mut machine = boot(counter(), 1);
    for address in [0, USER_MIN - PAGE_SIZE, USER_END, DOORBELL_ENTRY & !0xfff, INBOX, 1 << 47, !0xfff, DATA + 1] {
        assert!(machine.map_zero(address, RW, Origin::Snapshot).is_err(), "{address:#x}");
        assert!(machine.unmap(address, PAGE_SIZE).is_err(), "{address:#x}");
        assert!(machine.protect(address, PAGE_SIZE, RW).is_err(), "{address:#x}");
        assert!(machine.make_writable(address, Origin::Snapshot).is_err(), "{address:#x}");
    }
    for address in [0, u64::MAX, u64::MAX - 4, 1 << 47, (1 << 63) | DATA, USER_END + 0x8000] {
        assert!(machine.read(address, &mut [0; 8]).is_err(), "{address:#x}");
        assert!(machine.write(address, &[0; 8]).is_err(), "{address:#x}");
    }
    assert!(machine.read(DATA + PAGE_SIZE - 4, &mut [0; 8]).is_err(), "straddles into nothing");
    assert!(machine.write(INBOX, &[0; 8]).is_err(), "the inbox is read-only");
}

#[test]
fn a_kicked_machine_goes_on() {
    let mut machine = boot(caller(), 0);
    let kicker = machine.kicker();
    // SAFETY: the machine lives to the end of the test.
    unsafe { kicker.set() };
    assert_eq!(machine.run().unwrap(), Exit::Kicked);
    // SAFETY: as above.
    unsafe { kicker.clear() };
    assert_eq!(machine.run().unwrap(), Exit::Syscall);
}

#[test]
fn a_process_that_is_killed_while_its_program_waits_leaves_an_obituary() {
    // The kernel does that when memory is short.
    let image = freeze(boot(counter(), 1));
    let mut worker = Machine::fork(&image, 64, &[]).unwrap();
    worker.write_inbox(0, &1u64.to_le_bytes());
    run(&mut worker, &mut 0);
    worker.reset().unwrap();
    let Some(clock) = worker.cpu_clock() else {
        assert_eq!(worker.host().engine(), Engine::Kvm, "a virtual machine is no process");
        return;
    };
    // As the kernel makes such clocks' numbers.
    let pid = !(clock >> 3);
    // SAFETY: a process of this test's own, which is not reaped while the worker lives.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let exit = worker.run().unwrap();
    let Exit::Unexpected(Unexpected::Ended { what, killed: true }) = &exit else { panic!("{exit:?}") };
    assert!(what.contains("signal 9"), "{what}");
}

#[test]
fn the_round_trip_and_the_fork_are_reported() {
    // No assertion on time: this only prints the figures.
    let host = testing::host();
    let image = freeze(boot(counter(), 8));
    let start = Instant::now();
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    let fork = start.elapsed();
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        worker.write_inbox(0, &8u64.to_le_bytes());
        run(&mut worker, &mut 0);
        worker.reset().unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("{} fork {fork:?} call and reset {:?}", host.kind(), times[times.len() / 2]);
}

#[test]
fn every_machines_counter_is_the_hosts() {
    let mut faults = 0;
    let mut machine = boot(teller(), 0);
    assert!(machine.host().shares_tsc(), "no kind of KVM is known where it cannot be");
    run(&mut machine, &mut faults);
    let image = Image::freeze(machine, INBOX).unwrap();
    for _ in 0..3 {
        let mut worker = Machine::fork(&image, 64, &[]).unwrap();
        for _ in 0..10 {
            let before = mayfly_machine::read_tsc();
            let told = run(&mut worker, &mut faults).r8;
            let after = mayfly_machine::read_tsc();
            assert!((before..=after).contains(&told), "{told} between {before} and {after}");
        }
    }
}

#[test]
fn a_clock_is_the_hosts_to_set() {
    let mut machine = boot(counter(), 0);
    assert_eq!(machine.clock(), mayfly_machine::ClockLine::default());
    let line = mayfly_machine::ClockLine { tsc: 9, monotonic_ns: 1, rate: 3, raw_rate: 4, ..Default::default() };
    assert!(!machine.has_clock(9));
    machine.set_clock(&line);
    assert!(machine.has_clock(9) && machine.clock() == line);
    for address in [mayfly_machine::layout::CONTROL, mayfly_machine::layout::VDSO] {
        assert!(machine.write(address, &[0; 8]).is_err(), "the program cannot write it");
        assert!(machine.is_mapped(address));
    }
}
