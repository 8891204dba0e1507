/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The vDSO: a shared object of one page that C libraries and runtimes find by AT_SYSINFO_EHDR. Its functions return the
 * time without a system call. It is laid out here as it lies in memory, without a linker: ELF header, two program
 * headers, dynamic section, symbols with their version, code. Everything is relative to its start; vdso.rs copies it
 * from between its symbols, and its tests check what loaders look for.
 *
 * Sources: System V gABI, "Object Files" and "Dynamic Linking"; LSB, "Symbol Versioning"; vdso(7). AT&T syntax, SysV
 * ABI.
 */
#include "vdso.h"

    .section .rodata.mayfly_vdso, "a", @progbits

#define AT(label) ((label) - origin)
#define SIZE AT(end)

/* st_name, st_info (global function), st_other, st_shndx (there are no sections; not 0, which is "undefined"),
 * st_value, st_size */
    .macro symbol name, code
    .long \name - names
    .byte 0x12, 0
    .value 1
    .quad AT(\code), AT(\code\()_end) - AT(\code)
    .endm

    .balign 16, 0xcc
    .globl mayfly_vdso_start, mayfly_vdso_end
mayfly_vdso_start:
origin:
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0           /* 64 bits, little endian, version 1, System V */
    .quad 0
    .value 3, 62                                    /* ET_DYN, EM_X86_64 */
    .long 1
    .quad 0, AT(headers), 0                         /* no entry point, no sections */
    .long 0
    .value 64, 56, 2, 64, 0, 0
headers:
    .long 1, 5                                      /* PT_LOAD, r-x: all of it */
    .quad 0, 0, 0, SIZE, SIZE, 4096
    .long 2, 4                                      /* PT_DYNAMIC */
    .quad AT(dynamic), AT(dynamic), AT(dynamic), AT(dynamic_end) - AT(dynamic), AT(dynamic_end) - AT(dynamic), 8

dynamic:
    .quad 14, name_object - names                   /* DT_SONAME */
    .quad 4, AT(hash)                               /* DT_HASH */
    .quad 5, AT(names)                              /* DT_STRTAB */
    .quad 6, AT(symbols)                            /* DT_SYMTAB */
    .quad 10, AT(names_end) - AT(names)             /* DT_STRSZ */
    .quad 11, 24                                    /* DT_SYMENT */
    .quad 0x6ffffffc, AT(definitions)               /* DT_VERDEF */
    .quad 0x6ffffffd, 2                             /* DT_VERDEFNUM */
    .quad 0x6ffffff0, AT(versions)                  /* DT_VERSYM */
    .quad 0, 0
dynamic_end:

symbols:
    .zero 24
    symbol name_clock_gettime, vdso_clock_gettime
    symbol name_gettimeofday, vdso_gettimeofday
    symbol name_time, vdso_time
    symbol name_getcpu, vdso_getcpu
    symbol name_clock_getres, vdso_clock_getres

hash:                                               /* one bucket holds them all: 1 -> 2 -> 3 -> 4 -> 5 */
    .long 1, 6, 1, 0, 2, 3, 4, 5, 0
versions:
    .value 0, 2, 2, 2, 2, 2
    .balign 4
/* vd_version, vd_flags, vd_ndx, vd_cnt, vd_hash, vd_aux, vd_next; vda_name, vda_next */
definitions:
    .value 1, 1, 1, 1
    .long 0x0deebfa1, 20, 28, name_object - names, 0
    .value 1, 0, 2, 1
    .long 0x03ae75f6, 20, 0, name_version - names, 0

names:
    .byte 0
name_object:        .asciz "linux-vdso.so.1"
name_version:       .asciz "LINUX_2.6"
name_clock_gettime: .asciz "__vdso_clock_gettime"
name_gettimeofday:  .asciz "__vdso_gettimeofday"
name_time:          .asciz "__vdso_time"
name_getcpu:        .asciz "__vdso_getcpu"
name_clock_getres:  .asciz "__vdso_clock_getres"
names_end:

/* For clocks 0 to 7 of <linux/time.h>, offsets in the control line: the clock's reading, its rate. 0 where the kernel
 * answers. The coarse clocks are the fine ones here: nothing ticks. */
clocks:
    .byte MAYFLY_CLOCK_REALTIME, MAYFLY_CLOCK_RATE  /* CLOCK_REALTIME */
    .byte MAYFLY_CLOCK_MONOTONIC, MAYFLY_CLOCK_RATE /* CLOCK_MONOTONIC */
    .byte 0, 0
    .byte 0, 0
    .byte MAYFLY_CLOCK_RAW, MAYFLY_CLOCK_RAW_RATE   /* CLOCK_MONOTONIC_RAW */
    .byte MAYFLY_CLOCK_REALTIME, MAYFLY_CLOCK_RATE  /* CLOCK_REALTIME_COARSE */
    .byte MAYFLY_CLOCK_MONOTONIC, MAYFLY_CLOCK_RATE /* CLOCK_MONOTONIC_COARSE */
    .byte MAYFLY_CLOCK_BOOTTIME, MAYFLY_CLOCK_RATE  /* CLOCK_BOOTTIME */

