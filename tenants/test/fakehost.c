// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A host inside the tenant's process, for tests without KVM: the AT_MAYFLY page and a doorbell that reads
// requests from descriptor 0 and writes responses to descriptor 3. It never resets, as for a tenant with
// `"ephemeral": false`, and counts the doorbells. There is shared memory. At the end of the input it ends the process.
//
// With FAKEHOST_FORK in the environment it does reset: each request is served by a fork of the process as it was at its
// first WAIT, one after the other. The C library does not learn of the fork, so that nothing is seeded again: a
// program does not notice the fork of its machine either (see unforked.c), except by the bytes at AT_RANDOM, which are
// new.
//
// All numbers are little-endian, a string is its 32-bit size and its bytes.
//
//     request   id u64, unix_ns u64, monotonic_ns u64, entropy 32 bytes,
//               method, path, query, body, header count u32, names and values
//     response  doorbells so far u32, status u32, body, header count u32, names and values
//     call      of the storage program: as a response with status 0, the argument for a body and one header,
//               whose name is the function's
//     answer    to a call, read behind the request that makes it: error number or 0 u32, result

#define _DEFAULT_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#undef MAYFLY_GETAUXVAL
#define MAYFLY_GETAUXVAL getauxval
#include "mayfly.h"

#define MAX_HEADERS 256
#define RESPONSE_FD 3

unsigned long fakehost_getauxval(unsigned long type);
int64_t fakehost_doorbell(uint64_t operation, const void *argument, uint64_t abi);
void fakehost_entry(void);

static struct mayfly_request inbox;
static struct mayfly_header inbox_headers[MAX_HEADERS];
static char inbox_text[4 << 20];
static size_t inbox_used;
static uint32_t doorbells;
static int answering;

static void fail(const char *why) {
    fprintf(stderr, "fakehost: %s\n", why);
    _exit(3);
}

// Returns 0 at the end of the input, if that is where a frame may end.
static int take(void *to, size_t size, int may_end) {
    for (size_t done = 0; done < size;) {
        ssize_t n = read(0, (char *)to + done, size - done);
        if (n == 0 && done == 0 && may_end) return 0;
        if (n <= 0) fail("the input ends in a frame");
        done += (size_t)n;
    }
    return 1;
}

static uint32_t take_u32(void) {
    uint32_t value;
    take(&value, sizeof value, 0);
    return value;
}

static struct mayfly_bytes take_bytes(void) {
    struct mayfly_bytes bytes;
    bytes.size = take_u32();
    if (inbox_used + bytes.size + 64 > sizeof inbox_text) fail("the request is too large");
    bytes.data = inbox_text + inbox_used;
    take(inbox_text + inbox_used, bytes.size, 0);
    inbox_used += bytes.size;
    memset(inbox_text + inbox_used, 0, 64);
    inbox_used += 64;
    return bytes;
}

static void put(const void *from, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(RESPONSE_FD, (const char *)from + done, size - done);
        if (n <= 0) fail("the responses cannot be written");
        done += (size_t)n;
    }
}

static void put_u32(uint32_t value) { put(&value, sizeof value); }

static void put_bytes(struct mayfly_bytes bytes) {
    put_u32((uint32_t)bytes.size);
    put(bytes.data, bytes.size);
}

static int64_t read_request(void) {
    memset(&inbox, 0, sizeof inbox);
    inbox_used = 0;
    if (!take(&inbox.id, sizeof inbox.id, 1)) exit(0);
    take(&inbox.unix_ns, sizeof inbox.unix_ns, 0);
    take(&inbox.monotonic_ns, sizeof inbox.monotonic_ns, 0);
    take(inbox.entropy, sizeof inbox.entropy, 0);
    inbox.abi = MAYFLY_ABI;
    inbox.method = take_bytes();
    inbox.path = take_bytes();
    inbox.query = take_bytes();
    inbox.body = take_bytes();
    inbox.header_count = take_u32();
    inbox.headers = inbox_headers;
    if (inbox.header_count > MAX_HEADERS) fail("too many headers");
    for (uint32_t i = 0; i < inbox.header_count; ++i) {
        inbox_headers[i].name = take_bytes();
        inbox_headers[i].value = take_bytes();
    }
    answering = 1;
    return (int64_t)(uintptr_t)&inbox;
}

