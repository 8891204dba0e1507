// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A tenant that does what no tenant should. Its behaviours are chosen
//
//     at boot        by an argument:            boot:NAME or boot:NAME=NUMBER
//     in a request   by the path's last part:   /NAME or /NAME?NUMBER
//
// Numbers are decimal or 0x-hexadecimal. What survives answers 200 with text that says what it saw.
//
//   /                       the names of all behaviours
//   ok                      nothing
//
// Ends
//   exit                    exit_group(NUMBER)
//   exit-thread             exit(NUMBER), the call that ends one thread
//   abort                   abort(3)
//
// Processor exceptions
//   null null-write null-call        address 0
//   read write call                  address NUMBER
//   kernel-half non-canonical        reads there
//   write-text exec-data             against a page's protection
//   write-request write-page         writes the inbox, the host's page
//   stack-overflow                   recursion without end
//   ud2 div int3 trap-flag           #UD #DE #BP #DB
//   alignment                        an unaligned read with AC set
//   fp-exception                     an unmasked floating-point exception
//   int                              `int NUMBER`
//   code                             runs the request's body as machine code; answers RAX
//
// Privileged instructions
//   hlt cli sti mov-cr0 mov-cr3 mov-cr4 read-cr3 mov-dr7 rdmsr wrmsr lgdt lidt ltr invlpg swapgs sysret iret
//   xsetbv wbinvd clts vmcall vmmcall sysenter syscall-compat rdpmc
//   in out                           port NUMBER
//   wrpkru                           PKRU = NUMBER (a fault, or undone by the reset)
//
// Time without end
//   loop loop-syscall loop-mmap loop-doorbell loop-write
//   sleep futex pause poll           blocks
//   spin                             for NUMBER milliseconds by the TSC-free clock, then answers
//
// Memory without end
//   alloc-mmap alloc-malloc alloc-brk   touches every page that it gets
//   alloc-maps                          as many mappings as it gets; answers the count
//   alloc-terabyte                      asks for 1 TiB at once; answers the error
//   touch                               writes NUMBER MiB, then answers
//   touch-pages                         writes NUMBER pages, then answers
//
// Responses
//   response-{null,low,kernel,non-canonical,unmapped,straddle,unaligned}     where the structure lies
//   body-{null,low,kernel,non-canonical,unmapped,straddle}                   where NUMBER bytes of body lie (default 1)
//   headers-{null,low,kernel,non-canonical,unmapped,straddle}                where one header lies
//   name-{...} value-{...}                                                   where its name, its value lie
//   body-huge body-wrap                       2^63 bytes; a length that wraps around the address space
//   value-huge name-huge                      the same, in a header
//   body                                      NUMBER bytes, well formed
//   body-limit body-over                      response_max bytes; one more
//   status                                    status NUMBER
//   header-count                              NUMBER good headers up to 65; above, the count alone is so
//   header-max                                2^32-1 headers
//   header-{crlf-value,lf-value,nul-value,crlf-name,space-name,colon-name,empty-name,utf8-name}   malformed
//   header-{content-length,transfer-encoding,connection,keep-alive,upgrade,te,trailer,proxy}      the server's own
//   header-{upper-case,empty-value,cookies,big}                                                   good ones
//
// The doorbell
//   doorbell-unknown        operation NUMBER (default 3); answers the result
//   doorbell-abi            rings WAIT with ABI NUMBER; answers the result
//   respond-abi             responds with ABI NUMBER
//   wait-twice              rings WAIT again before it responds; answers the result
//   doorbell-middle         jumps NUMBER bytes behind the doorbell's entry
//
// System calls
//   syscall                 call NUMBER, its six arguments from the body (little-endian); answers the result
//   syscalls-wild           every call with pointers that are not; answers the results that are no error
//   maps-wild               mapping calls with sizes and addresses that are not; answers the results
//   forbidden               files, sockets, processes, signals to others; answers the results
//   print print-error       NUMBER KiB to stdout, stderr
//   print-lines             NUMBER short lines to stdout
//   print-binary            control characters, escapes and invalid UTF-8 to stdout
//
// State (see state.c)
//   states                  names of the inventory's entries
//   state                   each entry's value as this request finds it
//   dirty-ENTRY dirty-all   changes the entry, answers `state` as it is then
//   random                  entropy, AT_RANDOM and getrandom(2)
//   time                    wall clock and monotonic clock: the request's, the C library's, the system call's

