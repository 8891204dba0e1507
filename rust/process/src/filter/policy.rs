// SPDX-License-Identifier: MIT OR Apache-2.0
//! The filter below which every stub runs.
//!
//! ```text
//!   instruction pointer in the host pages         -> notification: doorbell, signal handler, ring, orders
//!   not the x86-64 convention (int 0x80, ...)     -> SIGSYS
//!   a number of the list; a futex wake            -> notification: calls that are always answered at once
//!   everything else                               -> SIGSYS, whose frame has all registers
//! ```
//!
//! # Invariant
//!
//! No path returns `SECCOMP_RET_ALLOW`, `_LOG`, `_TRACE` or `_ERRNO`: a stub makes no system call that the server has
//! not let through. `rt_sigreturn` is no exception (it would let a program set its own signal mask).

use crate::filter::asm::{AssembleError, Instruction, Label, Line, assemble};
use crate::layout::HOST_HALF;

/// The call waits for the server's answer (seccomp_unotify(2)).
pub const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
/// The call becomes a SIGSYS.
pub const TRAP: u32 = libc::SECCOMP_RET_TRAP;

/// `AUDIT_ARCH_X86_64` (`linux/audit.h`): system calls by `syscall` in 64-bit mode, x32 among them.
pub const ARCH_X86_64: u32 = 0xc000_003e;

/// `FUTEX_WAKE`, and the bits of a futex operation that are no flags (`FUTEX_CMD_MASK`, of its low byte).
const FUTEX_WAKE: u32 = libc::FUTEX_WAKE as u32;
const FUTEX_COMMAND: u32 = 127;

/// Calls whose answer is a value and never waits, and which programs make often. A notification is a little cheaper
/// than a SIGSYS and its frame, but has no registers besides the arguments.
pub const BY_VALUE: [u32; 14] = [
    libc::SYS_clock_gettime as u32,
    libc::SYS_clock_getres as u32,
    libc::SYS_gettimeofday as u32,
    libc::SYS_time as u32,
    libc::SYS_getpid as u32,
    libc::SYS_gettid as u32,
    libc::SYS_getuid as u32,
    libc::SYS_geteuid as u32,
    libc::SYS_getgid as u32,
    libc::SYS_getegid as u32,
    libc::SYS_stat as u32,
    libc::SYS_fstat as u32,
    libc::SYS_lseek as u32,
    libc::SYS_epoll_ctl as u32,
];

/// Calls that the vDSO's page makes: those of Linux's own.
const OF_VDSO: [i64; 5] =
    [libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_time, libc::SYS_getcpu];

/// Offsets in `struct seccomp_data`; words are little-endian halves.
mod data {
    pub(super) const NUMBER: u32 = 0;
    pub(super) const ARCH: u32 = 4;
    pub(super) const POINTER_HIGH: u32 = 12;
    /// Low half of the second argument.
    pub(super) const ARGUMENT_1: u32 = 24;
}

const NOTIFIED: Label = Label(0);
const TRAPPED: Label = Label(1);
const NO_FUTEX: Label = Label(2);

/// The filter's instructions, for programs whose calls of these numbers are answered by value.
///
/// # Errors
///
/// None for [`BY_VALUE`]; a list that jumps cannot span is refused.
pub fn program(by_value: &[u32]) -> Result<Vec<Instruction>, AssembleError> {
    let mut lines = vec![
        Line::Load(data::POINTER_HIGH),
        Line::JumpIfEqual(HOST_HALF, NOTIFIED),
        Line::Load(data::ARCH),
        Line::JumpUnlessEqual(ARCH_X86_64, TRAPPED),
        Line::Load(data::NUMBER),
    ];
    lines.extend(by_value.iter().map(|&number| Line::JumpIfEqual(number, NOTIFIED)));
    lines.extend([
        Line::JumpUnlessEqual(libc::SYS_futex as u32, NO_FUTEX),
        Line::Load(data::ARGUMENT_1),
        Line::And(FUTEX_COMMAND),
        Line::JumpIfEqual(FUTEX_WAKE, NOTIFIED),
        Line::At(NO_FUTEX),
        Line::At(TRAPPED),
        Line::Return(TRAP),
        Line::At(NOTIFIED),
        Line::Return(NOTIFY),
    ]);
    assemble(&lines)
}

/// Whether the call, of a program, is one that is answered by value.
#[must_use]
pub fn answers_at_once(call: &libc::seccomp_data) -> bool {
    let number = call.nr as u32;
    BY_VALUE.contains(&number) || number == libc::SYS_futex as u32 && call.args[1] as u32 & FUTEX_COMMAND == FUTEX_WAKE
}

