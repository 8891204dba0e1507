// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine code that drives a program's processor state to its extremes, and the ways in which the program then stops.
//!
//! A piece of code is position-independent, falls through at its end, and leaves RDI, RSI, RDX, R8 and R9 alone, which
//! the way behind it uses. Code that this processor or KVM refuses ends in an exception, which is a way, too.

use std::arch::global_asm;

/// A state of the processor that no compiler makes.
#[derive(Debug, Clone, Copy)]
pub struct Extreme {
    /// Its name.
    pub name: &'static str,
    /// The part of the state that it drives there, by its name in the sandbox's table of ways back.
    pub what: &'static str,
    /// Code that makes the state.
    pub code: &'static [u8],
}

macro_rules! assembled {
    ($name:ident: $($line:literal),*) => {
        global_asm!(
            ".pushsection .rodata",
            concat!(".globl mayfly_code_", stringify!($name), "_start, mayfly_code_", stringify!($name), "_end"),
            concat!("mayfly_code_", stringify!($name), "_start:"),
            $($line,)*
            concat!("mayfly_code_", stringify!($name), "_end:"),
            ".popsection",
        );
    };
}

macro_rules! code {
    ($name:ident) => {{
        unsafe extern "C" {
            #[link_name = concat!("mayfly_code_", stringify!($name), "_start")]
            static START: u8;
            #[link_name = concat!("mayfly_code_", stringify!($name), "_end")]
            static END: u8;
        }
        // SAFETY: both symbols are defined here, in one section, the end after the start.
        unsafe { std::slice::from_raw_parts(&raw const START, (&raw const END).offset_from_unsigned(&raw const START)) }
    }};
}

macro_rules! extremes {
    ($($what:literal { $($name:ident: $($line:literal),*;)+ })+) => {
        $($(assembled!($name: $($line),*);)+)+

        /// All extremes.
        #[must_use]
        pub fn extremes() -> Vec<Extreme> {
            vec![$($(Extreme { name: stringify!($name), what: $what, code: code!($name) },)+)+]
        }
    };
}

macro_rules! ways {
    ($($name:literal $label:ident: $($line:literal),*;)+) => {
        $(assembled!($label: $($line),*);)+

        /// Ways that a program's code can take by itself; each leaves the state as it is. R8 is the doorbell's address.
        #[must_use]
        pub fn ways() -> Vec<Way> {
            vec![$(Way { name: $name, code: code!($label) },)+]
        }
    };
}