#define _GNU_SOURCE
#include "faults.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define KERNEL_HALF UINT64_C(0xffff800000000000)
#define NON_CANONICAL UINT64_C(0x0000800000000000)
#define LOW UINT64_C(0x10)
#define UNMAPPED UINT64_C(0x00004badf00d0000)
#define MAX_HEADERS 65

// The behaviour under way: what it was asked, and how the doorbell will be rung.
struct act {
    const struct mayfly_request *request; // NULL at boot.
    uint64_t number;                      // 0 if none was given:
    int has_number;
    int rings; // At boot, too: the behaviour is one of ringing.
    struct ring ring;
    struct mayfly_response response;
    struct mayfly_header headers[MAX_HEADERS];
};

struct behaviour {
    const char *name;
    void (*run)(struct act *act);
};

static char text[65536];
static size_t text_size;
static const struct mayfly_page *host;

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text + text_size, sizeof text - text_size, format, arguments);
    va_end(arguments);
    if (size > 0) text_size += (size_t)size;
    if (text_size >= sizeof text) text_size = sizeof text - 1;
}

int64_t call6(int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    int64_t result;
    register uint64_t r10 __asm__("r10") = d;
    register uint64_t r8 __asm__("r8") = e;
    register uint64_t r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

int readable(uint64_t address) {
    char link[8];
    return CALL(SYS_readlink, address, link, sizeof link) != -EFAULT;
}

int writable(uint64_t address) { return CALL(SYS_clock_gettime, CLOCK_MONOTONIC, address, 0) == 0; }

static uint64_t number_or(const struct act *act, uint64_t otherwise) {
    return act->has_number ? act->number : otherwise;
}

// `bytes` writable bytes with an unmapped page right behind them.
static char *before_gap(size_t bytes) {
    size_t size = (bytes + PAGE - 1) & ~(PAGE - 1);
    char *start = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    munmap(start + size, PAGE);
    return start + size - bytes;
}

static void *at(uint64_t address) { return (void *)(uintptr_t)address; }

// -- Ends --

static void ok(struct act *act) { (void)act; }
static void end_exit(struct act *act) { CALL(SYS_exit_group, act->number, 0, 0); }
static void end_thread(struct act *act) { CALL(SYS_exit, act->number, 0, 0); }
static void end_abort(struct act *act) {
    (void)act;
    abort();
}

// -- Processor exceptions --

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
    call_at((uint64_t)(uintptr_t)text);
}
static void write_request(struct act *act) {
    write_at(act->request ? (uint64_t)(uintptr_t)act->request : (uint64_t)(uintptr_t)host);
}
static void write_page(struct act *act) { (void)act, write_at((uint64_t)(uintptr_t)host); }

static uint64_t recurse(uint64_t depth) {
    volatile char frame[1024];
    frame[0] = (char)depth;
    return depth == UINT64_MAX ? 0 : recurse(depth + 1) + (uint64_t)frame[0];
}
static void stack_overflow(struct act *act) { say("%llu\n", (unsigned long long)recurse(act->number)); }

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
    char *page = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || size >= 16 * PAGE) return 0;
    memcpy(page, code, size);
    page[size] = (char)0xc3; // ret
    mprotect(page, 16 * PAGE, PROT_READ | PROT_EXEC);
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

// -- Time without end --

