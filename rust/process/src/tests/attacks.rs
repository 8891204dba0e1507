// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that attack: each ends poisoned, or as an event that the program could have had by itself.

use mayfly_machine::Regs;
use mayfly_machine::layout::PAGE_SIZE;

use super::programs::{CODE, SPIN, SYSCALL, code_page, code_region, memory, mov_eax, nursery, start, stub};
use crate::code::{NR_BELL, OP_BORN, OP_DONE, OP_FAILED, places};
use crate::error::RingError;
use crate::layout::{self, FRAMES, FRAMES_BYTES, ORDERS, ORDERS_BYTES};
use crate::poison::Poison;
use crate::ring::ring::Event;
use crate::stub::Stub;

/// What became of a stub that starts with these registers.
fn outcome(code: &[u8], regs: &Regs) -> Result<Event, RingError> {
    attacked(code, regs).1
}

fn attacked(code: &[u8], regs: &Regs) -> (Stub, Result<Event, RingError>) {
    let nursery = nursery();
    let mut stub = stub(&nursery, code);
    stub.start(regs, 0, 0).unwrap();
    let outcome = stub.receive();
    (stub, outcome)
}

fn poison(code: &[u8], regs: &Regs) -> Poison {
    match outcome(code, regs) {
        Err(RingError::Poisoned(poison)) => poison,
        other => panic!("{other:?}"),
    }
}

/// A frame for the handler, in the frames' own pages, and registers that jump to the handler's call with it.
fn forged(stub: &Stub, signal: i32, rip: u64, selector: u64, xsave: u64) -> Regs {
    let frame = FRAMES + 0x1000;
    let mut words = [0_u64; 24];
    (words[16], words[18], words[23]) = (rip, selector, xsave);
    assert!(stub.pages().set_words(ORDERS_BYTES + 0x1000 + 40, words));
    Regs { rip: places().handler, rdi: signal as u64, rsi: frame + 0x800, rdx: frame, ..start() }
}

#[test]
fn the_orders_instruction_makes_no_call_of_a_programs() {
    let mmap = Regs {
        rip: places().order_after - 2,
        rax: libc::SYS_mmap as u64,
        rdi: 0x3000_0000,
        rsi: PAGE_SIZE,
        rdx: 7,
        r10: 0x32,
        r8: u64::MAX,
        ..start()
    };
    let (stub, outcome) = attacked(&[], &mmap);
    assert!(matches!(outcome, Err(RingError::Poisoned(Poison::Unexpected))), "{outcome:?}");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", stub.pid())).unwrap();
    assert!(!maps.lines().any(|line| line.starts_with("30000000-")), "{maps}");
}

#[test]
fn a_programs_call_is_not_even_compared_with_an_order() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &[&mov_eax(libc::SYS_getpid as u32)[..], &SYSCALL].concat());
    stub.start(&start(), 0, 0).unwrap();
    let outcome = stub.expect(crate::Order::unmap(CODE, PAGE_SIZE).unwrap());
    assert!(matches!(outcome, Err(RingError::Poisoned(Poison::Unexpected))), "{outcome:?}");
}

#[test]
fn rings_that_nothing_led_to_are_poison() {
    for operation in [0, OP_BORN, OP_DONE, OP_FAILED] {
        let regs = Regs { rip: places().ring_after - 2, rax: NR_BELL as u64, rdi: operation, ..start() };
        assert_eq!(poison(&[], &regs), Poison::Unexpected, "{operation}");
    }
}

#[test]
fn other_calls_at_the_doorbells_instructions_are_poison() {
    for after in [places().bell_after, places().handler_after] {
        for number in [libc::SYS_mmap, libc::SYS_execve, libc::SYS_getpid] {
            let regs = Regs { rip: after - 2, rax: number as u64, ..start() };
            assert_eq!(poison(&[], &regs), Poison::Number { number: number as i32 }, "{after:#x}");
        }
    }
}

#[test]
fn a_wild_frame_is_poison() {
    for address in [0, 0xffff_8880_0000_0000, FRAMES - 16, FRAMES + FRAMES_BYTES - 16, ORDERS, CODE] {
        let at_its_call = places().handler_after - 2;
        let ring = Regs { rip: at_its_call, rax: NR_BELL as u64, rdi: libc::SIGSEGV as u64, rdx: address, ..start() };
        assert_eq!(poison(&[], &ring), Poison::Frame { address });
        // The handler looks into the frame, too.
        let poison = poison(&[], &Regs { rip: places().handler, ..ring });
        assert!(matches!(poison, Poison::Frame { .. } | Poison::HostCode { signal: libc::SIGSEGV, .. }), "{poison}");
    }
}

