/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Numbers that vdso.S and layout.rs share; a test in vdso/tests.rs compares them. */

/* Distance from the vDSO to the control line, and what the vDSO finds there: the time-stamp counter when the host last
 * read the clocks, their values at that time, in nanoseconds, and nanoseconds per cycle times 2^31; 0 if the program
 * must use a system call. */
#define MAYFLY_VDSO_CONTROL 0x7000
#define MAYFLY_CLOCK_TSC 0x10
#define MAYFLY_CLOCK_MONOTONIC 0x18
#define MAYFLY_CLOCK_REALTIME 0x20
#define MAYFLY_CLOCK_BOOTTIME 0x28
#define MAYFLY_CLOCK_RAW 0x30
#define MAYFLY_CLOCK_RATE 0x38
#define MAYFLY_CLOCK_RAW_RATE 0x3c
#define MAYFLY_CLOCK_SHIFT 31
