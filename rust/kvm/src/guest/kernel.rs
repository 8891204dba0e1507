// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest kernel's pages: code blobs from `kernel.S`, descriptor tables, TSS, and the vCPU state that goes with
//! them.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use mayfly_machine::layout::{DOORBELL, DOORBELL_ENTRY, DOORBELL_ENTRY_OFFSET, LOWER_HALF_END, VDSO};
use mayfly_machine::{EnginePage, PAGE_SIZE, Prot, Regs, vdso};

use crate::guest::cpuid::Features;
use crate::layout::{
    EXCEPTIONS, PORT_DOORBELL, PORT_EXCEPTION, PORT_SYSCALL, STACK, STACK_TOP, SYSCALL, TABLES, TRAMPOLINE_OFFSET, TSS,
};

macro_rules! blob {
    ($name:ident, $start:ident, $end:ident) => {
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            // SAFETY: kernel.S defines both symbols in one read-only section, the end after the start.
            unsafe {
                let (start, end) = (&raw const $start, &raw const $end);
                std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
            }
        }
    };
}

blob!(syscall_supervisor, mayfly_syscall_supervisor_start, mayfly_syscall_supervisor_end);
blob!(syscall_user, mayfly_syscall_user_start, mayfly_syscall_user_end);
blob!(exceptions, mayfly_exceptions_start, mayfly_exceptions_end);
blob!(trampoline, mayfly_trampoline_start, mayfly_trampoline_end);
blob!(doorbell, mayfly_doorbell_start, mayfly_doorbell_end);
blob!(probe_blob, mayfly_probe_start, mayfly_probe_end);

/// Offsets in the doorbell page; kernel.h has the same numbers.
pub(crate) const RESUME_XSAVE: u64 = 0x400;
pub(crate) const RESUME_REGS: u64 = 0xf00;

/// What the trampoline restores besides the XSAVE area, in the order in which it expects it.
pub(crate) fn resume_words(regs: &Regs, fs_base: u64, gs_base: u64) -> [u64; 20] {
    [
        fs_base,
        gs_base,
        user_flags(regs.rflags) & !FLAGS_TRAP,
        regs.rip,
        regs.rax,
        regs.rbx,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        regs.rsp,
        regs.rbp,
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
    ]
}

/// Where a program that was frozen behind `rip` goes on: past the doorbell's check whether to rewind.
pub(crate) fn frozen_rip(rip: u64) -> u64 {
    unsafe extern "C" {
        static mayfly_doorbell_start: u8;
        static mayfly_doorbell_return: u8;
    }
    if rip == DOORBELL_ENTRY + OUT_BYTES {
        // SAFETY: both symbols lie in one blob, in this order.
        DOORBELL_ENTRY
            + unsafe {
                (&raw const mayfly_doorbell_return).offset_from_unsigned(&raw const mayfly_doorbell_start) as u64
            }
    } else {
        rip
    }
}

/// Length of `out %al, $imm8`.
const OUT_BYTES: u64 = 2;

/// Whether a vCPU that left by the doorbell with these registers may run into the trampoline by itself: it stands at
/// the doorbell's own `out`, at CPL 3, with flags that change nothing there and a stack pointer that every KVM accepts.
///
/// The trap flag would raise #DB behind the `out`, by then in the next request. With a non-canonical RSP, paging-based
/// KVM would emulate the trampoline, which it cannot. In every unusual state the host sets all registers, which costs
/// the program 0.1 us.
#[inline]
pub(crate) fn runs_into_trampoline(regs: &kvm_regs, variant: Variant) -> bool {
    let at = match variant.syscall {
        // Hardware reports the `out` itself, and skips it at the next run.
        SyscallEntry::Supervisor => DOORBELL_ENTRY,
        SyscallEntry::User => DOORBELL_ENTRY + OUT_BYTES,
    };
    regs.rip == at && regs.rflags & !FLAGS_ARITHMETIC == FLAGS_FIXED | FLAGS_IF && regs.rsp < LOWER_HALF_END
}

/// What the registers at an exit say about the privilege of the code that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// The privilege at which this exit is made.
    Expected,
    /// CS must be checked.
    Unclear,
    /// Another privilege.
    Wrong,
}

