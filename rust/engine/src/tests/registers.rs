// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers that a request finds: those of the frozen program, whatever the last request has left.

use super::*;

// Waits by a call of the system, which keeps all registers that matter; answers in registers and in DATA what it finds,
// and then dirties all the state that user code can reach.
guest!(
    dirty,
    "movq xmm7, [rip + 9f]",
    "fninit",
    "fld1",
    "mov edi, 1",
    "syscall",
    // What is there?
    "movq rsi, xmm7",
    "rdfsbase r8",
    "rdgsbase r9",
    "mov r10d, ds",
    "mov r11d, es",
    "shl r11, 16",
    "or r10, r11",
    "mov r11d, fs",
    "shl r11, 32",
    "or r10, r11",
    "mov r11d, gs",
    "shl r11, 48",
    "or r10, r11",
    "sub rsp, 8",
    "fnstcw [rsp]",
    "stmxcsr [rsp + 4]",
    "mov r11, [rsp]",
    "fnstsw ax",
    "movzx r13, ax",
    "pushfq",
    "pop r12",
    "mov [0x500000], r11",
    "mov [0x500008], r12",
    "mov [0x500010], r13",
    // Dirty it.
    "mov eax, 0x2b",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov rax, 0x123456000",
    "wrfsbase rax",
    "wrgsbase rax",
    "vpcmpeqd ymm7, ymm7, ymm7",
    "fld1",
    "fld1",
    "mov dword ptr [rsp], 0x1f40",
    "fldcw [rsp]",
    "mov dword ptr [rsp], 0x1f00",
    "ldmxcsr [rsp]",
    "push 0x240cd5",
    "popfq",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
    "9: .quad 0x1122334455667788",
);

// Sets MXCSR, the x87 control word and a vector register, waits by a call, and answers what it finds.
guest!(
    called,
    "sub rsp, 16",
    "mov dword ptr [rsp], 0x1f00",
    "ldmxcsr [rsp]",
    "mov dword ptr [rsp], 0x27f",
    "fldcw [rsp]",
    "vpcmpeqd ymm7, ymm7, ymm7",
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "stmxcsr [rsp]",
    "mov r8d, [rsp]",
    "fnstcw [rsp]",
    "movzx r9, word ptr [rsp]",
    "vextracti128 xmm6, ymm7, 1",
    "movq r10, xmm6",
    "movq rdx, xmm7",
    "mov dword ptr [rsp], 0x1f80",
    "ldmxcsr [rsp]",
    "fninit",
    "vpcmpeqd ymm7, ymm7, ymm7",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "call rax",
    "ud2",
);

// Rings with TF set; answers in R8 whether it was set when it began.
guest!(
    trapper,
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "pushfq",
    "pop r8",
    "and r8, 0x100",
    "mov edi, 2",
    "mov rax, 0x7fff00001100",
    "push 0x302",
    "popfq",
    "call rax",
    "ud2",
);

// Leaves 64-bit mode for the selector that Linux has for 32-bit user code, if that can be, and rings there. By a jump:
// before 9.1, QEMU pops a far return's operands as the supervisor, which SMAP forbids forever.
guest!(
    compat,
    "mov edi, 1",
    "mov rax, 0x7fff00001100",
    "call rax",
    "mov edi, 2",
    "lea rax, [rip + 9f]",
    "push 0x23",
    "sub rsp, 4",
    "mov [rsp], eax",
    "jmp fword ptr [rsp]",
    "9: out 0xd0, al",
    "ud2",
);

/// What a program has written to the first words of DATA.
fn words(machine: &Machine) -> [u64; 3] {
    let mut bytes = [0; 24];
    machine.read(DATA, &mut bytes).unwrap();
    std::array::from_fn(|word| u64::from_le_bytes(bytes[8 * word..][..8].try_into().unwrap()))
}

