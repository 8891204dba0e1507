// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the files of `faults` share.

#ifndef FAULTS_H
#define FAULTS_H

#include <stddef.h>
#include <stdint.h>

#include "mayfly.h"

// Parts of the processor's state that ring.S spoils on the way to the doorbell, and offsets that it uses.
enum cpu_part {
    CPU_GENERAL = 1 << 0,      // All general registers that carry no argument.
    CPU_STACK = 1 << 1,        // RSP: another stack.
    CPU_FLAGS = 1 << 2,        // DF, AC, NT, ID and the arithmetic flags.
    CPU_DATA_SEG = 1 << 3,     // DS and ES.
    CPU_THREAD_SEG = 1 << 4,   // FS and GS, the selectors.
    CPU_FS_BASE = 1 << 5,      // By wrfsbase, where the CPU has it,
    CPU_FS_BASE_CALL = 1 << 6, // and by arch_prctl(2).
    CPU_GS_BASE = 1 << 7,
    CPU_GS_BASE_CALL = 1 << 8,
    CPU_X87 = 1 << 9,
    CPU_MXCSR = 1 << 10,
    CPU_VECTORS = 1 << 11, // The widest vector and mask registers that the CPU has.
};

// What the CPU can do (faults_features).
enum cpu_feature { CPU_HAS_FSGSBASE = 1, CPU_HAS_XSAVE = 2, CPU_HAS_AVX = 4, CPU_HAS_AVX512 = 8 };

// How to ring the doorbell. Offsets known to ring.S.
struct ring {
    uint64_t operation;
    const void *argument;
    uint64_t abi;
    uint64_t entry;
    uint64_t spoil; // Of enum cpu_part.
};

// The processor's state at the moment when the doorbell returned. Offsets known to ring.S.
struct cpu_seen {
    uint64_t general[14]; // rcx rdx rsi rdi r8 r9 r10 r11 rbx rbp r12 r13 r14 r15
    uint64_t rsp;
    uint64_t flags;
    uint64_t selectors[4]; // ds es fs gs
    uint64_t fs_base;
    uint64_t gs_base;
};

// Rings, spoils on the way, records faults_seen and faults_xsave at the return, and cleans up what it spoiled.
int64_t faults_ring(const struct ring *ring);

extern uint32_t faults_features;
extern struct cpu_seen faults_seen;
extern unsigned char faults_xsave[8192];

#define FAULTS_PAGE 4096ul
#define MAX_HEADERS 65

// Addresses that are no good for a program.
#define LOW UINT64_C(0x10)
#define UNMAPPED UINT64_C(0x00004badf00d0000)
#define NON_CANONICAL UINT64_C(0x0000800000000000)
#define KERNEL_HALF UINT64_C(0xffff800000000000)

// A behaviour under way: what it was asked, and how the doorbell will be rung after it.
struct act {
    const struct mayfly_request *request; // NULL at boot.
    const char *rest;                     // Of the name, behind a family's.
    uint64_t number;                      // 0 if none was given:
    int has_number;
    int rings; // The behaviour is one of ringing: it rings at boot, too.
    struct ring ring;
    struct mayfly_response response;
    struct mayfly_header headers[MAX_HEADERS];
};

// A name that ends with '-' is a family's: it matches names that start with it. A table ends with a NULL.
struct behaviour {
    const char *name;
    void (*run)(struct act *act);
};

extern const struct behaviour processor_behaviours[]; // processor.c
extern const struct behaviour endless_behaviours[];   // endless.c
extern const struct behaviour response_behaviours[];  // responses.c
extern const struct behaviour system_behaviours[];    // system.c
extern const struct behaviour state_behaviours[];     // state.c
extern const struct behaviour call_behaviours[];      // calls.c
extern const struct behaviour shared_behaviours[];    // shared.c
extern const struct behaviour clock_behaviours[];     // clocks.c
extern const struct behaviour way_behaviours[];       // ways.c

extern const struct mayfly_page *host;

static inline void *at(uint64_t address) { return (void *)(uintptr_t)address; }
static inline uint64_t address_of(const volatile void *pointer) { return (uint64_t)(uintptr_t)pointer; }

// The response's text, for code that writes it in place.
extern char text[65536];

// Appends to the response's text (and to nothing else: no allocation, no stdio buffers).
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

// A system call, straight: returns -errno.
int64_t call6(int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);
#define CALL(number, a, b, c) call6(number, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0, 0)

// Whether the kernel can read (write) at `address` for us; writing scribbles 16 bytes there.
int readable(uint64_t address);
int writable(uint64_t address);

// `bytes` writable bytes with an unmapped page right behind them.
char *before_gap(size_t bytes);

// A place that is no good for `size` bytes that `good` holds, or in which only half of them lie: "null", "low",
// "kernel", "non-canonical", "unmapped" or "straddle".
void *bad_place(const char *where, const void *good, size_t size);

// Says the part of the state that faults_ring() has taken down.
void processor_state(void);

// Notes at boot what state.c needs later.
void state_prepare(void);

#endif