/// Whether the doorbell was rung at CPL 3.
///
/// Code at CPL 3 has IF set and cannot clear it (IOPL is 0); all code at CPL 0 is entered through FMASK or an interrupt
/// gate, which clear it. On paging-based KVM the processor runs nothing at CPL 0: KVM emulates such code, and programs
/// with a non-canonical RSP.
#[inline]
pub(crate) fn doorbell_privilege(regs: &kvm_regs) -> Privilege {
    if regs.rflags & FLAGS_IF == 0 {
        Privilege::Wrong
    } else if is_canonical(regs.rsp) {
        Privilege::Expected
    } else {
        Privilege::Unclear
    }
}

/// Whether a system call comes from the guest kernel's entry, at the privilege at which this kind of KVM enters it.
#[inline]
pub(crate) fn syscall_privilege(regs: &kvm_regs, variant: Variant) -> Privilege {
    match variant.syscall {
        // Only the entry's `out` may use this port: the bitmap closes it to CPL 3.
        SyscallEntry::Supervisor => {
            let at_entry = regs.rip == SYSCALL || regs.rip == SYSCALL + OUT_BYTES;
            if at_entry && regs.rflags & FLAGS_IF == 0 { Privilege::Expected } else { Privilege::Wrong }
        }
        // The processor has run the entry, at the only privilege possible there: see kernel.S.
        SyscallEntry::User if is_canonical(regs.rsp) => Privilege::Expected,
        SyscallEntry::User => Privilege::Unclear,
    }
}

/// Whether a program's own `out` has used the port of system calls, which paging-based KVM has to leave open: not a
/// system call.
#[inline]
pub(crate) fn is_forged_syscall(regs: &kvm_regs, variant: Variant) -> bool {
    unsafe extern "C" {
        static mayfly_syscall_user_start: u8;
        static mayfly_syscall_user_out: u8;
    }
    // SAFETY: both symbols lie in one blob, in this order.
    let out = unsafe {
        (&raw const mayfly_syscall_user_out).offset_from_unsigned(&raw const mayfly_syscall_user_start) as u64
    };
    variant.syscall == SyscallEntry::User && regs.rip != SYSCALL + out + OUT_BYTES
}

/// Whether an exception's exit comes from its entry: at its `out`, or behind it.
pub(crate) fn is_exception_entry(rip: u64, vector: u8) -> bool {
    let start = EXCEPTIONS + exception_offset(vector.into());
    (start..start + EXCEPTION_SLOT).contains(&rip)
}

/// Whether bits 47 to 63 are equal.
#[inline]
pub(crate) const fn is_canonical(address: u64) -> bool {
    (address.cast_signed() << 16 >> 16).cast_unsigned() == address
}

/// Selectors, laid out as Linux has them: paging-based KVM runs user code on the host's own.
const KERNEL_CODE: u16 = 0x10;
const KERNEL_DATA: u16 = 0x18;
pub(crate) const USER_DATA: u16 = 0x2b;
pub(crate) const USER_CODE: u16 = 0x33;
const TASK: u16 = 0x40;
const GDT_BYTES: usize = 10 * 8;
const IDT_OFFSET: usize = 0x100;
const VECTORS: usize = 32;
const EXCEPTION_SLOT: u64 = 16;

/// Bytes of a 64-bit TSS before its I/O bitmap.
const TSS_BYTES: usize = 104;
/// Ports 0 to 255 have a bit; all others lie beyond the TSS limit and are refused.
const BITMAP_BYTES: usize = 32;

/// RFLAGS bits that user code may own: CF PF AF ZF SF TF DF OF AC ID.
pub(crate) const USER_FLAGS: u64 = 0x24_0dd5;
/// CF PF AF ZF SF OF: results of a computation, on which nothing depends before the next one.
const FLAGS_ARITHMETIC: u64 = 0x8d5;
const FLAGS_FIXED: u64 = 0x2;
const FLAGS_TRAP: u64 = 0x100;
const FLAGS_IF: u64 = 0x200;

/// How `syscall` behaves here; found by the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyscallEntry {
    /// Enters CPL 0, as the manuals say.
    Supervisor,
    /// Jumps to LSTAR and stays at CPL 3.
    User,
}

/// How kinds of hosts differ for the guest kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) syscall: SyscallEntry,
    /// Type of the TR descriptor under which the I/O bitmap is honoured: 11 on processors, 9 under QEMU's emulation of
    /// SVM.
    pub(crate) task_type: u8,
}