#[test]
fn reset_restores_every_register_that_user_code_can_reach() {
    let image = freeze_at_call(boot(dirty(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let regs = run(&mut worker, &mut 0);
        assert_eq!(regs.rsi, 0x1122_3344_5566_7788);
        assert_eq!((regs.r8, regs.r9), (0, 0), "FS and GS base");
        assert_eq!(regs.r10, 0, "data segment selectors");
        let found = words(&worker);
        assert_eq!(found[1] & 0x24_0400, 0, "ID, AC, DF");
        seen.push(found);
        worker.reset().unwrap();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
    let mut fresh = Machine::fork(&image, 256, &[]).unwrap();
    run(&mut fresh, &mut 0);
    assert_eq!(seen[0], words(&fresh), "as a fresh fork");
}

#[test]
fn a_doorbell_rung_with_the_trap_flag_set_does_not_trap_in_the_next_request() {
    let image = freeze(boot(trapper(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for _ in 0..4 {
        // The request steps into #DB a few times on its way; the next one must not.
        let mut traps = 0;
        loop {
            match worker.run().unwrap() {
                Exit::Exception { vector: 1, .. } => traps += 1,
                Exit::PageFault { address, .. } => worker.make_writable(address & !0xfff, Origin::Snapshot).unwrap(),
                Exit::Doorbell => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(worker.regs().r8, 0, "the flags it began with");
        assert!(traps > 0);
        worker.reset().unwrap();
    }
}

#[test]
fn a_call_of_the_doorbell_keeps_what_the_abi_says() {
    let image = freeze(boot(called(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for _ in 0..3 {
        let regs = run(&mut worker, &mut 0);
        assert_eq!((regs.r8, regs.r9), (0x1f00, 0x27f), "MXCSR and the x87 control word");
        assert_eq!(
            (regs.r10, regs.rdx),
            (0, 0),
            "vector registers are the callee's to change, and never another request's"
        );
        worker.reset().unwrap();
    }
}

#[test]
fn a_program_cannot_leave_64_bit_mode_for_the_next_request() {
    let image = freeze(boot(compat(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for _ in 0..3 {
        let exit = loop {
            match worker.run().unwrap() {
                Exit::PageFault { address, .. } if address >= DATA => {
                    worker.make_writable(address & !0xfff, Origin::Snapshot).unwrap();
                }
                exit => break exit,
            }
        };
        match exit {
            // There is no such descriptor; paging-based KVM says that there is no such instruction.
            Exit::Exception { vector: vector @ (6 | 11 | 13), .. } => {
                println!("refused with exception {vector}");
                worker = Machine::fork(&image, 256, &[]).unwrap();
            }
            Exit::Doorbell => {
                println!("rang at {:#x}", worker.regs().rip);
                worker.reset().unwrap();
            }
            // A process that got there is not run again.
            Exit::Unexpected(what) => {
                println!("refused: {what}");
                assert_eq!(what.blame(), mayfly_machine::Blame::Program);
                worker = Machine::fork(&image, 256, &[]).unwrap();
            }
            other => panic!("{other:?} {:x?}", worker.regs()),
        }
    }
}

#[test]
fn a_program_that_was_frozen_in_a_call_of_the_system_goes_on_there() {
    let image = freeze_at_call(boot(waiter(), 1));
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    for _ in 0..3 {
        let regs = run(&mut worker, &mut 0);
        assert_eq!((regs.rdi, regs.r9), (2, 7));
        worker.reset().unwrap();
    }
}

#[test]
fn a_context_that_is_set_before_the_first_run_counts() {
    let mut machine = boot(dirty(), 1);
    assert_eq!(machine.run().unwrap(), Exit::Syscall);
    let mut context = machine.context().unwrap().unwrap();
    machine.set_context(&context).unwrap();
    (context.fs_base, context.gs_base) = (0x1234_5000, 0x6789_a000);
    let image = Image::freeze(machine, INBOX).unwrap();
    let mut worker = Machine::fork(&image, 256, &[]).unwrap();
    worker.set_context(&context).unwrap();
    let regs = run(&mut worker, &mut 0);
    assert_eq!((regs.r8, regs.r9), (0x1234_5000, 0x6789_a000));
}

#[test]
fn the_doorbell_still_rings_after_a_base_was_set() {
    let mut machine = boot(counter(), 1);
    machine.set_fs_base(0x1234_5000).unwrap();
    machine.set_gs_base(0x6789_a000).unwrap();
    assert_eq!((machine.fs_base().unwrap(), machine.gs_base().unwrap()), (0x1234_5000, 0x6789_a000));
    assert_eq!(run(&mut machine, &mut 0).rdi, 1);
}
