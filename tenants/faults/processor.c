// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Processor exceptions, and instructions that are the kernel's.

#define _GNU_SOURCE
#include "faults.h"

#include <sys/mman.h>

static void read_at(uint64_t address) { say("%d\n", *(volatile unsigned char *)at(address)); }
static void write_at(uint64_t address) { *(volatile unsigned char *)at(address) = 1; }
static void call_at(uint64_t address) { ((void (*)(void))(uintptr_t)address)(); }

static void null_read(struct act *act) { read_at(act->number * 0); }
static void null_write(struct act *act) { write_at(act->number * 0); }
static void null_call(struct act *act) { call_at(act->number * 0); }
static void any_read(struct act *act) { read_at(act->number); }
static void any_write(struct act *act) { write_at(act->number); }
static void any_call(struct act *act) { call_at(act->number); }
static void kernel_half(struct act *act) { (void)act, read_at(KERNEL_HALF); }
static void non_canonical(struct act *act) { (void)act, read_at(NON_CANONICAL); }
static void write_text(struct act *act) { (void)act, write_at((uint64_t)(uintptr_t)&write_text); }
static void exec_data(struct act *act) {
    (void)act;
    text[0] = (char)0xc3; // ret
    call_at(address_of(text));
}
static void write_request(struct act *act) { write_at(act->request ? address_of(act->request) : address_of(host)); }
static void write_page(struct act *act) { (void)act, write_at(address_of(host)); }

static uint64_t recurse(uint64_t depth) {
    volatile char frame[1024];
    frame[0] = (char)depth;
    return depth == UINT64_MAX ? 0 : recurse(depth + 1) + (uint64_t)frame[0];
}
static void stack_overflow(struct act *act) { say("%llu\n", (unsigned long long)recurse(act->number)); }

// A behaviour that is one instruction.
#define INSTRUCTION(id, ...)                                                                                           \
    static void id(struct act *act) {                                                                                  \
        (void)act;                                                                                                     \
        __asm__ volatile(__VA_ARGS__);                                                                                 \
    }

INSTRUCTION(cpu_ud2, "ud2")
INSTRUCTION(cpu_div, "xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx", "cc")
INSTRUCTION(cpu_int3, "int3")
INSTRUCTION(trap_flag, "pushfq; orq $0x100, (%%rsp); popfq; nop" ::: "cc", "memory")
INSTRUCTION(alignment, "pushfq; orq $0x40000, (%%rsp); popfq; mov 1(%%rsp), %%rax" ::: "rax", "cc", "memory")
INSTRUCTION(fp_exception, "fninit; fldcw %0; fldz; fld1; fdivp; fwait" ::"m"((const uint16_t){0x0340}) : "memory")

INSTRUCTION(cpu_hlt, "hlt")
INSTRUCTION(cpu_cli, "cli")
INSTRUCTION(cpu_sti, "sti")
INSTRUCTION(mov_cr0, "mov %0, %%cr0" ::"r"(UINT64_C(0)))
INSTRUCTION(mov_cr3, "mov %0, %%cr3" ::"r"(UINT64_C(0)))
INSTRUCTION(mov_cr4, "mov %0, %%cr4" ::"r"(UINT64_C(0)))
INSTRUCTION(read_cr3, "mov %%cr3, %%rax" ::: "rax")
INSTRUCTION(mov_dr7, "mov %0, %%dr7" ::"r"(UINT64_C(0)))
INSTRUCTION(cpu_rdmsr, "rdmsr" ::"c"(0xc0000082) : "rax", "rdx")
INSTRUCTION(cpu_wrmsr, "wrmsr" ::"c"(0xc0000082), "a"(0), "d"(0))
INSTRUCTION(cpu_lgdt, "lgdt (%0)" ::"r"(text) : "memory")
INSTRUCTION(cpu_lidt, "lidt (%0)" ::"r"(text) : "memory")
INSTRUCTION(cpu_ltr, "ltr %w0" ::"r"(0))
INSTRUCTION(cpu_invlpg, "invlpg (%0)" ::"r"(text) : "memory")
INSTRUCTION(cpu_swapgs, "swapgs")
INSTRUCTION(cpu_sysret, "xor %%ecx, %%ecx; sysretq" ::: "rcx", "r11")
// To selectors of the usual kernel code segments.
INSTRUCTION(cpu_iret, "mov %%rsp, %%rax; pushq $0; pushq %%rax; pushfq; pushq $0x8; pushq $0; iretq" ::
                : "rax", "memory")