// Is the parent of all that serve a request, and returns in each of those.
static int64_t next_request(void) {
    static int forking = -1;
    if (forking < 0) forking = getenv("FAKEHOST_FORK") != NULL;
    if (forking && answering) _exit(0); // The response ends a request that is reset.
    for (;;) {
        int64_t request = read_request();
        if (!forking) return request;
        pid_t child = (pid_t)syscall(SYS_fork);
        if (child == 0) {
            memcpy((void *)(uintptr_t)getauxval(AT_RANDOM), inbox.entropy, 16);
            return request;
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fail("a request did not end well");
    }
}

// A call of the storage program: the writer of the requests answers it.
static int64_t call(const struct mayfly_peer_call *call) {
    const struct mayfly_bytes none = {NULL, 0};
    if (!answering) return -EPROTO;
    put_u32(doorbells);
    put_u32(0);
    put_bytes(call->argument);
    put_u32(1);
    put_bytes(call->name);
    put_bytes(none);
    int64_t error = take_u32();
    size_t used = inbox_used;
    struct mayfly_bytes result = take_bytes();
    inbox_used = used; // The request stays, the result does not.
    if (error) return -error;
    if (result.size > call->capacity) return -EMSGSIZE;
    memcpy(call->result, result.data, result.size);
    return (int64_t)result.size;
}

int64_t fakehost_doorbell(uint64_t operation, const void *argument, uint64_t abi) {
    ++doorbells;
    if (abi != MAYFLY_ABI) return -EPROTONOSUPPORT;
    if (operation == MAYFLY_OP_WAIT && !answering) return next_request();
    if (operation == MAYFLY_OP_WAIT) return -EPROTO;
    if (operation == MAYFLY_OP_HOOKS) return 0;
    if (operation == MAYFLY_OP_CALL) return call((const struct mayfly_peer_call *)argument);
    if (operation != MAYFLY_OP_RESPOND) return -ENOSYS;
    if (!answering) return -EPROTO;
    const struct mayfly_response *response = (const struct mayfly_response *)argument;
    put_u32(doorbells);
    put_u32(response->status);
    put_bytes(response->body);
    put_u32(response->header_count);
    for (uint32_t i = 0; i < response->header_count; ++i) {
        put_bytes(response->headers[i].name);
        put_bytes(response->headers[i].value);
    }
    return next_request();
}

// The entry: gives C a sane processor and puts the caller's back, spoiled as it may be.
__asm__(".text\n"
        ".globl fakehost_entry\n"
        "fakehost_entry:\n"
        "    pushfq\n"
        "    push %rbp\n"
        "    mov %rsp, %rbp\n"
        "    pushq $2\n"
        "    popfq\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    mov %rdi, %r12\n"
        "    mov %rsi, %r13\n"
        "    mov %rdx, %r14\n"
        "    sub $16384, %rsp\n"
        "    and $-64, %rsp\n"
        "    mov %rsp, %rdi\n"
        "    mov $2048, %ecx\n"
        "    xor %eax, %eax\n"
        "    rep stosq\n"
        "    mov $0xe7, %eax\n"
        "    xor %edx, %edx\n"
        "    xsave64 (%rsp)\n"
        "    mov %rsp, %rbx\n"
        "    fninit\n"
        "    pushq $0x1f80\n"
        "    ldmxcsr (%rsp)\n"
        "    pushq $0\n"
        "    mov $158, %eax\n" // arch_prctl(ARCH_GET_FS), then the process's own
        "    mov $0x1003, %edi\n"
        "    mov %rsp, %rsi\n"
        "    syscall\n"
        "    mov $158, %eax\n"
        "    mov $0x1002, %edi\n"
        "    mov fakehost_fs_base(%rip), %rsi\n"
        "    syscall\n"
        "    mov %r12, %rdi\n"
        "    mov %r13, %rsi\n"
        "    mov %r14, %rdx\n"
        "    call fakehost_doorbell\n"
        "    mov %rax, %r12\n"
        "    mov $158, %eax\n"
        "    mov $0x1002, %edi\n"
        "    mov (%rsp), %rsi\n"
        "    syscall\n"
        "    mov $0xe7, %eax\n"
        "    xor %edx, %edx\n"
        "    xrstor64 (%rbx)\n"
        "    mov %r12, %rax\n"
        "    lea -32(%rbp), %rsp\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    popfq\n"
        "    ret\n"
        ".local fakehost_fs_base\n"
        ".comm fakehost_fs_base, 8, 8\n");

unsigned long fakehost_getauxval(unsigned long type) {
    static struct mayfly_page page;
    static _Alignas(4096) char shared[64 << 10];
    if (type != AT_MAYFLY) return getauxval(type);
    page.magic = MAYFLY_MAGIC;
    page.abi_min = page.abi_max = MAYFLY_ABI;
    page.doorbell = (uint64_t)(uintptr_t)&fakehost_entry;
    page.request_max = sizeof inbox_text;
    page.response_max = 1 << 20;
    page.response_headers_max = 64;
    page.flags = MAYFLY_PAGE_SHARED;
    page.shared = (uint64_t)(uintptr_t)shared;
    page.shared_size = sizeof shared;
    __asm__ volatile("mov %%fs:0, %%rax\n mov %%rax, fakehost_fs_base(%%rip)" ::: "rax", "memory");
    return (unsigned long)(uintptr_t)&page;
}
