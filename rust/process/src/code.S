# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The code of the host page, which every stub has at CODE, and of a zygote's start. Position-independent; the addresses
# in braces come from layout.rs. In this page a system call is made for the server, elsewhere for the program: the
# filter sees the difference by the instruction pointer. Nothing here may be relied on for isolation: a program can jump
# to any instruction with any registers.

    .pushsection .rodata.mayfly_process, "a", @progbits
    .balign 64
    .globl mayfly_process_start, mayfly_process_end, mayfly_process_trampoline
    .globl mayfly_process_handler, mayfly_process_handler_after, mayfly_process_ring_after
    .globl mayfly_process_order_after, mayfly_process_restorer, mayfly_process_zygote
    .globl mayfly_process_born, mayfly_process_orders
    .globl mayfly_process_order_done, mayfly_process_order_failed

mayfly_process_start:

# Every signal: rdi = number, rsi = siginfo, rdx = ucontext. What no ucontext has goes along in registers.
#
# A signal that has interrupted this page is a kick. RSP becomes what it was then: the next kick, should it come behind
# the answer, gets the same frame, so that frames do not pile up however many kicks come. The server has read it by
# then, and the vector state in it is nothing to this page.
    .balign 64
mayfly_process_handler:
    movq %rdx, %rbx
    leaq mayfly_process_start(%rip), %rcx
    movq ({uc_regs} + 128)(%rdx), %rax
    subq %rcx, %rax
    cmpq ${code_bytes}, %rax
    jae 1f
    movq ({uc_regs} + 120)(%rdx), %rsp
1:
    rdfsbase %r10
    rdgsbase %r8
    movl %ds, %r9d
    movl %es, %eax
    orl %eax, %r9d
    movl %fs, %eax
    orl %eax, %r9d
    movl %gs, %eax
    orl %eax, %r9d
    movl ${nr_bell}, %eax
    syscall
mayfly_process_handler_after:
    jmp next

# A stub's first instructions below its filter; rsi = the listener's number.
    .balign 64
mayfly_process_born:
    movl ${op_born}, %edi
ring:
    movl ${nr_bell}, %eax
    syscall
mayfly_process_ring_after:
next:                                   # what is next, the answer says; a word in memory could be a nested ring's
    cmpq ${answer_orders}, %rax
    je mayfly_process_orders
    jb mayfly_process_trampoline
    movq %rax, %rbx                     # a context
    jmp restore

# rbx = ucontext, in whose reserved words the server has written the frame for IRETQ, FS base, GS base, flags.
# RSP leaves the handler's frame first, so that signals which come here again and again do not pile up frames. Their
# frames overwrite general registers of this context, of which the server has a copy; its vector state lies above.
# The kernel leaves NT as the program has set it, with which IRETQ faults: POPF takes the word of this context's flags,
# of which RFLAGS has no more than the carry.
    .balign 64
restore:
    leaq ({uc_reserved} + 56)(%rbx), %rsp
    popfq
    leaq {uc_reserved}(%rbx), %rsp
    testb $1, ({uc_reserved} + 56)(%rbx)
    jz 1f
    movq ({uc_reserved} + 40)(%rbx), %rax
    wrfsbase %rax
    movq ({uc_reserved} + 48)(%rbx), %rax
    wrgsbase %rax
1:  movq {uc_xsave}(%rbx), %rcx
    movl $-1, %eax
    movl $-1, %edx
    xrstor64 (%rcx)
    movq ({uc_regs} + 0)(%rbx), %r8
    movq ({uc_regs} + 8)(%rbx), %r9
    movq ({uc_regs} + 16)(%rbx), %r10
    movq ({uc_regs} + 24)(%rbx), %r11
    movq ({uc_regs} + 32)(%rbx), %r12
    movq ({uc_regs} + 40)(%rbx), %r13
    movq ({uc_regs} + 48)(%rbx), %r14
    movq ({uc_regs} + 56)(%rbx), %r15
    movq ({uc_regs} + 64)(%rbx), %rdi
    movq ({uc_regs} + 72)(%rbx), %rsi
    movq ({uc_regs} + 80)(%rbx), %rbp
    movq ({uc_regs} + 96)(%rbx), %rdx
    movq ({uc_regs} + 104)(%rbx), %rax
    movq ({uc_regs} + 112)(%rbx), %rcx
    movq ({uc_regs} + 88)(%rbx), %rbx
    iretq

# Makes the ordered system calls. The page's first line: their count, the context to restore afterwards or 0 to ring, a
# stack pointer. Orders of 64 bytes follow. The stack pointer lies below the context that the program goes on with, so
# that no kick's frame comes over it: the handler may have left RSP in it.
    .balign 64
mayfly_process_orders:
    movabsq ${orders}, %r13
    movq 16(%r13), %rsp
    movl (%r13), %r14d
    addq $64, %r13
1:  movq (%r13), %rax
    movq 8(%r13), %rdi
    movq 16(%r13), %rsi
    movq 24(%r13), %rdx
    movq 32(%r13), %r10
    movq 40(%r13), %r8
    movq 48(%r13), %r9
    syscall
mayfly_process_order_after:
    cmpq 56(%r13), %rax
    jne mayfly_process_order_failed
    addq $64, %r13
    decl %r14d
    jnz 1b
mayfly_process_order_done:
    movabsq ${orders}, %r13
    movq 8(%r13), %rax
    testq %rax, %rax
    movl ${op_done}, %edi
    jz ring
    movq %rax, %rbx
    jmp restore
mayfly_process_order_failed:
    movl ${op_failed}, %edi
    movq %rax, %rsi
    movq %r14, %rdx
    jmp ring