/// Whether the call is one of the vDSO's.
#[must_use]
pub fn tells_the_time(call: &libc::seccomp_data) -> bool {
    OF_VDSO.contains(&call.nr.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::asm::{AND, JUMP_EQUAL, LOAD, RETURN};

    /// The filter's rule in plain Rust: whether it notifies of this call rather than trap it.
    fn notifies(call: &libc::seccomp_data) -> bool {
        (call.instruction_pointer >> 32) as u32 == HOST_HALF || call.arch == ARCH_X86_64 && answers_at_once(call)
    }

    fn bytes(call: &libc::seccomp_data) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&call.nr.to_le_bytes());
        bytes[4..8].copy_from_slice(&call.arch.to_le_bytes());
        bytes[8..16].copy_from_slice(&call.instruction_pointer.to_le_bytes());
        for (argument, place) in call.args.iter().zip(bytes[16..].chunks_exact_mut(8)) {
            place.copy_from_slice(&argument.to_le_bytes());
        }
        bytes
    }

    /// Runs a program as the kernel does; panics where the kernel would have refused it.
    fn interpret(program: &[Instruction], call: &libc::seccomp_data) -> u32 {
        let data = bytes(call);
        let (mut word, mut at) = (0_u32, 0_usize);
        loop {
            let Instruction { code, if_true, if_false, operand } = program[at];
            at += 1;
            match code {
                LOAD => {
                    assert_eq!(operand % 4, 0, "loads are aligned");
                    word = u32::from_le_bytes(data[operand as usize..][..4].try_into().unwrap());
                }
                AND => word &= operand,
                JUMP_EQUAL => at += usize::from(if word == operand { if_true } else { if_false }),
                RETURN => return operand,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn numbers() -> impl Strategy<Value = i32> {
        let listed = proptest::sample::select(BY_VALUE.to_vec()).prop_map(|number| number as i32);
        prop_oneof![
            listed,
            Just(libc::SYS_futex as i32),
            0..500_i32,
            (0..500_i32).prop_map(|n| n | 1 << 30),
            any::<i32>()
        ]
    }

    fn calls() -> impl Strategy<Value = libc::seccomp_data> {
        let arch = prop_oneof![4 => Just(ARCH_X86_64), 1 => Just(0x4000_0003_u32), 1 => any::<u32>()];
        let pointer = prop_oneof![
            0..1_u64 << 47,
            (0..1_u64 << 32).prop_map(|low| u64::from(HOST_HALF) << 32 | low),
            Just(u64::from(HOST_HALF) << 32),
            Just((u64::from(HOST_HALF) << 32) - 1),
            Just((u64::from(HOST_HALF) + 1) << 32),
            any::<u64>()
        ];
        let arguments = proptest::array::uniform6(prop_oneof![0..256_u64, any::<u64>()]);
        (numbers(), arch, pointer, arguments).prop_map(|(nr, arch, instruction_pointer, args)| libc::seccomp_data {
            nr,
            arch,
            instruction_pointer,
            args,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn the_program_is_the_rule(call in calls()) {
            let action = interpret(&program(&BY_VALUE).unwrap(), &call);
            prop_assert_eq!(action, if notifies(&call) { NOTIFY } else { TRAP });
        }
    }

    #[test]
    fn no_return_of_the_program_lets_a_call_through() {
        for instruction in program(&BY_VALUE).unwrap().iter().filter(|instruction| instruction.code == RETURN) {
            assert!([NOTIFY, TRAP].contains(&instruction.operand), "{instruction:?}");
        }
    }

    #[test]
    fn calls_that_wait_or_change_the_process_are_never_answered_by_value() {
        for number in [
            libc::SYS_rt_sigreturn,
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_clone,
            libc::SYS_execve,
            libc::SYS_exit_group,
            libc::SYS_read,
            libc::SYS_arch_prctl,
            libc::SYS_nanosleep,
        ] {
            let call = libc::seccomp_data {
                nr: number as i32,
                arch: ARCH_X86_64,
                instruction_pointer: 0x40_0000,
                args: [0; 6],
            };
            assert_eq!(interpret(&program(&BY_VALUE).unwrap(), &call), TRAP, "{number}");
        }
    }

    #[test]
    fn a_futex_call_is_answered_at_once_only_if_it_wakes() {
        let futex = |operation| libc::seccomp_data {
            nr: libc::SYS_futex as i32,
            arch: ARCH_X86_64,
            instruction_pointer: 0x40_0000,
            args: [0x1000, operation, 1, 0, 0, 0],
        };
        let program = program(&BY_VALUE).unwrap();
        for wakes in [1, 1 | 128, 1 | 128 | 256, 0xffff_ffff_0000_0001] {
            assert_eq!(interpret(&program, &futex(wakes)), NOTIFY, "{wakes:#x}");
        }
        for waits in [0, 128, 9, 9 | 128, 1 << 32] {
            assert_eq!(interpret(&program, &futex(waits)), TRAP, "{waits:#x}");
        }
    }
}
