/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The guest kernel: all supervisor code that a machine ever runs, and the user-mode pages that the host gives a
 * program.
 *
 * Every handler only reports to the host what happened (one `out`) and returns. It has no data, no loop and no lock.
 * Paging-based KVM emulates each CPL 0 instruction in about 0.6 us, so every instruction counts.
 *
 * The code is position-independent within one 64 KiB area; layout.rs says where each blob goes. Blobs are copied
 * from between their symbols by kernel.rs. AT&T syntax, SysV ABI.
 */
#include "kernel.h"

    .section .rodata.mayfly_kernel, "a", @progbits

/* ---- syscall entry (LSTAR) ------------------------------------------------------------------------------------------
 * Hardware KVM enters here at CPL 0; the host puts the result into RAX and SYSRET goes back to RCX with R11.
 */
    .globl mayfly_syscall_supervisor_start, mayfly_syscall_supervisor_end
mayfly_syscall_supervisor_start:
    outb %al, $MAYFLY_PORT_SYSCALL
    sysretq
mayfly_syscall_supervisor_end:

/* Paging-based KVM stays at CPL 3: the host sets RIP = RCX and RFLAGS = R11 itself, so nothing after the `out` runs.
 *
 * A `syscall` that such a KVM emulates, as it does while RSP is not canonical, enters CPL 0. No KVM emulates POR: that
 * call ends here, by #UD, and only code that the processor itself runs, which is deprivileged, reaches the `out`.
 */
    .globl mayfly_syscall_user_start, mayfly_syscall_user_out, mayfly_syscall_user_end
mayfly_syscall_user_start:
    por %xmm0, %xmm0
mayfly_syscall_user_out:
    outb %al, $MAYFLY_PORT_SYSCALL
    ud2
mayfly_syscall_user_end:

/* ---- exception entries ----------------------------------------------------------------------------------------------
 * One 16-byte slot per vector. The processor has pushed SS, RSP, RFLAGS, CS, RIP and, for some vectors, an error code;
 * the host reads them from the exception stack. IRETQ retries the instruction.
 */
    .balign 16
    .globl mayfly_exceptions_start, mayfly_exceptions_end
mayfly_exceptions_start:
    .set vector, 0
    .rept 32
    .balign 16, 0xcc
    .if vector == 14
    pushq %rax
    movq %cr2, %rax
    outb %al, $(MAYFLY_PORT_EXCEPTION + vector)
    popq %rax
    addq $8, %rsp
    .elseif vector == 8 || (vector >= 10 && vector <= 13) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    outb %al, $(MAYFLY_PORT_EXCEPTION + vector)
    addq $8, %rsp
    .else
    outb %al, $(MAYFLY_PORT_EXCEPTION + vector)
    .endif
    iretq
    .set vector, vector + 1
    .endr
mayfly_exceptions_end:

/* ---- doorbell (CPL 3) -----------------------------------------------------------------------------------------------
 * int64_t doorbell(uint64_t op, const void *arg, uint64_t abi): the arguments travel in the registers of the call.
 *
 * In a worker that is reset, the `out` ends a request, and the next one starts behind it: straight in the trampoline,
 * which restores all registers by itself. So the host need not set any, which saves 0.2 us of each request.
 */
    .globl mayfly_doorbell_start, mayfly_doorbell_return, mayfly_doorbell_end
mayfly_doorbell_start:
    outb %al, $MAYFLY_PORT_DOORBELL
    cmpl $0, (mayfly_doorbell_start - MAYFLY_DOORBELL_OFFSET + MAYFLY_INBOX_DISTANCE)(%rip)
    jne mayfly_doorbell_start - MAYFLY_DOORBELL_OFFSET + MAYFLY_TRAMPOLINE_OFFSET
mayfly_doorbell_return:
    ret
mayfly_doorbell_end:

/* ---- trampoline (CPL 3) ---------------------------------------------------------------------------------------------
 * A worker enters here, with any general registers. The trampoline restores all processor state that user code can
 * change: data segment selectors, x87 and vector state, FS and GS base, flags, general registers. Then it jumps to the
 * frozen instruction. The data lie behind this code in the same page, which no program can write. POPF only reads the
 * stack that it gets for one instruction.
 *
 * RSP comes first: while it is not canonical, paging-based KVM emulates, and cannot emulate XRSTOR. The host keeps such
 * an RSP from coming here (kernel.rs: `runs_into_trampoline`); this is a second line of defence.
 */
#define CONTROL(offset) (mayfly_trampoline_start - MAYFLY_TRAMPOLINE_OFFSET + MAYFLY_INBOX_DISTANCE + (offset))(%rip)
#define RESUME(number) (mayfly_trampoline_start - MAYFLY_TRAMPOLINE_OFFSET + MAYFLY_RESUME_REGS + 8 * (number))(%rip)
    .globl mayfly_trampoline_start, mayfly_trampoline_end
mayfly_trampoline_start:
    xorl %esp, %esp
    /* Reading selectors costs almost nothing, loading them 0.35 us. */
    movl %ds, %eax
    movl %es, %ecx
    movl %fs, %edx
    movl %gs, %ebx
    orl %ecx, %eax
    orl %edx, %eax
    orl %ebx, %eax
    jnz 2f
1:  movl $-1, %eax
    movl $-1, %edx
    xrstor64 (mayfly_trampoline_start - MAYFLY_TRAMPOLINE_OFFSET + MAYFLY_RESUME_XSAVE)(%rip)
    movq RESUME(0), %rax
    wrfsbase %rax
    movq RESUME(1), %rax
    wrgsbase %rax
    leaq RESUME(2), %rsp
    popfq
    movq CONTROL(MAYFLY_CONTROL_RAX), %rax
    movq RESUME(5), %rbx
    movq RESUME(6), %rcx
    movq RESUME(7), %rdx
    movq RESUME(8), %rsi
    movq RESUME(9), %rdi
    movq RESUME(10), %rsp
    movq RESUME(11), %rbp
    movq RESUME(12), %r8
    movq RESUME(13), %r9
    movq RESUME(14), %r10
    movq RESUME(15), %r11
    movq RESUME(16), %r12
    movq RESUME(17), %r13
    movq RESUME(18), %r14
    movq RESUME(19), %r15
    jmpq *RESUME(3)
2:  xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    jmp 1b
mayfly_trampoline_end:

/* ---- probes run once at start (CPL 3) ------------------------------------------------------------------------------
 * Rings the doorbell, reads XCR0, then enters the kernel by `syscall`; then reports the time-stamp counter for as long
 * as it runs.
 */
    .globl mayfly_probe_start, mayfly_probe_end
mayfly_probe_start:
    outb %al, $MAYFLY_PORT_DOORBELL
    xorl %ecx, %ecx
    xgetbv
    outb %al, $MAYFLY_PORT_DOORBELL
    syscall
    outb %al, $MAYFLY_PORT_DOORBELL
1:  rdtsc
    outb %al, $MAYFLY_PORT_DOORBELL
    jmp 1b
mayfly_probe_end:

    .section .note.GNU-stack, "", @progbits