INSTRUCTION(loop, "1: jmp 1b")
static void loop_syscall(struct act *act) {
    (void)act;
    for (;;)
        CALL(SYS_getpid, 0, 0, 0);
}
static void loop_mmap(struct act *act) {
    (void)act;
    for (;;) {
        volatile char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)page == MAP_FAILED) continue;
        *page = 1;
        munmap((void *)page, PAGE);
    }
}
static void loop_doorbell(struct act *act) {
    act->ring.operation = UINT64_MAX;
    for (;;)
        faults_ring(&act->ring);
}
static void loop_write(struct act *act) {
    (void)act;
    for (;;)
        CALL(SYS_write, 1, "loop\n", 5);
}
static void block_sleep(struct act *act) {
    const int64_t centuries[2] = {INT64_MAX, 999999999};
    say("%lld\n", (long long)CALL(SYS_nanosleep, centuries, 0, 0)), (void)act;
}
static void block_futex(struct act *act) {
    static uint32_t word;
    say("%lld\n", (long long)CALL(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0)), (void)act;
}
static void block_pause(struct act *act) { say("%lld\n", (long long)CALL(SYS_pause, 0, 0, 0)), (void)act; }
static void block_poll(struct act *act) { say("%lld\n", (long long)CALL(SYS_poll, 0, 0, -1)), (void)act; }

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}
static void spin(struct act *act) {
    uint64_t start = monotonic_ns(), end = start + act->number * UINT64_C(1000000);
    while (monotonic_ns() < end)
        for (volatile int i = 0; i < 10000; ++i) {
        }
    say("%llu\n", (unsigned long long)((monotonic_ns() - start) / 1000000));
}

// -- Memory without end --

