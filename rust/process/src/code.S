# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The code of the host page, which every stub has at CODE, and of a zygote's start. Position-independent; the addresses
# in braces come from layout.rs. In this page a system call is made for the server, elsewhere for the program: the
# filter sees the difference by the instruction pointer. Nothing here may be relied on for isolation: a program can jump
# to any instruction with any registers.

    .pushsection .rodata.mayfly_process, "a", @progbits
    .balign 64
    .globl mayfly_process_start, mayfly_process_end, mayfly_process_bell, mayfly_process_bell_after
    .globl mayfly_process_handler, mayfly_process_handler_after, mayfly_process_ring_after
    .globl mayfly_process_order_after, mayfly_process_restorer, mayfly_process_zygote

mayfly_process_start:
    .skip {bell_offset}, 0xcc           # the sandbox's header

# int64_t bell(op, a, b): the program's way to the server.
mayfly_process_bell:
    movl ${nr_bell}, %eax
    syscall
mayfly_process_bell_after:
    ret

# Every signal: rdi = number, rsi = siginfo, rdx = ucontext. What no ucontext has goes along in registers.
    .balign 64
mayfly_process_handler:
    movq %rdx, %rbx
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
born:
    movl ${op_born}, %edi
ring:
    movl ${nr_bell}, %eax
    syscall
mayfly_process_ring_after:
next:                                   # what is next, the answer says; a word in memory could be a nested ring's
    testq %rax, %rax
    jz restore
    cmpq ${answer_orders}, %rax
    je orders
    movq %rax, %rbx                     # a context
    jmp restore

# rbx = ucontext, in whose reserved words the server has written the frame for IRETQ, FS base, GS base, flags.
    .balign 64
restore:
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
    leaq {uc_reserved}(%rbx), %rsp
    movq ({uc_regs} + 88)(%rbx), %rbx
    iretq

# Makes the ordered system calls: count and what follows in the page's first line, then orders of 64 bytes. rbx stays.
    .balign 64
orders:
    movabsq ${orders}, %r13
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
    jne 2f
    addq $64, %r13
    decl %r14d
    jnz 1b
    movabsq ${orders}, %r13
    cmpl $0, 8(%r13)
    je restore
    movl ${op_done}, %edi
    jmp ring
2:  movl ${op_failed}, %edi
    movq %rax, %rsi
    movq %r14, %rdx
    jmp ring

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
    jmp born
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
    .popsection