/// The pages of a machine's guest kernel.
pub(crate) fn pages(variant: Variant) -> Vec<EnginePage> {
    let code = Prot::READ | Prot::EXEC;
    let page = |address, user, prot, bytes| EnginePage { address, user, prot, bytes };
    let mut bell = vec![0u8; DOORBELL_ENTRY_OFFSET as usize];
    bell.extend_from_slice(doorbell());
    bell.resize(TRAMPOLINE_OFFSET as usize, 0xcc);
    bell.extend_from_slice(trampoline());
    let (entry, entry_is_user) = match variant.syscall {
        SyscallEntry::Supervisor => (syscall_supervisor(), false),
        SyscallEntry::User => (syscall_user(), true),
    };
    vec![
        page(DOORBELL, true, code, bell),
        page(SYSCALL, entry_is_user, code, entry.to_vec()),
        page(EXCEPTIONS, false, code, exceptions().to_vec()),
        page(TABLES, false, Prot::READ, tables(variant)),
        page(TSS, false, Prot::READ, task_state(variant)),
        page(STACK, false, Prot::READ | Prot::WRITE, Vec::new()),
        page(VDSO, true, code, vdso::image().to_vec()),
    ]
}

/// User code of the start-up probe.
pub(crate) fn probe_code() -> &'static [u8] {
    probe_blob()
}

fn tables(variant: Variant) -> Vec<u8> {
    let mut bytes = vec![0u8; IDT_OFFSET + VECTORS * 16];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    // Present, accessed, flat; accessed is set so that the processor never writes here. There is no 32-bit code
    // segment.
    put(usize::from(KERNEL_CODE), 0x00af_9b00_0000_ffff);
    put(usize::from(KERNEL_DATA), 0x00cf_9300_0000_ffff);
    put(usize::from(USER_DATA & !3), 0x00cf_f300_0000_ffff);
    put(usize::from(USER_CODE & !3), 0x00af_fb00_0000_ffff);
    let limit = (TSS_BYTES + BITMAP_BYTES) as u64;
    let low = limit | (TSS & 0xff_ffff) << 16 | (TSS >> 24 & 0xff) << 56 | (0x80 | u64::from(variant.task_type)) << 40;
    put(usize::from(TASK), low);
    put(usize::from(TASK) + 8, TSS >> 32);
    for vector in 0..VECTORS {
        let handler = EXCEPTIONS + exception_offset(vector as u64);
        // #BP and #OF may come from `int3` and `into` at CPL 3.
        let dpl: u64 = if vector == 3 || vector == 4 { 3 } else { 0 };
        let low = (handler & 0xffff)
            | u64::from(KERNEL_CODE) << 16
            | 1 << 32 // IST1: a handler never runs on a stack that user code chose
            | (0x8e | dpl << 5) << 40
            | (handler >> 16 & 0xffff) << 48;
        put(IDT_OFFSET + vector * 16, low);
        put(IDT_OFFSET + vector * 16 + 8, handler >> 32);
    }
    bytes
}

/// Slots are 16 bytes: `.balign` keeps them apart as long as none is longer, which a test checks.
fn exception_offset(vector: u64) -> u64 {
    vector * EXCEPTION_SLOT
}

fn task_state(variant: Variant) -> Vec<u8> {
    // The byte past the bitmap must be all ones (SDM vol. 1, 19.5.2).
    let mut bytes = vec![0xffu8; TSS_BYTES + BITMAP_BYTES + 1];
    bytes[..TSS_BYTES].fill(0);
    bytes[4..12].copy_from_slice(&STACK_TOP.to_le_bytes()); // RSP0
    bytes[36..44].copy_from_slice(&STACK_TOP.to_le_bytes()); // IST1
    bytes[102..104].copy_from_slice(&(TSS_BYTES as u16).to_le_bytes());
    let mut open = |port: u16| bytes[TSS_BYTES + usize::from(port / 8)] &= !(1 << (port % 8));
    open(PORT_DOORBELL);
    if variant.syscall == SyscallEntry::User {
        open(PORT_SYSCALL);
    }
    bytes
}