static void alloc_mmap(struct act *act) {
    for (act->number = 0;; ++act->number) {
        volatile char *block = mmap(NULL, 256 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((void *)block == MAP_FAILED) break;
        for (size_t i = 0; i < 256; ++i)
            block[i * PAGE] = 1;
    }
    say("%llu MiB\n", (unsigned long long)act->number);
}
static void alloc_malloc(struct act *act) {
    for (act->number = 0;; ++act->number) {
        volatile char *block = malloc(1000);
        if (!block) break;
        for (size_t i = 0; i < 1000; ++i)
            block[i] = 1;
    }
    say("%llu kB\n", (unsigned long long)act->number);
}
static void alloc_brk(struct act *act) {
    uint64_t end = ((uint64_t)CALL(SYS_brk, 0, 0, 0) + PAGE - 1) & ~(PAGE - 1);
    for (act->number = 0; (uint64_t)CALL(SYS_brk, end + PAGE, 0, 0) == end + PAGE; ++act->number, end += PAGE)
        *(volatile char *)at(end) = 1;
    say("%llu pages\n", (unsigned long long)act->number);
}
static void alloc_maps(struct act *act) {
    // Neighbours differ in protection, so that they cannot merge.
    for (act->number = 0; act->number < 10000000; ++act->number) {
        void *page = mmap(NULL, PAGE, act->number % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) break;
    }
    say("%llu\n", (unsigned long long)act->number);
}
static void alloc_terabyte(struct act *act) {
    (void)act;
    void *block = mmap(NULL, (size_t)1 << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    say("%d\n", block == MAP_FAILED ? errno : 0);
}
static void touch_bytes(struct act *act, uint64_t size) {
    volatile char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((void *)block == MAP_FAILED) {
        say("error %d\n", errno);
        return;
    }
    for (uint64_t i = 0; i < size; i += PAGE)
        block[i] = 1;
    say("%llu\n", (unsigned long long)act->number);
}
static void touch(struct act *act) { touch_bytes(act, act->number << 20); }
static void touch_pages(struct act *act) { touch_bytes(act, act->number * PAGE); }

// -- Responses --

// The last part of a name: a place that is no good for `size` bytes that `good` holds (part of them at most).
static void *bad_place(const char *where, const void *good, size_t size) {
    if (strcmp(where, "null") == 0) return NULL;
    if (strcmp(where, "low") == 0) return at(LOW);
    if (strcmp(where, "kernel") == 0) return at(KERNEL_HALF);
    if (strcmp(where, "non-canonical") == 0) return at(NON_CANONICAL);
    if (strcmp(where, "unmapped") == 0) return at(UNMAPPED);
    char *place = before_gap(size / 2); // "straddle"
    if (place) memcpy(place, good, size / 2);
    return place;
}

static void add_header(struct act *act, const char *name, size_t name_size, const char *value, size_t value_size) {
    struct mayfly_header *header = &act->headers[act->response.header_count++];
    header->name.data = name;
    header->name.size = name_size;
    header->value.data = value;
    header->value.size = value_size;
}

static void response_at(struct act *act, const char *where) {
    static char storage[sizeof(struct mayfly_response) + 1];
    act->rings = 1;
    if (strcmp(where, "unaligned") == 0) {
        act->ring.argument = memcpy(storage + 1, &act->response, sizeof act->response); // Good on x86.
        return;
    }
    act->ring.argument = bad_place(where, &act->response, sizeof act->response);
}
static void body_at(struct act *act, const char *where) {
    static const char good[64];
    uint64_t size = number_or(act, strcmp(where, "straddle") == 0 ? sizeof good : 1);
    act->rings = 1;
    act->response.body.data = bad_place(where, good, sizeof good);
    act->response.body.size = size;
}
static void headers_at(struct act *act, const char *where) {
    act->rings = 1;
    act->response.header_count = 1;
    act->response.headers = bad_place(where, act->headers, sizeof *act->headers);
}
static void name_at(struct act *act, const char *where) {
    act->rings = 1;
    add_header(act, bad_place(where, "x-faults", 8), 8, "value", 5);
}
static void value_at(struct act *act, const char *where) {
    act->rings = 1;
    add_header(act, "x-faults", 8, bad_place(where, "a value.", 8), 8);
}

static void body_huge(struct act *act) {
    act->rings = 1;
    act->response.body.data = text;
    act->response.body.size = (size_t)1 << 63;
}
static void body_wrap(struct act *act) {
    act->rings = 1;
    act->response.body.data = text;
    act->response.body.size = (size_t)0 - (size_t)(uintptr_t)text + 1;
}
static void value_huge(struct act *act) { act->rings = 1, add_header(act, "x-faults", 8, text, (size_t)1 << 63); }
static void name_huge(struct act *act) { act->rings = 1, add_header(act, text, (size_t)1 << 63, "value", 5); }

static void body_of(struct act *act, uint64_t size) {
    char *body = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    act->rings = 1;
    if (body == MAP_FAILED) return;
    memset(body, 'x', size);
    act->response.body.data = body;
    act->response.body.size = size;
}
static void body_any(struct act *act) { body_of(act, act->number); }
static void body_limit(struct act *act) { body_of(act, host->response_max); }
static void body_over(struct act *act) { body_of(act, host->response_max + 1); }

static void status_any(struct act *act) {
    act->rings = 1;
    act->response.status = (uint32_t)act->number;
}
static void header_count(struct act *act) {
    static char names[MAX_HEADERS][8];
    act->rings = 1;
    for (uint32_t i = 0; i < MAX_HEADERS && i < act->number; ++i) {
        snprintf(names[i], sizeof names[i], "x-%u", i);
        add_header(act, names[i], strlen(names[i]), "value", 5);
    }
    act->response.header_count = (uint32_t)act->number;
}
static void header_max(struct act *act) {
    act->rings = 1;
    act->response.header_count = UINT32_MAX;
}

// Header fields by the name's last part.
#define TEXT(literal)                                                                                                  \
    { literal, sizeof literal - 1 }
static const struct {
    const char *kind;
    struct mayfly_header header;
} header_kinds[] = {
    {"crlf-value", {TEXT("x-faults"), TEXT("a\r\nset-cookie: owned=1")}},
    {"lf-value", {TEXT("x-faults"), TEXT("a\nset-cookie: owned=1")}},
    {"nul-value", {TEXT("x-faults"), TEXT("a\0b")}},
    {"crlf-name", {TEXT("x-faults: a\r\nset-cookie"), TEXT("owned=1")}},
    {"space-name", {TEXT("x faults"), TEXT("value")}},
    {"colon-name", {TEXT("x-faults:"), TEXT("value")}},
    {"empty-name", {TEXT(""), TEXT("value")}},
    {"utf8-name", {TEXT("x-f\xc3\xa4ults"), TEXT("value")}},
    {"content-length", {TEXT("Content-Length"), TEXT("1")}},
    {"transfer-encoding", {TEXT("Transfer-Encoding"), TEXT("chunked")}},
    {"connection", {TEXT("connection"), TEXT("close")}},
    {"keep-alive", {TEXT("keep-alive"), TEXT("timeout=1")}},
    {"upgrade", {TEXT("upgrade"), TEXT("websocket")}},
    {"te", {TEXT("te"), TEXT("trailers")}},
    {"trailer", {TEXT("trailer"), TEXT("x-faults")}},
    {"proxy", {TEXT("Proxy-Authenticate"), TEXT("Basic")}},
    {"upper-case", {TEXT("X-Faults"), TEXT("Value")}},
    {"empty-value", {TEXT("x-faults"), TEXT("")}},
};

static void header_kind(struct act *act, const char *kind) {
    static char big[4000];
    act->rings = 1;
    if (strcmp(kind, "cookies") == 0) { // Two fields of one name.
        add_header(act, "set-cookie", 10, "a=1", 3);
        add_header(act, "set-cookie", 10, "b=2", 3);
    } else if (strcmp(kind, "big") == 0) {
        memset(big, 'v', sizeof big);
        add_header(act, "x-faults", 8, big, sizeof big);
    }
    for (size_t i = 0; i < sizeof header_kinds / sizeof *header_kinds; ++i)
        if (strcmp(kind, header_kinds[i].kind) == 0)
            act->headers[act->response.header_count++] = header_kinds[i].header;
    if (act->response.header_count == 0) act->response.status = 404; // No such kind.
}

// -- The doorbell --

// Rings now, with the present operation, and says the result.
static void ring_and_say(struct act *act, uint64_t operation, uint64_t abi) {
    struct ring ring = act->ring;
    ring.operation = operation;
    ring.abi = abi;
    ring.argument = NULL;
    say("%lld\n", (long long)faults_ring(&ring));
}
static void doorbell_unknown(struct act *act) { ring_and_say(act, number_or(act, 3), MAYFLY_ABI); }
static void doorbell_abi(struct act *act) { ring_and_say(act, MAYFLY_OP_WAIT, act->number); }
static void respond_abi(struct act *act) {
    act->rings = 1;
    act->ring.abi = act->number;
}
static void wait_twice(struct act *act) { ring_and_say(act, MAYFLY_OP_WAIT, MAYFLY_ABI); }
static void doorbell_middle(struct act *act) { call_at(host->doorbell + act->number); }

// -- System calls --

static void syscall_any(struct act *act) {
    uint64_t a[6] = {0};
    if (act->request) {
        size_t size = act->request->body.size < sizeof a ? act->request->body.size : sizeof a;
        memcpy(a, act->request->body.data, size);
    }
    say("%lld\n", (long long)call6((int64_t)act->number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

static int ends_or_blocks(int64_t number) {
    static const int16_t numbers[] = {SYS_rt_sigreturn, SYS_pause, SYS_exit, SYS_exit_group, SYS_rt_sigsuspend,
                                      // See maps-wild.
                                      SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_brk};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i)
        if (numbers[i] == number) return 1;
    return 0;
}
static void syscalls_wild(struct act *act) {
    char *edge = before_gap(4);
    const uint64_t places[] = {0, LOW, KERNEL_HALF, NON_CANONICAL, UINT64_MAX - 7, UNMAPPED, (uint64_t)(uintptr_t)edge};
    (void)act;
    for (int64_t number = 0; number < 512; ++number) {
        if (ends_or_blocks(number)) continue;
        for (size_t i = 0; i < sizeof places / sizeof *places; ++i) {
            uint64_t p = places[i];
            int64_t result = call6(number, p, p, p, p, p, p);
            if (result >= 0) say("%lld %zu: %lld\n", (long long)number, i, (long long)result);
            // A small number where an fd, a clock or an option is likely.
            result = call6(number, 1, p, 16, p, p, p);
            if (result >= 0) say("%lld 1 %zu: %lld\n", (long long)number, i, (long long)result);
        }
    }
}

static void maps_wild(struct act *act) {
    const uint64_t sizes[] = {
        0, 1, PAGE - 1, UINT64_C(1) << 46, UINT64_C(1) << 47, UINT64_C(1) << 63, UINT64_MAX - PAGE + 1, UINT64_MAX};
    const uint64_t addresses[] = {1, LOW, NON_CANONICAL - PAGE, NON_CANONICAL, KERNEL_HALF, UINT64_MAX - PAGE + 1};
    const uint64_t private_fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    (void)act;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
        say("mmap %zu: %lld\n", s,
            (long long)(call6(SYS_mmap, 0, sizes[s], 3, MAP_PRIVATE | MAP_ANONYMOUS, UINT64_MAX, 0) > 0));
        for (size_t a = 0; a < sizeof addresses / sizeof *addresses; ++a) {
            uint64_t address = addresses[a], size = sizes[s];
            say("%zu %zu:", s, a);
            say(" %lld", (long long)call6(SYS_mmap, address, size, 3, private_fixed, UINT64_MAX, 0));
            say(" %lld", (long long)CALL(SYS_munmap, address | 1, size, 0));
            say(" %lld", (long long)CALL(SYS_mprotect, address, size, UINT64_C(0xff)));
            say(" %lld", (long long)CALL(SYS_madvise, address, size, MADV_DONTNEED));
            say(" %lld\n", (long long)call6(SYS_mremap, address, size, size, MREMAP_MAYMOVE, 0, 0));
        }
    }
    const uint64_t wild_breaks[] = {1, NON_CANONICAL, UINT64_MAX};
    uint64_t now = (uint64_t)CALL(SYS_brk, 0, 0, 0);
    for (size_t i = 0; i < 3; ++i)
        say("brk %zu: %d\n", i, (uint64_t)CALL(SYS_brk, wild_breaks[i], 0, 0) == now);
}

static void forbidden(struct act *act) {
    (void)act;
    say("open %lld\n", (long long)CALL(SYS_open, "/etc/passwd", 0, 0));
    say("openat %lld\n", (long long)call6(SYS_openat, (uint64_t)-100, (uint64_t)(uintptr_t) "/etc/passwd", 0, 0, 0, 0));
    say("readlink %lld\n", (long long)CALL(SYS_readlink, "/proc/1/exe", text + sizeof text - 64, 64));
    say("socket %lld\n", (long long)CALL(SYS_socket, 2, 1, 0));
    say("fork %lld\n", (long long)CALL(SYS_fork, 0, 0, 0));
    say("execve %lld\n", (long long)CALL(SYS_execve, "/bin/true", 0, 0));
    say("ptrace %lld\n", (long long)call6(SYS_ptrace, 16, 1, 0, 0, 0, 0));
    say("kill %lld\n", (long long)CALL(SYS_kill, 1, 0, 0));
}

static void print_to(int fd, uint64_t kib) {
    char block[1024];
    memset(block, 'p', sizeof block);
    block[sizeof block - 1] = '\n';
    for (uint64_t i = 0; i < kib; ++i)
        CALL(SYS_write, fd, block, sizeof block);
}
static void print_out(struct act *act) { print_to(1, act->number); }
static void print_error(struct act *act) { print_to(2, act->number); }
static void print_lines(struct act *act) {
    char line[32];
    for (uint64_t i = 0; i < act->number; ++i)
        CALL(SYS_write, 1, line, snprintf(line, sizeof line, "line %llu\n", (unsigned long long)i));
}
static void print_binary(struct act *act) {
    static const char bytes[] = "a\0b\r\n\x1b[31mred\x1b[0m \x07\xff\xfe\xc3(\n\"quoted\" \\ {json}\n";
    (void)act;
    CALL(SYS_write, 1, bytes, sizeof bytes - 1);
}

// -- State --

static void states_names(struct act *act) { (void)act, state_names(); }
static void state_now(struct act *act) {
    if (act->request) state_say(act->request);
}
static void hex(const char *label, const unsigned char *bytes, size_t size) {
    say("%s ", label);
    for (size_t i = 0; i < size; ++i)
        say("%02x", bytes[i]);
    say("\n");
}
static void random_now(struct act *act) {
    unsigned char bytes[16] = {0};
    if (act->request) hex("entropy", act->request->entropy, sizeof act->request->entropy);
    if (getauxval(AT_RANDOM)) hex("at-random", at(getauxval(AT_RANDOM)), 16);
    if (CALL(SYS_getrandom, bytes, sizeof bytes, 0) == sizeof bytes) hex("getrandom", bytes, sizeof bytes);
}
static void clock_line(const char *label, int64_t result, const struct timespec *time) {
    say("%s %lld %lld.%09ld\n", label, (long long)result, (long long)time->tv_sec, time->tv_nsec);
}
static void time_now(struct act *act) {
    struct timespec now = {0, 0};
    if (act->request)
        say("request %llu %llu\n", (unsigned long long)act->request->unix_ns,
            (unsigned long long)act->request->monotonic_ns);
    int result = clock_gettime(CLOCK_REALTIME, &now);
    clock_line("library-realtime", result, &now);
    result = clock_gettime(CLOCK_MONOTONIC, &now);
    clock_line("library-monotonic", result, &now);
    int64_t raw = CALL(SYS_clock_gettime, CLOCK_REALTIME, &now, 0);
    clock_line("call-realtime", raw, &now);
    raw = CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0);
    clock_line("call-monotonic", raw, &now);
}

// -- Choosing --

// clang-format off: a table for the eye.
static const struct behaviour behaviours[] = {
    {"ok", ok},
    {"exit", end_exit},
    {"exit-thread", end_thread},
    {"abort", end_abort},
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
    {"loop", loop},
    {"loop-syscall", loop_syscall},
    {"loop-mmap", loop_mmap},
    {"loop-doorbell", loop_doorbell},
    {"loop-write", loop_write},
    {"sleep", block_sleep},
    {"futex", block_futex},
    {"pause", block_pause},
    {"poll", block_poll},
    {"spin", spin},
    {"alloc-mmap", alloc_mmap},
    {"alloc-malloc", alloc_malloc},
    {"alloc-brk", alloc_brk},
    {"alloc-maps", alloc_maps},
    {"alloc-terabyte", alloc_terabyte},
    {"touch", touch},
    {"touch-pages", touch_pages},
    {"body-huge", body_huge},
    {"body-wrap", body_wrap},
    {"value-huge", value_huge},
    {"name-huge", name_huge},
    {"body", body_any},
    {"body-limit", body_limit},
    {"body-over", body_over},
    {"status", status_any},
    {"header-count", header_count},
    {"header-max", header_max},
    {"doorbell-unknown", doorbell_unknown},
    {"doorbell-abi", doorbell_abi},
    {"respond-abi", respond_abi},
    {"wait-twice", wait_twice},
    {"doorbell-middle", doorbell_middle},
    {"syscall", syscall_any},
    {"syscalls-wild", syscalls_wild},
    {"maps-wild", maps_wild},
    {"forbidden", forbidden},
    {"print", print_out},
    {"print-error", print_error},
    {"print-lines", print_lines},
    {"print-binary", print_binary},
    {"states", states_names},
    {"state", state_now},
    {"random", random_now},
    {"time", time_now},
};
// clang-format on

// Families: the name's rest says which.
static const struct {
    const char *prefix;
    void (*run)(struct act *act, const char *rest);
} families[] = {
    {"response-", response_at}, {"body-", body_at},   {"headers-", headers_at},
    {"name-", name_at},         {"value-", value_at}, {"header-", header_kind},
};

// Runs the behaviour of that name. Returns 0 if there is none.
static int run(struct act *act, const char *name) {
    text_size = 0;
    for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; ++i)
        if (strcmp(name, behaviours[i].name) == 0) return behaviours[i].run(act), 1;
    if (strncmp(name, "dirty-", 6) == 0) {
        if (!state_dirty(name + 6, &act->ring.spoil)) return 0;
        if (act->request) state_say(act->request);
        return 1;
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; ++i) {
        size_t size = strlen(families[i].prefix);
        if (strncmp(name, families[i].prefix, size) == 0) return families[i].run(act, name + size), 1;
    }
    return 0;
}

static void begin(struct act *act, const struct mayfly_request *request, const char *number) {
    memset(act, 0, sizeof *act);
    act->request = request;
    act->has_number = *number != 0;
    act->number = strtoull(number, NULL, 0);
    act->ring = (struct ring){MAYFLY_OP_RESPOND, &act->response, MAYFLY_ABI, host->doorbell, 0};
    act->response.status = 200;
    act->response.headers = act->headers;
}

static void boot(char *argument) {
    static struct act act;
    if (strncmp(argument, "boot:", 5) != 0) return;
    char *number = strchr(argument, '=');
    if (number) *number++ = 0;
    begin(&act, NULL, number ? number : "");
    if (!run(&act, argument + 5)) {
        fprintf(stderr, "faults: no behaviour is called %s\n", argument + 5);
        exit(2);
    }
    if (act.rings) say("doorbell %lld\n", (long long)faults_ring(&act.ring));
    text[text_size] = 0;
    fputs(text, stderr);
}

static void answer(struct act *act, const struct mayfly_request *request) {
    const char *name = strrchr(request->path.data, '/');
    begin(act, request, request->query.data);
    name = name ? name + 1 : request->path.data;
    if (!*name) {
        text_size = 0;
        for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; ++i)
            say("%s\n", behaviours[i].name);
    } else if (!run(act, name)) {
        act->response.status = 404;
        say("no behaviour is called %s\n", name);
    }
    if (act->response.body.data || act->response.body.size) return; // The behaviour has its own.
    if (text_size == 0 && !act->rings) say("ok\n");
    act->response.body.data = text;
    act->response.body.size = text_size;
}

int main(int argc, char **argv) {
    static struct act act;
    host = mayfly_host();
    if (!host) mayfly_wait(); // Says so and exits.
    state_prepare();
    for (int i = 1; i < argc; ++i)
        boot(argv[i]);

    // Not the SDK's mayfly_wait(): ring.S takes down the processor's state where the doorbell returns.
    const struct ring wait = {MAYFLY_OP_WAIT, NULL, MAYFLY_ABI, host->doorbell, 0};
    int64_t next = faults_ring(&wait);
    while (next >= 0) {
        answer(&act, (const struct mayfly_request *)(uintptr_t)next);
        next = faults_ring(&act.ring);
    }
    fprintf(stderr, "faults: the doorbell answered %lld\n", (long long)next);
    return 1;
}