extremes! {
    "rip" {
        nothing: "nop";
    }
    "rsp" {
        rsp_0: "xor esp, esp";
        rsp_1: "mov esp, 1";
        rsp_8: "mov esp, 8";
        rsp_page: "mov esp, 0x1000";
        rsp_bell: "mov rsp, 0x7fff00001000";
        rsp_entry: "mov rsp, 0x7fff00001100";
        rsp_trampoline: "mov rsp, 0x7fff00001140";
        rsp_bell_end: "mov rsp, 0x7fff00002000";
        rsp_kernel_stack: "mov rsp, 0x7fff00009000";
        rsp_control: "mov rsp, 0x7fff00010008";
        rsp_last_page: "mov rsp, 0x7ffffffff000";
        rsp_last_word: "mov rsp, 0x7ffffffffff8";
        rsp_last: "mov rsp, 0x7fffffffffff";
        rsp_wild_first: "mov rsp, 0x800000000000";
        rsp_wild_second: "mov rsp, 0x800000000008";
        rsp_wild_middle: "mov rsp, 0x8000000000000000";
        rsp_wild_text: "mov rsp, 0x5a5a5a5a5a5a5a5a";
        rsp_wild_last: "mov rsp, 0xffff7fffffffffff";
        rsp_upper: "mov rsp, 0xffff800000000000";
        rsp_minus_page: "mov rsp, -4096";
        rsp_minus_8: "mov rsp, -8";
        rsp_minus_1: "mov rsp, -1";
    }
    "cpl" {
        // Once paging-based KVM emulates, a system call is emulated too.
        emulated_cpuid: "mov r10, rdx", "mov rsp, 0x800000000000", "xor eax, eax", "cpuid", "mov rdx, r10";
        emulated_vmcall: "mov rsp, 0x800000000000", "vmcall";
        emulated_jump: "lea rax, [rip + 9f]", "push 0x33", "push rax", "mov rax, rsp", "mov rsp, 0x800000000000",
            ".byte 0x48, 0xff, 0x28", "9: nop";
        emulated_kernel_jump: "lea rax, [rip + 9f]", "push 0x10", "push rax", "mov rax, rsp", "mov rsp, 0x800000000000",
            ".byte 0x48, 0xff, 0x28", "9: nop";
        emulated_xsetbv: "mov r10, rdx", "mov rsp, 0x800000000000", "xor ecx, ecx", "mov eax, 1", "xor edx, edx", "xsetbv",
            "mov rdx, r10";
        emulated_swapgs: "mov rsp, 0x800000000000", "swapgs";
        far_return: "push 0x33", "lea rax, [rip + 9f]", "push rax", ".byte 0x48, 0xcb", "9: nop";
        far_return_compat: "push 0x23", "lea rax, [rip + 9f]", "push rax", ".byte 0x48, 0xcb", "9: nop";
        iret_wild: "mov rax, 0x800000000000", "push 0x2b", "push rax", "pushfq", "push 0x33", "lea rax, [rip + 9f]", "push rax",
            "iretq", "9: nop";
        iret_compat: "mov rax, rsp", "push 0x2b", "push rax", "pushfq", "push 0x23", "lea rax, [rip + 9f]", "push rax", "iretq",
            "9: nop";
        jump_wild: "mov rax, 0x800000000000", "jmp rax";
    }
    "flags" {
        flags_all: "push 0x247fd7", "popfq";
        flags_trap: "pushfq", "or dword ptr [rsp], 0x100", "popfq";
        flags_nested: "push 0x4000", "popfq";
        flags_alignment: "push 0x40000", "popfq";
        flags_id: "push 0x200000", "popfq";
        flags_iopl: "push 0x3000", "popfq";
        flags_resume: "push 0x10000", "popfq";
        flags_virtual: "push 0x1a0000", "popfq";
        flags_direction: "std";
        flags_no_interrupts: "push 0", "popfq";
    }
    "selectors" {
        selectors_data: "mov eax, 0x2b", "mov ds, eax", "mov es, eax", "mov fs, eax", "mov gs, eax";
        selectors_code: "mov eax, 0x33", "mov ds, eax", "mov es, eax", "mov fs, eax", "mov gs, eax";
        selectors_null: "mov eax, 3", "mov ds, eax", "dec eax", "mov es, eax", "dec eax", "mov fs, eax", "mov gs, eax";
        selector_kernel: "mov eax, 0x18", "mov ds, eax";
        selector_local: "mov eax, 7", "mov ds, eax";
        selector_last: "mov eax, 0xffff", "mov gs, eax";
        selector_cpu: "mov eax, 0x7b", "mov ds, eax";
        selectors_emulated: "mov rsp, 0x800000000000", "mov eax, 0x2b", "mov ds, eax", "mov es, eax", "mov fs, eax", "mov gs, eax";
    }
    "ss" {
        stack_selector: "mov eax, 0x2b", "mov ss, eax";
        stack_selector_kernel: "mov eax, 0x18", "mov ss, eax";
        stack_selector_null: "xor eax, eax", "mov ss, eax";
        stack_selector_emulated: "mov rsp, 0x800000000000", "mov eax, 0x2b", "mov ss, eax";
    }
    "bases" {
        bases_upper: "mov rax, -1", "wrfsbase rax", "wrgsbase rax";
        bases_last: "mov rax, 0x7fffffffffff", "wrfsbase rax", "wrgsbase rax";
        bases_bell: "mov rax, 0x7fff00001140", "wrfsbase rax", "wrgsbase rax";
        base_wild: "mov rax, 0x800000000000", "wrfsbase rax";
    }
    "x87" {
        x87_pending: "fninit", "push 0", "fldcw [rsp]", "fld1", "fldz", "fdivp st(1), st";
        x87_full: "fninit", "fldpi", "fldpi", "fldpi", "fldpi", "fldpi", "fldpi", "fldpi", "fldpi";
        x87_words: "push 0", "fldcw [rsp]", "fldpi";
        mmx: "pcmpeqd mm0, mm0", "pcmpeqd mm7, mm7";
    }
    "vector" {
        mxcsr_unmasked: "push 0x603f", "ldmxcsr [rsp]";
        mxcsr_all: "push 0xffff", "ldmxcsr [rsp]";
        sse: "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15";
        avx: "vpcmpeqd ymm0, ymm0, ymm0", "vpcmpeqd ymm7, ymm7, ymm7", "vpcmpeqd ymm15, ymm15, ymm15";
        avx512: "vpternlogd zmm0, zmm0, zmm0, 255", "vpternlogd zmm31, zmm31, zmm31, 255", "kxnorw k1, k1, k1";
        // XINUSE of all components, by an area whose XSTATE_BV names none.
        initial: "mov r10, rdx", "mov rcx, rsp", "sub rcx, 8192", "and rcx, -64", "xor eax, eax", "mov r11d, 72",
            "8: mov [rcx + r11 * 8 - 8], rax", "dec r11", "jnz 8b", "mov dword ptr [rcx + 24], 0x1f80", "mov eax, -1",
            "mov edx, -1", "xrstor [rcx]", "mov rdx, r10";
    }
    "general" {
        general: "mov rax, 0x5a5aa5a55a5aa5a5", "mov rbx, rax", "mov rcx, rax", "mov rbp, rax", "mov r10, rax", "mov r11, rax",
            "mov r12, rax", "mov r13, rax", "mov r14, rax", "mov r15, rax";
    }
    "events" {
        // The load of SS delays the trap flag's #DB, or it comes in the way's first instruction.
        trap_put_off: "pushfq", "or dword ptr [rsp], 0x100", "mov eax, 0x2b", "popfq", "mov ss, eax";
        breakpoint: "int3";
        hardware_breakpoint: ".byte 0xf1";
        interrupt: "int 0x80";
        halt: "hlt";
        string_output: "mov r10, rdx", "mov r11, rsi", "mov rsi, rsp", "mov edx, 0xd0", "mov ecx, 5", "rep outsb", "mov rdx, r10",
            "mov rsi, r11";
        input: "in al, 0xd0";
        wide_output: "mov r10, rdx", "mov edx, 0xd0", "out dx, eax", "mov rdx, r10";
    }
}

/// A way to stop running. RDI, RSI, RDX and R8 are as the caller of the code set them.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Its name in the sandbox's table.
    pub name: &'static str,
    /// Code that takes it.
    pub code: &'static [u8],
}

ways! {
    "doorbell" way_doorbell: "jmp r8";
    "own doorbell" way_own_doorbell: "out 0xd0, al", "ud2";
    "system call" way_syscall: "mov eax, 1", "syscall", "ud2";
    "second system call" way_second_syscall: "mov eax, 39", "syscall", "mov eax, 1", "syscall", "ud2";
    "forged system call" way_forged_syscall: "mov eax, 1", "lea rcx, [rip]", "out 0xd1, al", "ud2";
    "fault" way_fault: "ud2";
    "page fault" way_page_fault: "mov eax, [0x10]";
    "pause" way_pause: "mov ecx, 400000", "7: loop 7b", "jmp r8";
    "interrupt" way_interrupt: "7: jmp 7b";
    "trampoline" way_trampoline: "lea rax, [r8 + 0x40]", "jmp rax";
}