/// Special registers of a vCPU in user mode.
pub(crate) fn sregs(base: kvm_sregs, features: &Features, variant: Variant, cr3: u64) -> kvm_sregs {
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: USER_CODE,
        type_: 0xb,
        present: 1,
        dpl: 3,
        db: 0,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: USER_DATA, type_: 3, db: 1, l: 0, ..code };
    // A null selector; what lies behind it is not used in 64-bit mode.
    let null = kvm_segment { selector: 0, present: 1, ..data };
    let task = kvm_segment {
        base: TSS,
        limit: (TSS_BYTES + BITMAP_BYTES) as u32,
        selector: TASK,
        type_: variant.task_type,
        present: 1,
        ..Default::default()
    };
    let table = |base, bytes: usize| kvm_dtable { base, limit: (bytes - 1) as u16, ..Default::default() };
    kvm_sregs {
        cs: code,
        ss: data,
        ds: null,
        es: null,
        fs: null,
        gs: null,
        tr: task,
        ldt: kvm_segment { unusable: 1, type_: 2, ..Default::default() },
        gdt: table(TABLES, GDT_BYTES),
        idt: table(TABLES + IDT_OFFSET as u64, VECTORS * 16),
        cr0: 0x8005_0033, // PG AM WP NE ET MP PE
        cr2: 0,
        cr3,
        // PAE, OSFXSR, OSXMMEXCPT; the rest where the processor has it.
        cr4: 0x620
            | u64::from(features.umip) << 11
            | u64::from(features.fsgsbase) << 16
            | u64::from(features.xsave) << 18
            | u64::from(features.smep) << 20
            | u64::from(features.smap) << 21,
        efer: 0xd01, // NXE LMA LME SCE
        ..base
    }
}

/// Model-specific registers: `(index, value)`.
pub(crate) fn msrs() -> [(u32, u64); 4] {
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    const CSTAR: u32 = 0xc000_0083;
    const FMASK: u32 = 0xc000_0084;
    // SYSRET adds 8 for SS and 16 for CS to the upper selector.
    let star = u64::from(KERNEL_CODE) << 32 | u64::from(USER_DATA - 8) << 48;
    // Everything that could disturb the entry: TF IF DF IOPL NT RF AC.
    [(STAR, star), (LSTAR, SYSCALL), (CSTAR, 0), (FMASK, 0x5_7700)]
}

/// RFLAGS for user mode with the arithmetic and control bits of `flags` that user code may own.
pub(crate) fn user_flags(flags: u64) -> u64 {
    flags & USER_FLAGS | FLAGS_FIXED | FLAGS_IF
}

/// Registers for entering user code at `rip`.
pub(crate) fn user_regs(rip: u64, rsp: u64) -> Regs {
    Regs { rip, rsp, rflags: user_flags(0), ..Default::default() }
}

/// The exception frame's place for `vector`: address of the pushed RIP (the error code, where there is one, lies 8
/// below).
pub(crate) const fn frame_offset() -> u64 {
    PAGE_SIZE - 5 * 8
}

/// Whether the processor pushes an error code (SDM vol. 3A, table 7-1).
pub(crate) const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// The port range of exceptions.
pub(crate) fn exception_vector(port: u16) -> Option<u8> {
    let vector = port.checked_sub(PORT_EXCEPTION)?;
    (usize::from(vector) < VECTORS).then_some(vector as u8)
}