INSTRUCTION(cpu_xsetbv, "xsetbv" ::"c"(0), "a"(1), "d"(0))
INSTRUCTION(cpu_wbinvd, "wbinvd")
INSTRUCTION(cpu_clts, "clts")
INSTRUCTION(cpu_vmcall, "vmcall" ::"a"(0))
INSTRUCTION(cpu_vmmcall, "vmmcall" ::"a"(0))
INSTRUCTION(cpu_sysenter, "sysenter")
INSTRUCTION(syscall_compat, "int $0x80" ::"a"(20))
INSTRUCTION(cpu_rdpmc, "rdpmc" ::"c"(0) : "rax", "rdx")

static void port_in(struct act *act) {
    uint32_t value;
    __asm__ volatile("inl %%dx, %%eax" : "=a"(value) : "d"((uint16_t)act->number));
    say("%x\n", value);
}
static void port_out(struct act *act) { __asm__ volatile("outl %%eax, %%dx" ::"a"(0), "d"((uint16_t)act->number)); }
static void cpu_wrpkru(struct act *act) {
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"((uint32_t)act->number), "c"(0), "d"(0) : "memory");
}

static uint64_t run_code(const void *code, size_t size) {
    char *page = mmap(NULL, 16 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || size >= 16 * FAULTS_PAGE) return 0;
    memcpy(page, code, size);
    page[size] = (char)0xc3; // ret
    mprotect(page, 16 * FAULTS_PAGE, PROT_READ | PROT_EXEC);
    return ((uint64_t(*)(void))(uintptr_t)page)();
}
static void cpu_int(struct act *act) {
    const unsigned char code[] = {0xcd, (unsigned char)act->number};
    run_code(code, sizeof code);
}
static void any_code(struct act *act) {
    if (!act->request) return;
    say("%llx\n", (unsigned long long)run_code(act->request->body.data, act->request->body.size));
}

// clang-format off: a table for the eye.
const struct behaviour processor_behaviours[] = {
    {"null", null_read},
    {"null-write", null_write},
    {"null-call", null_call},
    {"read", any_read},
    {"write", any_write},
    {"call", any_call},
    {"kernel-half", kernel_half},
    {"non-canonical", non_canonical},
    {"write-text", write_text},
    {"exec-data", exec_data},
    {"write-request", write_request},
    {"write-page", write_page},
    {"stack-overflow", stack_overflow},
    {"ud2", cpu_ud2},
    {"div", cpu_div},
    {"int3", cpu_int3},
    {"trap-flag", trap_flag},
    {"alignment", alignment},
    {"fp-exception", fp_exception},
    {"int", cpu_int},
    {"code", any_code},
    {"hlt", cpu_hlt},
    {"cli", cpu_cli},
    {"sti", cpu_sti},
    {"mov-cr0", mov_cr0},
    {"mov-cr3", mov_cr3},
    {"mov-cr4", mov_cr4},
    {"read-cr3", read_cr3},
    {"mov-dr7", mov_dr7},
    {"rdmsr", cpu_rdmsr},
    {"wrmsr", cpu_wrmsr},
    {"lgdt", cpu_lgdt},
    {"lidt", cpu_lidt},
    {"ltr", cpu_ltr},
    {"invlpg", cpu_invlpg},
    {"swapgs", cpu_swapgs},
    {"sysret", cpu_sysret},
    {"iret", cpu_iret},
    {"xsetbv", cpu_xsetbv},
    {"wbinvd", cpu_wbinvd},
    {"clts", cpu_clts},
    {"vmcall", cpu_vmcall},
    {"vmmcall", cpu_vmmcall},
    {"sysenter", cpu_sysenter},
    {"syscall-compat", syscall_compat},
    {"rdpmc", cpu_rdpmc},
    {"in", port_in},
    {"out", port_out},
    {"wrpkru", cpu_wrpkru},
    {NULL, NULL},
};
// clang-format on