# The start of a request, whatever the program before left: restores all processor state that a program can change.
# The doorbell jumps here, too. POPF only reads the stack that it gets for one instruction.
    .balign 64
mayfly_process_trampoline:
    xorl %esp, %esp
    # Reading selectors costs almost nothing, loading them 0.35 us.
    movl %ds, %eax
    movl %es, %ecx
    movl %fs, %edx
    movl %gs, %ebx
    orl %ecx, %eax
    orl %edx, %eax
    orl %ebx, %eax
    jnz 2f
1:  movabsq ${resume}, %rbx
    movl $-1, %eax
    movl $-1, %edx
    xrstor64 (%rbx)
    addq $({resume_words} - {resume}), %rbx
    movq 0(%rbx), %rax
    wrfsbase %rax
    movq 8(%rbx), %rax
    wrgsbase %rax
    leaq 16(%rbx), %rsp
    popfq
    movabsq ${control_rax}, %rax
    movq (%rax), %rax
    movq 48(%rbx), %rcx
    movq 56(%rbx), %rdx
    movq 64(%rbx), %rsi
    movq 72(%rbx), %rdi
    movq 80(%rbx), %rsp
    movq 88(%rbx), %rbp
    movq 96(%rbx), %r8
    movq 104(%rbx), %r9
    movq 112(%rbx), %r10
    movq 120(%rbx), %r11
    movq 128(%rbx), %r12
    movq 136(%rbx), %r13
    movq 144(%rbx), %r14
    movq 152(%rbx), %r15
    movq 40(%rbx), %rbx
    jmpq *(mayfly_process_start - {code} + {resume_words} + 24)(%rip)
2:  xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    jmp 1b

# Where a handler would return to. The handler never does.
    .balign 64
mayfly_process_restorer:
    ud2

# A zygote: it makes the system calls of its script, without stack or memory of its own. Entries have 128 bytes:
#   0 number, or -1: a stub is born   8..55 arguments     56 check: 0 = result as expected, 1 = not negative
#   64 expected     72 next after a result of 0           80 next after another
#   88 next if the check fails, 0: the process ends       96 result, unless that is 0
# An address of 0 as next is the following entry.
    .balign 64
mayfly_process_zygote:
    movabsq ${script}, %r12
1:  movq (%r12), %rax
    testq %rax, %rax
    js 6f
    movq 8(%r12), %rdi
    movq 16(%r12), %rsi
    movq 24(%r12), %rdx
    movq 32(%r12), %r10
    movq 40(%r12), %r8
    movq 48(%r12), %r9
    syscall
    movq %rax, %r14
    cmpq $0, 56(%r12)
    jne 2f
    cmpq 64(%r12), %rax
    jne 4f
    jmp 3f
2:  testq %rax, %rax
    js 4f
3:  testq %rax, %rax
    jz 7f
    movq %rax, 96(%r12)
    movq 80(%r12), %rcx
    jmp 8f
7:  movq 72(%r12), %rcx
8:  testq %rcx, %rcx
    jnz 9f
    leaq 128(%r12), %rcx
9:  movq %rcx, %r12
    jmp 1b
4:  movq %rax, 96(%r12)
    movq 88(%r12), %rcx
    testq %rcx, %rcx
    jnz 9b
    movl ${nr_exit_group}, %eax
    movl $1, %edi
    syscall
    ud2
6:  movq %r14, %rsi                     # the result of seccomp(2)
    jmp mayfly_process_born
    .balign 64
mayfly_process_end:

# A zygote's first program: maps the host code (descriptor 1) and the script (descriptor 2), without using its stack,
# which may lie anywhere near.
    .balign 64
    .globl mayfly_process_bootstrap_start, mayfly_process_bootstrap_end
mayfly_process_bootstrap_start:
    movl ${nr_mmap}, %eax
    movabsq ${code}, %rdi
    movl ${code_bytes}, %esi
    movl $5, %edx                       # PROT_READ | PROT_EXEC
    movl $0x12, %r10d                   # MAP_PRIVATE | MAP_FIXED
    movl $1, %r8d
    xorl %r9d, %r9d
    syscall
    cmpq %rdi, %rax
    jne 1f
    movl ${nr_mmap}, %eax
    movabsq ${script}, %rdi
    movl ${script_bytes}, %esi
    movl $3, %edx                       # PROT_READ | PROT_WRITE
    movl $0x11, %r10d                   # MAP_SHARED | MAP_FIXED
    movl $2, %r8d
    syscall
    cmpq %rdi, %rax
    jne 1f
    movabsq ${code} + (mayfly_process_zygote - mayfly_process_start), %rax
    jmpq *%rax
1:  ud2
mayfly_process_bootstrap_end:

# The doorbell, int64_t bell(op, a, b): the program's way to the server. It lies in a page of the program's memory,
# whose first bytes the sandbox fills. In a worker that is reset, the call ends a request, and the next one starts
# behind it. A program's frozen registers may stand behind the call: `frozen_rip` has them skip the question whether to
# rewind.
    .balign 64
    .globl mayfly_process_bell, mayfly_process_bell_after, mayfly_process_bell_return, mayfly_process_bell_end
mayfly_process_bell:
    movl ${nr_bell}, %eax
    syscall
mayfly_process_bell_after:
    cmpl $0, (mayfly_process_bell - {bell} + {control})(%rip)
    jne mayfly_process_bell - {bell} + {code} + (mayfly_process_trampoline - mayfly_process_start)
mayfly_process_bell_return:
    ret
mayfly_process_bell_end:
    .popsection