#define CONTROL_LINE (origin + MAYFLY_VDSO_CONTROL)(%rip)

/* RAX = a clock in nanoseconds; goes to `otherwise` where the host gives no rate. Changes RCX, RDX, R8, R11.
 *
 * Between any two instructions the host may stop the program and write a new line. So all of it is read again until its
 * time stamp, which no two lines share, is the same before and after. LFENCE: the counter must not be read before
 * earlier instructions have completed. */
    .macro read_clock reading, rate, otherwise
    leaq CONTROL_LINE, %r8
7:  movq MAYFLY_CLOCK_TSC(%r8), %r11
    movl \rate, %ecx
    testl %ecx, %ecx
    jz \otherwise
    lfence
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    xorl %edx, %edx
    subq %r11, %rax
    cmovcq %rdx, %rax
    mulq %rcx
    shrdq $MAYFLY_CLOCK_SHIFT, %rdx, %rax
    addq \reading, %rax
    cmpq %r11, MAYFLY_CLOCK_TSC(%r8)
    jne 7b
    .endm

/* RAX nanoseconds -> RDX seconds, RCX nanoseconds: a division by 10^9 as a multiplication. */
    .macro split
    movq %rax, %rcx
    shrq $9, %rax
    movabsq $19342813113834067, %rdx
    mulq %rdx
    shrq $11, %rdx
    imulq $1000000000, %rdx, %rax
    subq %rax, %rcx
    .endm

    .macro system_call number
    movl $\number, %eax
    syscall
    ret
    .endm

    .balign 16, 0xcc
/* int clock_gettime(clockid_t clock, struct timespec *now) */
vdso_clock_gettime:
    cmpl $7, %edi
    ja 9f
    movl %edi, %eax
    leaq clocks(%rip), %rcx
    movzbl 1(%rcx,%rax,2), %r10d
    movzbl (%rcx,%rax,2), %r9d
    testl %r9d, %r9d
    jz 9f
    read_clock "(%r8,%r9)", "(%r8,%r10)", 9f
    split
    movq %rdx, (%rsi)
    movq %rcx, 8(%rsi)
    xorl %eax, %eax
    ret
9:  system_call 228
vdso_clock_gettime_end:

    .balign 16, 0xcc
/* int gettimeofday(struct timeval *now, struct timezone *zone) */
vdso_gettimeofday:
    testq %rdi, %rdi
    jz 1f
    read_clock MAYFLY_CLOCK_REALTIME(%r8), MAYFLY_CLOCK_RATE(%r8), 9f
    split
    imulq $274877907, %rcx, %rcx    /* a division by 1000 */
    shrq $38, %rcx
    movq %rdx, (%rdi)
    movq %rcx, 8(%rdi)
1:  xorl %eax, %eax
    testq %rsi, %rsi
    jz 2f
    movq %rax, (%rsi)               /* Greenwich, no summer time */
2:  ret
9:  system_call 96
vdso_gettimeofday_end:

    .balign 16, 0xcc
/* time_t time(time_t *now) */
vdso_time:
    read_clock MAYFLY_CLOCK_REALTIME(%r8), MAYFLY_CLOCK_RATE(%r8), 9f
    split
    movq %rdx, %rax
    testq %rdi, %rdi
    jz 1f
    movq %rax, (%rdi)
1:  ret
9:  system_call 201
vdso_time_end:

    .balign 16, 0xcc
/* long getcpu(unsigned *cpu, unsigned *node, void *unused): there is one processor */
vdso_getcpu:
    xorl %eax, %eax
    testq %rdi, %rdi
    jz 1f
    movl %eax, (%rdi)
1:  testq %rsi, %rsi
    jz 2f
    movl %eax, (%rsi)
2:  ret
vdso_getcpu_end:

    .balign 16, 0xcc
/* int clock_getres(clockid_t clock, struct timespec *resolution): for clocks that count nanoseconds here; the kernel
 * answers for the others */
vdso_clock_getres:
    movl $1 << 0 | 1 << 1 | 1 << 4 | 1 << 7, %eax
    cmpl $7, %edi
    ja 9f
    btl %edi, %eax
    jnc 9f
    testq %rsi, %rsi
    jz 1f
    movq $0, (%rsi)
    movq $1, 8(%rsi)
1:  xorl %eax, %eax
    ret
9:  system_call 229
vdso_clock_getres_end:
end:
mayfly_vdso_end:

    .section .note.GNU-stack, "", @progbits
