// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rewind: whatever a program has done to its registers, it starts again from its frozen state.

use std::fs::File;
use std::os::fd::AsFd;

use mayfly_machine::layout::{CONTROL, DOORBELL, DOORBELL_ENTRY, PAGE_SIZE};
use mayfly_machine::{Prot, Regs, UserContext, VECTOR_STATE_BYTES, VectorState};

use super::programs::{CODE, SPIN, SYSCALL, bell, memory, nursery};
use crate::layout::{FRAMES_BYTES, ORDERS_BYTES, RESUME, RESUME_BYTES};
use crate::ring::order::Order;
use crate::ring::ring::Event;
use crate::stub::{Nursery, Stub};
use crate::sys::memory::sealed;
use crate::zygote::zygote::Region;
use crate::{Interrupted, doorbell_page, frozen_rip, resume_pages, vector_components};

/// What the control line has for RAX.
const RAX: u64 = 0x7261_7821;
/// Where programs have written data.
const DATA: u64 = 0x20_0000;

/// Vector state of which every byte has a value of its own.
pub(super) fn full_state() -> VectorState {
    let mut bytes: Vec<u8> = (0..VECTOR_STATE_BYTES).map(|at| (at * 7 + at / 256) as u8).collect();
    // x87: default control word, no exceptions, stack not empty; MXCSR rounds down and flushes to zero.
    bytes[..32].fill(0);
    bytes[..5].copy_from_slice(&[0x7f, 0x02, 0, 0, 0x3c]);
    bytes[24..28].copy_from_slice(&0xbf80_u32.to_le_bytes());
    // The upper 48 bits of the registers' 128 are not theirs.
    for register in 0..8 {
        bytes[32 + 16 * register + 10..32 + 16 * register + 16].fill(0);
    }
    bytes[416..576].fill(0);
    bytes[512..520].copy_from_slice(&vector_components().to_le_bytes());
    VectorState::from_words([0; VECTOR_STATE_BYTES / 4]).with_bytes(&bytes)
}

/// What of a state an XSAVE area's bytes mean: not those between its components.
pub(super) fn meaning(state: &VectorState) -> Vec<u8> {
    let bytes = state.to_bytes();
    let mut kept = [&bytes[..28], &bytes[32..416]].concat();
    for component in (2..8).filter(|bit| vector_components() >> bit & 1 != 0) {
        let place = std::arch::x86_64::__cpuid_count(0xd, component);
        kept.extend(&bytes[place.ebx as usize..][..place.eax as usize]);
    }
    kept
}

fn frozen(vector: VectorState) -> UserContext {
    let regs = Regs {
        rax: 0,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rsp: 0x7ffe_dead_bee0,
        rbp: 8,
        r8: 9,
        r9: 10,
        r10: 11,
        r11: 12,
        r12: 13,
        r13: 14,
        r14: 15,
        r15: 16,
        rip: CODE,
        rflags: 0x0ad7,
    };
    UserContext { regs, fs_base: 0x1234_5678_9000, gs_base: 0x2345_6789_a000, vector }
}

/// A file of a program's memory: code, doorbell, resume pages, control line.
fn image(code: &[u8], context: &UserContext) -> File {
    let mut pages = code.to_vec();
    pages.resize(PAGE_SIZE as usize, 0xcc);
    pages.extend(doorbell_page());
    pages.extend(resume_pages(context, u64::MAX, true));
    pages.extend(1_u64.to_le_bytes());
    pages.extend(RAX.to_le_bytes());
    pages.resize(6 * PAGE_SIZE as usize, 0);
    sealed(c"test", &pages).unwrap()
}

fn regions(file: &File) -> [Region<'_>; 5] {
    let region = |page, address, bytes, prot| {
        let offset = page * PAGE_SIZE;
        Region { file: file.as_fd(), offset, address, bytes, prot }
    };
    let executable = Prot::READ | Prot::EXEC;
    [
        region(0, CODE, PAGE_SIZE, executable),
        region(1, DOORBELL, PAGE_SIZE, executable),
        region(2, RESUME, RESUME_BYTES, Prot::READ),
        region(4, CONTROL, PAGE_SIZE, Prot::READ),
        region(5, DATA, PAGE_SIZE, Prot::READ),
    ]
}

/// A stub whose frozen state starts the program.
fn frozen_stub(nursery: &Nursery, code: &[u8], context: &UserContext) -> Stub {
    let file = image(code, context);
    nursery.stub(&regions(&file), memory(&file)).unwrap()
}

fn signal(stub: &mut Stub) -> Interrupted {
    match stub.receive().unwrap() {
        Event::Signal(seen) => seen,
        other => panic!("{other:?}"),
    }
}

