// SPDX-License-Identifier: MIT OR Apache-2.0
//
// faults_ring(struct ring *): rings the doorbell in a processor state that no compiler would make, and
// records the state in which the doorbell returns. See faults.h for the parts and the structures.

#define PATTERN 0x5a5aa5a55a5aa5a5
#define JUNK_BASE 0x12345000
#define SYS_ARCH_PRCTL 158
#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004
#define HAS_FSGSBASE 0
#define HAS_XSAVE 1
#define HAS_AVX 2
#define HAS_AVX512 3

        .text
        .globl faults_ring
        .type faults_ring, @function
faults_ring:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        sub $8, %rsp
        mov %rsp, saved_rsp(%rip)
        mov %rdi, %rbx
        mov 32(%rbx), %r12
        mov %r12, spoiled(%rip)
        mov faults_features(%rip), %r13d
        mov %ds, saved_selectors(%rip)
        mov %es, saved_selectors+2(%rip)
        mov %fs, saved_selectors+4(%rip)
        mov %gs, saved_selectors+6(%rip)
        mov %fs:0, %rax                  # Both libcs keep the thread's own address there.
        mov %rax, saved_fs_base(%rip)

        bt $11, %r12                     # CPU_VECTORS
        jnc 2f
        mov $PATTERN, %rax
        bt $HAS_AVX512, %r13d
        jc 1f
        movq %rax, %xmm0
        punpcklqdq %xmm0, %xmm0
        .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqa %xmm0, %xmm\n
        .endr
        bt $HAS_AVX, %r13d
        jnc 2f
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vinsertf128 $1, %xmm\n, %ymm\n, %ymm\n
        .endr
        jmp 2f
1:      .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vpbroadcastq %rax, %zmm\n
        .endr
        .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vpbroadcastq %rax, %zmm\n
        .endr
        .irp n, 0,1,2,3,4,5,6,7
        kmovw %eax, %k\n
        .endr
2:      bt $9, %r12                      # CPU_X87: six registers in use, exceptions unmasked, single precision.
        jnc 2f
        fninit
        fldpi
        fldl2e
        fldln2
        fldpi
        fldl2e
        fldln2
        fldcw odd_x87(%rip)
2:      bt $10, %r12                     # CPU_MXCSR: exceptions unmasked, rounding towards zero.
        jnc 2f
        ldmxcsr odd_mxcsr(%rip)

2:      mov %ss, %r14d                   # A selector that surely works, or none if it is in use already.
        mov %ds, %eax
        cmp %r14w, %ax
        jne 1f
        xor %r14d, %r14d
1:      bt $3, %r12                      # CPU_DATA_SEG
        jnc 2f
        mov %r14d, %ds
        mov %r14d, %es
2:      bt $4, %r12                      # CPU_THREAD_SEG; from here on there is no thread-local storage.
        jnc 2f
        mov %ss, %r14d
        mov %fs, %eax
        cmp %r14w, %ax
        jne 1f
        xor %r14d, %r14d
1:      mov %r14d, %fs
        mov %r14d, %gs
2:      mov $JUNK_BASE, %r15d
        bt $5, %r12                      # CPU_FS_BASE
        jnc 2f
        bt $HAS_FSGSBASE, %r13d
        jnc 2f
        wrfsbase %r15
2:      bt $7, %r12                      # CPU_GS_BASE
        jnc 2f
        bt $HAS_FSGSBASE, %r13d
        jnc 2f
        wrgsbase %r15
2:      bt $6, %r12                      # CPU_FS_BASE_CALL
        jnc 2f
        mov $ARCH_SET_FS, %edi
        mov %r15, %rsi
        mov $SYS_ARCH_PRCTL, %eax
        syscall
2:      bt $8, %r12                      # CPU_GS_BASE_CALL
        jnc 2f
        mov $ARCH_SET_GS, %edi
        mov %r15, %rsi
        mov $SYS_ARCH_PRCTL, %eax
        syscall
2:
        mov 0(%rbx), %rdi
        mov 8(%rbx), %rsi
        mov 16(%rbx), %rdx
        mov 24(%rbx), %rax
        bt $1, %r12                      # CPU_STACK
        jnc 2f
        lea other_stack_top(%rip), %rsp
