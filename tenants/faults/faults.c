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
//   work work-exits                  computes in NUMBER steps, without exits and with three a step; answers the result
//
// Memory without end
//   alloc-mmap alloc-malloc alloc-brk   touches every page that it gets
//   alloc-maps                          as many mappings as it gets; answers the count
//   alloc-descriptors                   as many descriptors as it gets; answers the count and the error
//   alloc-thread                        asks for a thread in both ways, and for a process; answers the errors
//   alloc-terabyte                      asks for 1 TiB at once; answers the error
//   touch                               writes NUMBER MiB, then answers
//   touch-pages                         writes NUMBER pages, then answers
//   touch-hold                          writes NUMBER MiB, sleeps for 300 ms, then answers
//   region                              writes all of a region of NUMBER MiB, which the first call makes
//   write-file                          writes NUMBER MiB into a file
//   touch-apart                         writes NUMBER pages, 2 MiB from each other, of a mapping that it makes once
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
//   doorbell-unknown        operation NUMBER (default 99); answers the result
//   doorbell-abi            rings WAIT with ABI NUMBER; answers the result
//   respond-abi             responds with ABI NUMBER
//   wait-twice              rings WAIT again before it responds; answers the result
//   doorbell-middle         jumps NUMBER bytes behind the doorbell's entry
//
// Calls of a storage program
//   peer                    function `f` with the body as its argument and room for NUMBER bytes (default 4096);
//                           answers size and result, or the error
//   peer-{struct,name,argument,result}-{null,low,kernel,non-canonical,unmapped,straddle}
//                           the same, with that part there
//   peer-{name,argument,capacity}-size   that size is NUMBER; peer-name-spaces
//   peer-result-read-only peer-result-new   the result goes to a page that is read-only, that was never touched
//   peer-endless            calls without end
//   hooks                   says that it has hooks, when it is too late
//   sdk-program sdk-storage  (at boot) another program: see calls.c
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
// Shared memory (see shared.c)
//   shared                  its address and size
//   shared-add              adds one to its first word NUMBER times (default 1), atomically; answers the sum
//   shared-answer           a response with all its parts there
//   shared-body             a body of NUMBER bytes there
//   shared-body-past        one that ends behind its end
//   shared-race             a response from there, which
//   shared-spoil            changes back and forth NUMBER times, for another worker's shared-race
//   shared-print shared-time   a system call with a buffer there, one that leaves it; answers the results
//   shared-remap            calls to unmap, protect, replace, move and drop it; answers the results and shared-add's
//   shared-exec             jumps there
//   shared-past             reads behind its end
//
// State (see state.c)
//   processor               the part of `state` that is the processor's
//   states                  names of the inventory's entries
//   state                   each entry's value as this request finds it
//   dirty-ENTRY dirty-all   changes the entry, answers `state` as it is then
//   random                  entropy, AT_RANDOM and getrandom(2)
//   time                    wall clock and monotonic clock: the request's, the C library's, the system call's
//
// Clocks (see clocks.c)
//   clocks                  all clocks, by the C library
//   clocks-run              reads them for NUMBER ms; answers how often, how often one went back, how far one is off
//   then clocks-agree            reads them between system calls NUMBER times; answers how far each was off at most
//
// Ways to stop (see ways.c)
//   way                     runs the body's code, with the registers of a good response and the doorbell's address in
//   R8 vdso                    has the vDSO write the time to address NUMBER catch                   (at boot) a
//   handler for faults that answers the registers it finds in its frame serve                   (at boot) serves
//   connections: /way as above, everything else the processor's state

#define _GNU_SOURCE
#include "faults.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

char text[65536];
static size_t text_size;
const struct mayfly_page *host;

static const struct behaviour *const tables[] = {system_behaviours,   processor_behaviours, endless_behaviours,
                                                 response_behaviours, state_behaviours,     call_behaviours,
                                                 shared_behaviours,   clock_behaviours,     way_behaviours};
#define TABLE_COUNT (sizeof tables / sizeof *tables)

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

char *before_gap(size_t bytes) {
    size_t size = (bytes + FAULTS_PAGE - 1) & ~(FAULTS_PAGE - 1);
    char *start = mmap(NULL, size + FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    munmap(start + size, FAULTS_PAGE);
    return start + size - bytes;
}

static void list(void) {
    for (size_t table = 0; table < TABLE_COUNT; ++table)
        for (const struct behaviour *behaviour = tables[table]; behaviour->name; ++behaviour)
            say("%s\n", behaviour->name);
}

// The behaviour of that name, or the family that it belongs to. `rest` is what the family gets.
static const struct behaviour *find(const char *name, const char **rest) {
    const struct behaviour *family = NULL;
    for (size_t table = 0; table < TABLE_COUNT; ++table) {
        for (const struct behaviour *behaviour = tables[table]; behaviour->name; ++behaviour) {
            size_t size = strlen(behaviour->name);
            if (strcmp(name, behaviour->name) == 0) return behaviour;
            if (behaviour->name[size - 1] != '-' || strncmp(name, behaviour->name, size) != 0) continue;
            family = behaviour;
            *rest = name + size;
        }
    }
    return family;
}

// Returns 0 if no behaviour has that name.
static int run(struct act *act, const char *name) {
    const struct behaviour *behaviour = find(name, &act->rest);
    if (behaviour) behaviour->run(act);
    return behaviour != NULL;
}

static void begin(struct act *act, const struct mayfly_request *request, const char *number) {
    memset(act, 0, sizeof *act);
    text_size = 0;
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
        list();
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