/// The program is at the `syscall` that its frozen state stands before, with everything as it was frozen.
fn check(stub: &mut Stub, context: &UserContext) {
    let seen = signal(stub);
    assert_eq!(seen.signal, libc::SIGSYS);
    let after = CODE + 2;
    let flags = 0x0ad7 | 0x202;
    let expected = Regs { rax: RAX, rcx: after, r11: seen.regs.r11, rip: after, rflags: flags, ..context.regs };
    assert_eq!(seen.regs, expected);
    assert_eq!(seen.regs.r11 & !0x1_0000, flags, "the flags as SYSCALL saw them");
    assert_eq!((seen.fs_base, seen.gs_base), (context.fs_base, context.gs_base));
    assert_eq!(meaning(&stub.vector().unwrap()), meaning(&context.vector));
}

/// Code that leaves other values in every register that an instruction here can reach, by 64-bit immediates.
fn mess() -> Vec<u8> {
    let mut code = vec![
        0xd9, 0xe8, // fld1
        0xdb, 0xe2, // fnclex
        0x0f, 0xef, 0xc0, // pxor %mm0, %mm0
        0x66, 0x0f, 0x76, 0xc0, // pcmpeqd %xmm0, %xmm0
        0x66, 0x45, 0x0f, 0x76, 0xff, // pcmpeqd %xmm15, %xmm15
        0x0f, 0xae, 0x14, 0x25, 0, 0, 0x20, 0, // ldmxcsr DATA, which is 0: all exceptions unmasked
    ];
    if vector_components() & 0xe0 == 0xe0 {
        code.extend([
            0xc5, 0xfc, 0x46, 0xc8, // kxnorw %k0, %k0, %k1
            0x62, 0xf3, 0x7d, 0x48, 0x25, 0xc0, 0xff, // vpternlogd $255, %zmm0, %zmm0, %zmm0
            0x62, 0x03, 0x05, 0x40, 0x25, 0xff, 0xff, // vpternlogd $255, %zmm31, %zmm31, %zmm31
        ]);
    }
    code.extend([
        0x48, 0x31, 0xc0, // xor %rax, %rax
        0xf3, 0x48, 0x0f, 0xae, 0xd0, // wrfsbase %rax
        0xf3, 0x48, 0x0f, 0xae, 0xd8, // wrgsbase %rax
        0xb8, 0x2b, 0, 0, 0, // mov $0x2b, %eax
        0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8, // mov %eax to %ds, %es, %fs, %gs
        0xfd, // std
    ]);
    // mov $-1 to %rbx, %rbp, %rsp, %r12 ... %r15
    for (rex, register) in [(0x48, 3), (0x48, 5), (0x48, 4), (0x49, 4), (0x49, 5), (0x49, 6), (0x49, 7)] {
        code.extend([rex, 0xc7, 0xc0 | register, 0xff, 0xff, 0xff, 0xff]);
    }
    code
}

#[test]
fn a_new_stub_is_rewound_into_its_frozen_state() {
    let context = frozen(full_state());
    let mut stub = frozen_stub(&nursery(), &SYSCALL, &context);
    stub.rewind().unwrap();
    check(&mut stub, &context);
}

#[test]
fn everything_is_restored_from_a_doorbell_a_trapped_call_and_a_fault() {
    let context = frozen(full_state());
    for end in [&bell()[..], &SYSCALL, &[0x0f, 0x0b]] {
        let code = [&SYSCALL[..], &mess(), end].concat();
        let mut stub = frozen_stub(&nursery(), &code, &context);
        stub.rewind().unwrap();
        for _ in 0..100 {
            check(&mut stub, &context);
            let seen = Regs { rip: CODE + 2, rflags: 2, rsp: 0, ..Regs::default() };
            stub.resume(&seen, Some((1, 2))).unwrap();
            match stub.receive().unwrap() {
                Event::Doorbell(_) => {}
                Event::Signal(seen) => {
                    let (rsp, flags, base) = (seen.regs.rsp, seen.regs.rflags, seen.fs_base);
                    assert_eq!((rsp, flags & 0x400, base), (u64::MAX, 0x400, 0));
                }
                other => panic!("{other:?}"),
            }
            stub.clear();
            stub.rewind().unwrap();
        }
    }
}

#[test]
fn flags_that_a_program_leaves_at_the_doorbell_do_not_reach_the_next_request() {
    let context = frozen(full_state());
    let code = [&SYSCALL[..], &bell()].concat();
    // TF traps behind the doorbell's call, AC at unaligned accesses, DF turns strings around.
    for flags in [0x100, 0x4_0000, 0x400, 0x20_0000, 0x24_0fd5] {
        let mut stub = frozen_stub(&nursery(), &code, &context);
        stub.rewind().unwrap();
        for _ in 0..20 {
            check(&mut stub, &context);
            // At the doorbell's call itself: TF would trap at each instruction before.
            let regs = Regs { rip: DOORBELL_ENTRY + 5, rax: 110, rflags: flags, rsp: 0x3333, ..Regs::default() };
            stub.resume(&regs, None).unwrap();
            assert!(matches!(stub.receive().unwrap(), Event::Doorbell(_)), "{flags:#x}");
            stub.rewind().unwrap();
        }
    }
}