#[test]
fn a_forged_frame_says_what_the_program_could_do_by_itself_or_is_poison() {
    let nursery = nursery();
    let xsave = FRAMES + 0x2000;
    let forge = |signal, rip, selector, xsave| {
        let mut stub = stub(&nursery, &SPIN);
        let regs = forged(&stub, signal, rip, selector, xsave);
        stub.start(&regs, 0, 0).unwrap();
        stub.receive()
    };
    let Ok(Event::Signal(seen)) = forge(libc::SIGSYS, CODE, 0x33, xsave) else { panic!("a frame like the kernel's") };
    assert_eq!(seen.regs.rip, CODE);
    for (signal, rip, selector, xsave) in [
        (libc::SIGKILL, CODE, 0x33, xsave),
        (libc::SIGSEGV, CODE, 0x23, xsave),
        (libc::SIGSEGV, CODE, 0x33, 0xffff_8880_0000_0000),
        (libc::SIGSEGV, CODE, 0x33, ORDERS),
        (libc::SIGSEGV, layout::CODE, 0x33, xsave),
    ] {
        let outcome = forge(signal, rip, selector, xsave);
        assert!(matches!(outcome, Err(RingError::Poisoned(_))), "{signal} {rip:#x} {selector:#x}: {outcome:?}");
    }
}

#[test]
fn a_forged_frame_with_a_wild_vector_state_is_poison_when_it_is_restored() {
    let nursery = nursery();
    let mut stub = stub(&nursery, &SPIN);
    let xsave = FRAMES + 0x2000;
    let regs = forged(&stub, libc::SIGSYS, CODE, 0x33, xsave);
    // XCOMP_BV of an XSAVE area in the compact format: XRSTOR raises #GP.
    assert!(stub.pages().set_words(ORDERS_BYTES + 0x2000 + 512, [u64::MAX, u64::MAX]));
    stub.start(&regs, 0, 0).unwrap();
    let Event::Signal(seen) = stub.receive().unwrap() else { panic!("no signal") };
    stub.resume(&seen.regs, None).unwrap();
    let outcome = stub.receive();
    assert!(matches!(outcome, Err(RingError::Poisoned(Poison::HostCode { .. }))), "{outcome:?}");
}

