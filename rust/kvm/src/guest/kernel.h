/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Numbers that kernel.S and layout.rs share; a test in kernel.rs compares them. */
#define MAYFLY_PORT_EXCEPTION 0xa0 /* plus the vector, 0..31 */
#define MAYFLY_PORT_DOORBELL 0xd0
#define MAYFLY_PORT_SYSCALL 0xd1

/* Offsets in the doorbell page. One page holds all that a worker runs and reads on its way in and out, since every
 * further one costs a TLB miss after each world switch. The XSAVE area must be 64-byte aligned. */
#define MAYFLY_DOORBELL_OFFSET 0x100
#define MAYFLY_TRAMPOLINE_OFFSET 0x140
#define MAYFLY_RESUME_XSAVE 0x400
#define MAYFLY_RESUME_REGS 0xf00 /* 20 quadwords, in the order of `enum` resume in kernel.rs */
/* Distance from the doorbell page to the inbox's page, whose first word says whether the doorbell rewinds. */
#define MAYFLY_INBOX_DISTANCE 0xf000
/* Offset in the control line of the value that the trampoline puts into RAX: what the frozen call returns. */
#define MAYFLY_CONTROL_RAX 8