#[test]
fn a_program_that_traps_each_instruction_is_rewound_from_there() {
    let context = frozen(full_state());
    let mut stub = frozen_stub(&nursery(), &[&SYSCALL[..], &SPIN].concat(), &context);
    stub.rewind().unwrap();
    for _ in 0..100 {
        check(&mut stub, &context);
        stub.resume(&Regs { rip: CODE + 2, rflags: 0x100, ..Regs::default() }, None).unwrap();
        let seen = signal(&mut stub);
        assert_eq!((seen.signal, seen.vector), (libc::SIGTRAP, 1));
        stub.rewind().unwrap();
    }
}

#[test]
fn a_program_that_was_frozen_in_the_doorbell_returns_from_it() {
    let mut context = frozen(full_state());
    context.regs.rip = frozen_rip(DOORBELL_ENTRY + 7);
    let mut stub = frozen_stub(&nursery(), &SYSCALL, &context);
    stub.rewind().unwrap();
    // The stack is not mapped: the program's own fault, not one of the rewind's.
    let seen = signal(&mut stub);
    assert_eq!((seen.signal, seen.regs.rip, seen.regs.rax), (libc::SIGSEGV, context.regs.rip, RAX));
    assert_eq!(seen.address, context.regs.rsp);
}

#[test]
fn resume_pages_that_no_processor_takes_are_poison_and_no_loop() {
    let context = frozen(full_state());
    let file = image(&SYSCALL, &context);
    // Without the resume pages.
    let regions = regions(&file).map(|region| match region.address {
        RESUME => Region { address: DATA + PAGE_SIZE, ..region },
        _ => region,
    });
    let mut stub = nursery().stub(&regions, memory(&file)).unwrap();
    stub.rewind().unwrap();
    let outcome = stub.receive();
    assert!(matches!(outcome, Err(crate::RingError::Poisoned(crate::Poison::Signals { .. }))), "{outcome:?}");
}

#[test]
fn resume_pages_hold_what_programs_have_and_no_more() {
    let mut context = frozen(full_state().with_bytes(&[0xff; VECTOR_STATE_BYTES]));
    context.regs.rflags = u64::MAX;
    let pages = resume_pages(&context, 0b111, true);
    assert_eq!(pages[512..576], [&[7][..], &[0; 63]].concat());
    assert!(pages[464..512].iter().all(|&byte| byte == 0));
    assert_eq!(pages[4096 + 16..4096 + 24], 0x24_0ed7_u64.to_le_bytes(), "no TF");
    assert_eq!(pages[4096 + 24..4096 + 32], CODE.to_le_bytes());
    assert_eq!(resume_pages(&context, 0b111, false)[512], 1);
}

#[test]
fn a_whole_context_is_loaded_and_seen() {
    let context = frozen(full_state());
    let mut stub = frozen_stub(&nursery(), &SYSCALL, &context);
    assert!(stub.vector().is_none());
    stub.load(&context).unwrap();
    let seen = signal(&mut stub);
    assert_eq!(seen.regs.rbx, 2);
    assert_eq!((seen.fs_base, seen.gs_base), (context.fs_base, context.gs_base));
    assert_eq!(meaning(&stub.vector().unwrap()), meaning(&context.vector));
    // State that XRSTOR would refuse.
    let hostile = context.vector.with_bytes(&[0xff; VECTOR_STATE_BYTES]);
    stub.load(&UserContext { vector: hostile, ..context }).unwrap();
    assert_eq!(signal(&mut stub).signal, libc::SIGSYS);
}

#[test]
fn what_the_server_has_shown_a_program_is_erased_with_its_frames() {
    let nursery = nursery();
    let mut stub = super::programs::stub(&nursery, &SYSCALL);
    let regs = Regs { rip: CODE, rbx: 0x5ec_2e7, rax: 1, ..Regs::default() };
    let map = Order::map_zero(DATA, PAGE_SIZE, Prot::READ).unwrap();
    stub.order(&[map, map, map]).unwrap();
    stub.load(&UserContext { regs, fs_base: 1, gs_base: 2, vector: full_state() }).unwrap();
    assert!(matches!(stub.receive().unwrap(), Event::Signal(_)));
    let used = |stub: &Stub| {
        let mut bytes = vec![0; (ORDERS_BYTES + FRAMES_BYTES) as usize];
        assert!(stub.pages().read(0, &mut bytes));
        bytes.chunks(PAGE_SIZE as usize).filter(|page| page.iter().any(|&byte| byte != 0)).count()
    };
    // Orders, a context and its vector state, a frame.
    assert!(used(&stub) >= 4);
    stub.clear();
    assert_eq!(used(&stub), 0);
}