#[test]
fn host_code_that_faults_is_poison() {
    // `restore` with nothing to restore from; a non-canonical instruction pointer for IRETQ.
    let regs = Regs { rip: places().ring_after, rax: 0, rbx: 0, ..start() };
    assert!(matches!(poison(&[], &regs), Poison::HostCode { signal: libc::SIGSEGV, .. }));
    let rip = 1 << 62;
    match outcome(&[], &Regs { rip, ..start() }) {
        Err(RingError::Poisoned(Poison::HostCode { signal: libc::SIGSEGV, .. })) => {}
        // QEMU's emulation has the fault behind IRETQ: the program's own.
        Ok(Event::Signal(seen)) => assert_eq!((seen.signal, seen.regs.rip), (libc::SIGSEGV, rip)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn host_pages_cannot_be_written() {
    // mov %rax, (%rdi)
    for address in [layout::CODE, ORDERS, layout::CONTEXT, layout::SCRIPT] {
        match outcome(&[0x48, 0x89, 0x07], &Regs { rdi: address, ..start() }) {
            Ok(Event::Signal(seen)) => assert_eq!((seen.signal, seen.address), (libc::SIGSEGV, address)),
            other => panic!("{address:#x}: {other:?}"),
        }
    }
}

#[test]
fn host_pages_other_than_the_code_cannot_be_executed() {
    for address in [ORDERS, layout::CONTEXT, FRAMES, layout::SCRIPT] {
        let Ok(Event::Signal(seen)) = outcome(&[], &Regs { rip: address, ..start() }) else { panic!("{address:#x}") };
        assert_eq!((seen.signal, seen.regs.rip), (libc::SIGSEGV, address), "the program's own fault");
    }
}

#[test]
fn system_calls_are_trapped_whatever_they_are() {
    let i386 = [0xcd, 0x80]; // int $0x80
    for (code, number) in [
        (&SYSCALL[..], libc::SYS_rt_sigreturn),
        (&SYSCALL, libc::SYS_exit_group),
        (&SYSCALL, libc::SYS_clone),
        (&SYSCALL, libc::SYS_execve),
        (&SYSCALL, libc::SYS_arch_prctl),
        (&SYSCALL, libc::SYS_mprotect),
        (&SYSCALL, libc::SYS_io_uring_setup),
        (&SYSCALL, NR_BELL),
        (&SYSCALL, libc::SYS_getpid | 1 << 30), // x32
        (&SYSCALL, -1),
        (&i386, 20),
    ] {
        match outcome(code, &Regs { rax: number as u64, ..start() }) {
            Ok(Event::Signal(seen)) => {
                assert_eq!((seen.signal, seen.regs.rax), (libc::SIGSYS, number as u64), "{number}");
                let i386 = code.starts_with(&[0xcd]);
                assert_eq!(seen.arch, if i386 { 0x4000_0003 } else { 0xc000_003e }, "{number}");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[test]
fn instructions_that_are_not_a_programs_are_its_own_faults() {
    for (code, signal) in [
        (&[0xf4][..], libc::SIGSEGV),              // hlt
        (&[0x0f, 0x0b], libc::SIGILL),             // ud2
        (&[0xcc], libc::SIGTRAP),                  // int3
        (&[0xe4, 0x60], libc::SIGSEGV),            // in $0x60, %al
        (&[0x31, 0xc9, 0xf7, 0xf1], libc::SIGFPE), // xor %ecx, %ecx; div %ecx
        (&[0x0f, 0x01, 0xd1], libc::SIGSEGV),      // xsetbv
    ] {
        match outcome(code, &start()) {
            Ok(Event::Signal(seen)) => assert_eq!(seen.signal, signal, "{code:x?}"),
            other => panic!("{code:x?}: {other:?}"),
        }
    }
}

#[test]
fn the_vdsos_page_asks_for_the_time_and_nothing_else() {
    let nursery = nursery();
    // The vDSO's page: one system call, then a jump back to it.
    let vdso = code_page(&[&SYSCALL[..], &[0xeb, 0xfc]].concat());
    let run = |number: i64| {
        let code = code_page(&[]);
        let regions =
            [code_region(&code), crate::Region { address: mayfly_machine::layout::VDSO, ..code_region(&vdso) }];
        let mut stub = nursery.stub(&regions, memory(&code)).unwrap();
        let rip = mayfly_machine::layout::VDSO;
        stub.start(&Regs { rip, rax: number as u64, rdi: 7, ..start() }, 0, 0).unwrap();
        let event = stub.receive();
        (stub, event)
    };
    use libc::{SYS_clock_getres, SYS_clock_gettime, SYS_getcpu, SYS_gettimeofday, SYS_time};
    for number in [SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_time, SYS_getcpu] {
        let (mut stub, event) = run(number);
        let Ok(Event::Call { number: seen, arguments: [7, ..], rip }) = event else { panic!("{event:?}") };
        assert_eq!((seen, rip), (number, mayfly_machine::layout::VDSO + 2));
        // The result goes to the page's code, as the number of its next call.
        stub.answer(SYS_time).unwrap();
        assert!(matches!(stub.receive(), Ok(Event::Call { number, .. }) if number == SYS_time));
    }
    for number in [libc::SYS_getpid, libc::SYS_mmap, NR_BELL, libc::SYS_read] {
        let (_, event) = run(number);
        let poison = Poison::Number { number: number as i32 };
        assert!(matches!(event, Err(RingError::Poisoned(seen)) if seen == poison), "{event:?}");
    }
}

#[test]
fn a_vsyscall_is_trapped_or_poison() {
    // Where the kernel has the page: clock and time are in it.
    for rip in [0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_0400, 0xffff_ffff_ff60_0800_u64] {
        let nursery = nursery();
        let mut stub = stub(&nursery, &SPIN);
        let stack = crate::Order::map_zero(0x2000_0000, PAGE_SIZE, mayfly_machine::Prot::READ).unwrap();
        stub.order(&[stack]).unwrap();
        stub.start(&Regs { rip, rsp: 0x2000_0100, ..start() }, 0, 0).unwrap();
        match stub.receive() {
            Err(RingError::Poisoned(Poison::Place { rip: seen })) => assert_eq!(seen, rip),
            Ok(Event::Signal(seen)) => assert!([libc::SIGSYS, libc::SIGSEGV].contains(&seen.signal), "{seen:?}"),
            other => panic!("{rip:#x}: {other:?}"),
        }
    }
}

#[test]
fn a_stack_in_the_frames_poisons_or_ends_the_stub_alone() {
    for rsp in [FRAMES + 0x200, FRAMES + FRAMES_BYTES - 64, FRAMES + 0x2000] {
        // mov %eax, 8: a fault, whose frame goes below RSP.
        let code = [&mov_eax(1)[..], &[0x89, 0x04, 0x25, 8, 0, 0, 0]].concat();
        match outcome(&code, &Regs { rsp, ..start() }) {
            Ok(Event::Signal(seen)) => assert_eq!((seen.signal, seen.address), (libc::SIGSEGV, 8)),
            Err(RingError::Gone) => {}
            other => panic!("{rsp:#x}: {other:?}"),
        }
    }
}
