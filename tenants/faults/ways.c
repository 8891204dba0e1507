// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Machine code of a request's own, which stops in a state that no compiler makes; and a server of connections that
// shows in which state of the processor it is woken. See rust/sandbox/src/ways.rs.

#define _GNU_SOURCE
#include "faults.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static char went[] = "went\n";

// Runs `code` with the registers that it wants: RDI, RSI and RDX of a response, R8 the doorbell. It does not come back.
static void go(const void *code, size_t size, uint64_t rdi, const void *rsi, uint64_t rdx) {
    char *page = mmap(NULL, 4 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *stack = mmap(NULL, 8 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || stack == MAP_FAILED || size >= 4 * FAULTS_PAGE) exit(7);
    memcpy(page, code, size);
    page[size] = (char)0xf4; // hlt
    mprotect(page, 4 * FAULTS_PAGE, PROT_READ | PROT_EXEC);
    // A request's secrets, for the next one to find.
    __asm__ volatile("mov %[stack], %%rsp\n\t"
                     "mov %[doorbell], %%r8\n\t"
                     "mov $0x5ec7e7, %%ebx\n\t"
                     "mov %%rbx, %%rbp\n\t"
                     "mov %%rbx, %%r12\n\t"
                     "mov %%rbx, %%r15\n\t"
                     "movq %%rbx, %%xmm5\n\t"
                     "jmp *%%rax"
                     :
                     : "a"(page), "D"(rdi), "S"(rsi),
                       "d"(rdx), [stack] "r"(stack + 8 * FAULTS_PAGE), [doorbell] "r"(host->doorbell)
                     : "memory");
    __builtin_unreachable();
}

static void way(struct act *act) {
    if (!act->request) return;
    act->response.body = (struct mayfly_bytes){went, sizeof went - 1};
    go(act->request->body.data, act->request->body.size, MAYFLY_OP_RESPOND, &act->response, MAYFLY_ABI);
}

static void vdso(struct act *act) { clock_gettime(CLOCK_MONOTONIC, at(act->number)); }

// -- A handler that answers with the registers of whatever faulted --

static char alternate[64 * 1024];

static void caught(int signal, siginfo_t *info, void *context) {
    static struct act act;
    const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)info;
    act.ring = (struct ring){MAYFLY_OP_RESPOND, &act.response, MAYFLY_ABI, host->doorbell, 0};
    act.response.status = 200;
    say("caught %d at %llx: rbp %llx r12 %llx r15 %llx\n", signal, (unsigned long long)regs[REG_RIP],
        (unsigned long long)regs[REG_RBP], (unsigned long long)regs[REG_R12], (unsigned long long)regs[REG_R15]);
    act.response.body = (struct mayfly_bytes){text, strlen(text)};
    faults_ring(&act.ring);
    _exit(6);
}

static void catch_all(struct act *act) {
    (void)act;
    const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP};
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i)
        sigaction(signals[i], &action, NULL);
}

// -- A server of connections: POST /way runs the body, everything else answers the processor's state --

// accept(2), to be called as the doorbell is.
static int64_t accept_one(uint64_t listener, const void *address, uint64_t size) {
    return CALL(SYS_accept, listener, address, size);
}

static void serve_one(uint64_t fd) {
    static char request[64 * 1024];
    static const char yes[] = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwent\n";
    size_t size = 0;
    const char *end = NULL;
    size_t body = 0;
    while (!end || size < (size_t)(end - request) + body) {
        ssize_t got = read((int)fd, request + size, sizeof request - 1 - size);
        if (got <= 0) exit(5);
        size += (size_t)got;
        request[size] = 0;
        end = strstr(request, "\r\n\r\n");
        if (!end) continue;
        end += 4;
        const char *length = strcasestr(request, "content-length:");
        body = length ? strtoul(length + 15, NULL, 10) : 0;
    }
    if (strncmp(request, "POST /way", 9) == 0) go(end, body, fd, yes, sizeof yes - 1);
    processor_state();
    char head[128];
    int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n", strlen(text));
    write((int)fd, head, (size_t)length);
    write((int)fd, text, strlen(text));
}

static void serve(struct act *act) {
    (void)act;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8000), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) exit(4);
    // As the doorbell is rung: what is there when it returns is taken down.
    struct ring wait = {(uint64_t)listener, NULL, 0, (uint64_t)(uintptr_t)accept_one, 0};
    for (;;) {
        int64_t fd = faults_ring(&wait);
        if (fd < 0) exit(3);
        serve_one((uint64_t)fd);
    }
}

const struct behaviour way_behaviours[] = {
    {"way", way}, {"vdso", vdso}, {"catch", catch_all}, {"serve", serve}, {NULL, NULL},
};