const _: () = assert!(mayfly_machine::layout::DOORBELL_ENTRY_OFFSET < PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_h_and_this_crate_agree() {
        let header = include_str!("kernel.h");
        let value = |name: &str| {
            let line = header.lines().find(|line| line.starts_with(&format!("#define {name} "))).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(2).unwrap().trim_start_matches("0x"), 16).unwrap()
        };
        assert_eq!(value("MAYFLY_PORT_EXCEPTION"), u64::from(PORT_EXCEPTION));
        assert_eq!(value("MAYFLY_PORT_DOORBELL"), u64::from(PORT_DOORBELL));
        assert_eq!(value("MAYFLY_PORT_SYSCALL"), u64::from(PORT_SYSCALL));
        assert_eq!(value("MAYFLY_DOORBELL_OFFSET"), DOORBELL_ENTRY_OFFSET);
        assert_eq!(value("MAYFLY_TRAMPOLINE_OFFSET"), TRAMPOLINE_OFFSET);
        assert_eq!(value("MAYFLY_RESUME_XSAVE"), RESUME_XSAVE);
        assert_eq!(value("MAYFLY_RESUME_REGS"), RESUME_REGS);
        assert_eq!(value("MAYFLY_INBOX_DISTANCE"), mayfly_machine::layout::CONTROL - DOORBELL);
        assert_eq!(value("MAYFLY_CONTROL_RAX"), mayfly_machine::layout::CONTROL_RAX);
    }

    #[test]
    fn the_doorbell_page_holds_its_parts_apart() {
        assert!(doorbell().len() as u64 <= TRAMPOLINE_OFFSET - DOORBELL_ENTRY_OFFSET);
        assert!(trampoline().len() as u64 <= RESUME_XSAVE - TRAMPOLINE_OFFSET);
        assert_eq!(RESUME_XSAVE % 64, 0);
    }

    #[test]
    fn what_an_exit_says_of_its_privilege() {
        let hardware = Variant { syscall: SyscallEntry::Supervisor, task_type: 11 };
        let paging = Variant { syscall: SyscallEntry::User, task_type: 11 };
        let at = |rip, rflags, rsp| kvm_regs { rip, rflags, rsp, ..Default::default() };
        for (rsp, canonical) in [
            (0, true),
            (LOWER_HALF_END - 1, true),
            (LOWER_HALF_END, false),
            (!LOWER_HALF_END, false),
            (u64::MAX << 47, true),
            (u64::MAX, true),
        ] {
            assert_eq!(is_canonical(rsp), canonical, "{rsp:#x}");
            let expected = if canonical { Privilege::Expected } else { Privilege::Unclear };
            assert_eq!(doorbell_privilege(&at(DOORBELL_ENTRY, 0x202, rsp)), expected);
            assert_eq!(doorbell_privilege(&at(DOORBELL_ENTRY, 0x2, rsp)), Privilege::Wrong);
            assert_eq!(syscall_privilege(&at(SYSCALL, 0x2, rsp), paging), expected);
            assert_eq!(syscall_privilege(&at(SYSCALL, 0x2, rsp), hardware), Privilege::Expected);
            assert_eq!(syscall_privilege(&at(SYSCALL, 0x202, rsp), hardware), Privilege::Wrong);
            assert_eq!(syscall_privilege(&at(0x40_0000, 0x2, rsp), hardware), Privilege::Wrong);
            let plain = at(DOORBELL_ENTRY, 0x246, rsp);
            assert_eq!(runs_into_trampoline(&plain, hardware), rsp < LOWER_HALF_END);
        }
        for odd in [TRAP_AND_ITS_LIKE, &[0x3202, 0x402_0202]].concat() {
            assert!(!runs_into_trampoline(&at(DOORBELL_ENTRY, odd, 0), hardware), "{odd:#x}");
        }
        assert!(is_forged_syscall(&at(0x40_0000, 0x202, 0), paging));
        assert!(!is_forged_syscall(&at(SYSCALL + 6, 0x2, 0), paging));
        assert!(!is_forged_syscall(&at(SYSCALL, 0x2, 0), hardware));
    }

    /// TF DF NT RF AC ID, and IF cleared.
    const TRAP_AND_ITS_LIKE: &[u64] = &[0x302, 0x602, 0x4202, 0x1_0202, 0x4_0202, 0x20_0202, 0x2];

    #[test]
    fn every_exception_entry_fits_its_slot() {
        let code = exceptions();
        assert!(code.len() as u64 <= 32 * EXCEPTION_SLOT);
        for vector in 0..32u64 {
            let at = exception_offset(vector) as usize;
            let out = if vector == 14 { &code[at + 4..at + 6] } else { &code[at..at + 2] };
            assert_eq!(out, [0xe6, (u64::from(PORT_EXCEPTION) + vector) as u8], "vector {vector}");
        }
    }

    #[test]
    fn only_the_doorbell_is_open_to_user_code() {
        for (syscall, expected) in [(SyscallEntry::Supervisor, 1), (SyscallEntry::User, 2)] {
            let state = task_state(Variant { syscall, task_type: 11 });
            let open: u32 = state[TSS_BYTES..].iter().map(|byte| byte.count_zeros()).sum();
            assert_eq!(open, expected);
        }
    }
}