2:      mov %r12, %rcx
        bt $0, %rcx                      # CPU_GENERAL
        jnc 2f
        mov $PATTERN, %rbx
        mov %rbx, %rbp
        mov %rbx, %r8
        mov %rbx, %r9
        mov %rbx, %r10
        mov %rbx, %r11
        mov %rbx, %r12
        mov %rbx, %r13
        mov %rbx, %r14
        mov %rbx, %r15
2:      bt $2, %rcx                      # CPU_FLAGS: DF AC NT ID, and CF PF AF ZF SF OF.
        jnc 2f
        pushfq
        orq $0x244cd5, (%rsp)
        popfq
2:      call *%rax

        # The state at the return. Nothing here may change the flags before they are stored.
        mov %rcx, faults_seen+0(%rip)
        mov %rdx, faults_seen+8(%rip)
        mov %rsi, faults_seen+16(%rip)
        mov %rdi, faults_seen+24(%rip)
        mov %r8, faults_seen+32(%rip)
        mov %r9, faults_seen+40(%rip)
        mov %r10, faults_seen+48(%rip)
        mov %r11, faults_seen+56(%rip)
        mov %rbx, faults_seen+64(%rip)
        mov %rbp, faults_seen+72(%rip)
        mov %r12, faults_seen+80(%rip)
        mov %r13, faults_seen+88(%rip)
        mov %r14, faults_seen+96(%rip)
        mov %r15, faults_seen+104(%rip)
        mov %rsp, faults_seen+112(%rip)
        pushfq
        pop %rcx
        mov %rcx, faults_seen+120(%rip)
        pushq $2                         # No flag.
        popfq
        xor %ecx, %ecx
        mov %ds, %ecx
        mov %rcx, faults_seen+128(%rip)
        mov %es, %ecx
        mov %rcx, faults_seen+136(%rip)
        mov %fs, %ecx
        mov %rcx, faults_seen+144(%rip)
        mov %gs, %ecx
        mov %rcx, faults_seen+152(%rip)
        mov saved_rsp(%rip), %rsp
        mov %rax, %rbx                   # The doorbell's answer.
        mov faults_features(%rip), %r13d

        bt $HAS_XSAVE, %r13d
        jnc 1f
        mov $0xe7, %eax                  # x87 SSE AVX, opmask ZMM_Hi256 Hi16_ZMM
        xor %edx, %edx
        xsave64 faults_xsave(%rip)
        jmp 2f
1:      fxsave64 faults_xsave(%rip)
2:      bt $HAS_FSGSBASE, %r13d
        jnc 1f
        rdfsbase %rax
        mov %rax, faults_seen+160(%rip)
        rdgsbase %rax
        mov %rax, faults_seen+168(%rip)
        jmp 2f
1:      mov $ARCH_GET_FS, %edi
        lea faults_seen+160(%rip), %rsi
        mov $SYS_ARCH_PRCTL, %eax
        syscall
        mov $ARCH_GET_GS, %edi
        lea faults_seen+168(%rip), %rsi
        mov $SYS_ARCH_PRCTL, %eax
        syscall

        # Where there was no reset, C needs what was spoiled.
2:      cmpq $0, spoiled(%rip)
        je 2f
        fninit
        ldmxcsr sane_mxcsr(%rip)
        movw saved_selectors(%rip), %ds
        movw saved_selectors+2(%rip), %es
        movw saved_selectors+4(%rip), %fs
        movw saved_selectors+6(%rip), %gs
        mov $ARCH_SET_FS, %edi
        mov saved_fs_base(%rip), %rsi
        mov $SYS_ARCH_PRCTL, %eax
        syscall
2:      mov %rbx, %rax
        add $8, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret
        .size faults_ring, . - faults_ring

        .section .rodata
        .balign 4
odd_mxcsr:
        .long 0x6000
sane_mxcsr:
        .long 0x1f80
odd_x87:
        .word 0x0c40

        .bss
        .balign 64
        .globl faults_xsave
faults_xsave:
        .skip 8192
        .globl faults_seen
faults_seen:
        .skip 176
saved_rsp:
        .skip 8
saved_fs_base:
        .skip 8
spoiled:
        .skip 8
saved_selectors:
        .skip 8
        .globl faults_features
faults_features:
        .skip 4
        .balign 4096
        .skip 32768
other_stack_top:
        .skip 64

        .section .note.GNU-stack, "", @progbits
