// SPDX-License-Identifier: MIT OR Apache-2.0
//
// mayfly.h - the guest SDK: how a program that runs inside Mayfly gets its requests and answers them.
//
//     #include "mayfly.h"
//
//     int main(void) {
//         // Initialise here: files, tables, caches. This part runs once.
//         for (;;) {
//             const struct mayfly_request *request = mayfly_wait();
//             // From here on, every request starts from the state of the first mayfly_wait().
//             mayfly_respond(200, "text/plain", request->path.data, request->path.size);
//         }
//     }
//
// The first mayfly_wait() ends the boot: Mayfly freezes the program inside that call. Each request then resumes in a
// copy of the frozen program, which is rolled back after the answer: memory, registers, everything. (A tenant
// configured with
// `"ephemeral": false` keeps its state instead; the same program serves both, because mayfly_respond() then returns.)
//
// LIFETIMES
//   - The request and all it points to belong to the host and can only be read. They are valid from
//     mayfly_wait() until mayfly_respond() is called.
//   - The response and all it points to belong to the program. The host copies it during mayfly_respond(), so it may
//   lie on
//     the stack.
//
// STATE THAT STAYS
//   Memory that is not rolled back: mayfly_shared(). A second program that keeps state, the storage program:
//   mayfly_call() calls its functions, and it runs mayfly_serve(). State that a program hands over to its next version:
//   mayfly_on_handover().
//
// LIMITS (the host's, so that the program need not be rebuilt when they change; see mayfly_host())
//   - request_max:          bytes of a request with its headers. Larger ones never reach the program (413).
//   - response_max:         bytes of a response: its body and its headers' names and values.
//   - response_headers_max: number of a response's headers.
//
// ERRORS
//   - A response that breaks a rule or a limit is not sent: the client gets 502, and the tenant's log gets the reason.
//   The
//     same holds for a program that exits or faults; 504 and 507 stand for the limits on CPU time and memory. The
//     program cannot catch any of this.
//   - Outside Mayfly, mayfly_wait() prints one line to stderr and exits with status 0.
//   - If the host does not support the program's ABI, mayfly_wait() prints one line to stderr and exits with status 1.
//
// PRINTING
//   stdout and stderr go to the tenant's log. The first mayfly_wait() flushes the output of the boot. During a request,
//   flush stdout or print to stderr: an unflushed buffer is rolled back with the rest.
//
// COST
//   One request is one doorbell: mayfly_respond() rings it, and its result is the next request. Nothing here allocates.
//   For a request that resumes in mayfly_wait(), the SDK writes only the caller's stack; one word more if
//   mayfly_respond() returns.
//
// The functions are for one thread at a time. C11 and C++17 or later; Linux on x86-64, any libc with
// getauxval(3), linked statically or not.

#ifndef MAYFLY_H
#define MAYFLY_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#ifdef __cplusplus
#include <optional>
#include <string_view>
#define MAYFLY_INLINE inline
#define MAYFLY_STATIC_ASSERT static_assert
#define MAYFLY_CAST(type, value) reinterpret_cast<type>(value)
extern "C" {
#else
#define MAYFLY_INLINE static inline
#define MAYFLY_STATIC_ASSERT _Static_assert
#define MAYFLY_CAST(type, value) ((type)(value))
#endif

// -- The ABI between program and host. Everything in this part is fixed for version 1. --

// The version of the ABI that this header speaks.
#define MAYFLY_ABI 1u

// Type of the auxiliary-vector entry ("MYFL") whose value is the address of `struct mayfly_page`.
#define AT_MAYFLY 0x4d59464cul

// "MAYFLY1" and a NUL, read as a little-endian number.
#define MAYFLY_MAGIC UINT64_C(0x0031594c4659414d)

// Operations of the doorbell.
#define MAYFLY_OP_WAIT UINT64_C(1)    // `argument` is NULL; the result is the address of the request.
#define MAYFLY_OP_RESPOND UINT64_C(2) // `argument` is the response; the result, if any, is as of WAIT.
#define MAYFLY_OP_CALL UINT64_C(3)    // `argument` is a `struct mayfly_peer_call`; the result is its result's size.
#define MAYFLY_OP_HOOKS UINT64_C(4)   // At boot: the program can save and restore its state; the result is 0.

// Methods of requests that come from the host, not from a client: none is a token of HTTP's.
#define MAYFLY_METHOD_CALL "mayfly:call" // To a storage program: the path names the function, the body is its argument.
#define MAYFLY_METHOD_SAVE "mayfly:save" // To a program with hooks: the response's body is its state;
#define MAYFLY_METHOD_RESTORE "mayfly:restore" // or the request's is.

// The doorbell: an entry that the host maps into the program, called as any C function. It preserves
// what the System V ABI says a function preserves, and returns -errno or a value that is not negative.
typedef int64_t (*mayfly_doorbell)(uint64_t operation, const void *argument, uint64_t abi);

// The host's description for the program; read-only.
struct mayfly_page {
    uint64_t magic;                // MAYFLY_MAGIC
    uint32_t abi_min;              // The oldest and
    uint32_t abi_max;              // the newest ABI that the host speaks.
    uint64_t doorbell;             // Address of the doorbell's entry.
    uint64_t request_max;          // Limits, see the top of this file. In bytes
    uint64_t response_max;         // and bytes.
    uint32_t response_headers_max; // A count.
    uint32_t flags;                // Of MAYFLY_PAGE_*; says which of the fields below there are.
    uint64_t shared;               // Shared memory: its address
    uint64_t shared_size;          // and its size in bytes.
};

// Flags of the page.
#define MAYFLY_PAGE_SHARED 1u // There is shared memory.

// Bytes that another owner holds. They may contain NULs.
struct mayfly_bytes {
    const char *data;
    size_t size;
};

// A header field. The names of a request's headers are in lower case.
struct mayfly_header {
    struct mayfly_bytes name;
    struct mayfly_bytes value;
};

// A request. Behind each of its strings lies a NUL that is not counted, and behind the body 64 bytes of
// zeroes, so that C's string functions and parsers that read ahead in words are safe.
struct mayfly_request {
    uint32_t abi;                        // The ABI that this request was written in.
    uint32_t header_count;               // Number of `headers`.
    uint64_t id;                         // Unique while the server runs; also in the server's log.
    uint64_t unix_ns;                    // Wall clock at the request's arrival: ns since 1970, UTC.
    uint64_t monotonic_ns;               // The program's CLOCK_MONOTONIC at the same instant.
    uint8_t entropy[32];                 // Fresh for each request and secret: seed generators with it.
    struct mayfly_bytes method;          // As sent: "GET".
    struct mayfly_bytes path;            // As sent, still percent-encoded, without the query.
    struct mayfly_bytes query;           // What follows the first '?', without it; may be empty.
    struct mayfly_bytes body;            // May be empty.
    const struct mayfly_header *headers; // In the order in which they came.
};

// A response.
//   status        200 to 599.
//   header_count  up to response_headers_max.
//   headers       names are RFC 9110 tokens, in any case; values have no control characters but the tab, and
//                 no blank at either end. Headers that frame the message or belong to the connection are the
//                 server's and are refused: content-length, transfer-encoding, connection, keep-alive, upgrade,
//                 te, trailer, proxy-*.
//   body          may be empty.
struct mayfly_response {
    uint32_t status;
    uint32_t header_count;
    const struct mayfly_header *headers;
    struct mayfly_bytes body;
};

// A call of a function of the storage program.
//   name      1 to 128 visible ASCII characters.
//   argument  up to the program's own request_max bytes.
//   result    where up to `capacity` bytes of result go; no more than the program's response_max come.
struct mayfly_peer_call {
    struct mayfly_bytes name;
    struct mayfly_bytes argument;
    void *result;
    size_t capacity;
};

#define MAYFLY_FIELD(type, field, offset)                                                                              \
    MAYFLY_STATIC_ASSERT(offsetof(struct type, field) == (offset), #type "." #field " has moved")
#define MAYFLY_SIZE(type, size) MAYFLY_STATIC_ASSERT(sizeof(struct type) == (size), #type " has changed its size")

MAYFLY_FIELD(mayfly_page, magic, 0);
MAYFLY_FIELD(mayfly_page, abi_min, 8);
MAYFLY_FIELD(mayfly_page, abi_max, 12);
MAYFLY_FIELD(mayfly_page, doorbell, 16);
MAYFLY_FIELD(mayfly_page, request_max, 24);
MAYFLY_FIELD(mayfly_page, response_max, 32);
MAYFLY_FIELD(mayfly_page, response_headers_max, 40);
MAYFLY_FIELD(mayfly_page, flags, 44);
MAYFLY_FIELD(mayfly_page, shared, 48);
MAYFLY_FIELD(mayfly_page, shared_size, 56);
MAYFLY_SIZE(mayfly_page, 64);

MAYFLY_FIELD(mayfly_bytes, data, 0);
MAYFLY_FIELD(mayfly_bytes, size, 8);
MAYFLY_SIZE(mayfly_bytes, 16);

MAYFLY_FIELD(mayfly_header, name, 0);
MAYFLY_FIELD(mayfly_header, value, 16);
MAYFLY_SIZE(mayfly_header, 32);

MAYFLY_FIELD(mayfly_request, abi, 0);
MAYFLY_FIELD(mayfly_request, header_count, 4);
MAYFLY_FIELD(mayfly_request, id, 8);
MAYFLY_FIELD(mayfly_request, unix_ns, 16);
MAYFLY_FIELD(mayfly_request, monotonic_ns, 24);
MAYFLY_FIELD(mayfly_request, entropy, 32);
MAYFLY_FIELD(mayfly_request, method, 64);
MAYFLY_FIELD(mayfly_request, path, 80);
MAYFLY_FIELD(mayfly_request, query, 96);
MAYFLY_FIELD(mayfly_request, body, 112);
MAYFLY_FIELD(mayfly_request, headers, 128);
MAYFLY_SIZE(mayfly_request, 136);

MAYFLY_FIELD(mayfly_response, status, 0);
MAYFLY_FIELD(mayfly_response, header_count, 4);
MAYFLY_FIELD(mayfly_response, headers, 8);
MAYFLY_FIELD(mayfly_response, body, 16);
MAYFLY_SIZE(mayfly_response, 32);

MAYFLY_FIELD(mayfly_peer_call, name, 0);
MAYFLY_FIELD(mayfly_peer_call, argument, 16);
MAYFLY_FIELD(mayfly_peer_call, result, 32);
MAYFLY_FIELD(mayfly_peer_call, capacity, 40);
MAYFLY_SIZE(mayfly_peer_call, 48);

#undef MAYFLY_FIELD
#undef MAYFLY_SIZE

// -- The SDK's own state. Not for programs. --

// A test may put its own auxiliary vector here.
#ifndef MAYFLY_GETAUXVAL
#define MAYFLY_GETAUXVAL getauxval
#endif

struct mayfly_sdk_state {
    const struct mayfly_page *page;
    mayfly_doorbell doorbell;          // NULL until the page has been found.
    const struct mayfly_request *next; // Came with the answer to the last response; not yet waited for.
    struct mayfly_bytes (*save)(void); // NULL without hooks.
    int (*restore)(struct mayfly_bytes state);
};

// Weak, so that all files of a program, C and C++, share one.
__attribute__((weak)) struct mayfly_sdk_state mayfly_sdk;

// Finds the doorbell, or ends the program with a line that says why there is none.
__attribute__((cold)) MAYFLY_INLINE void mayfly_sdk_open(void) {
    const struct mayfly_page *page = MAYFLY_CAST(const struct mayfly_page *, MAYFLY_GETAUXVAL(AT_MAYFLY));
    if (!page) {
        fputs("mayfly: this program answers requests inside Mayfly only; try: mayfly run PROGRAM\n", stderr);
        exit(0);
    }
    if (page->magic != MAYFLY_MAGIC) {
        fputs("mayfly: the host's page is not one of Mayfly's\n", stderr);
        exit(1);
    }
    if (MAYFLY_ABI < page->abi_min || page->abi_max < MAYFLY_ABI) {
        fprintf(stderr,
                "mayfly: this program speaks ABI %u and this host ABI %u to %u; rebuild it with the host's mayfly.h\n",
                MAYFLY_ABI, page->abi_min, page->abi_max);
        exit(1);
    }
    fflush(NULL); // What the boot printed is not to be frozen in a buffer.
    mayfly_sdk.page = page;
    mayfly_sdk.doorbell = MAYFLY_CAST(mayfly_doorbell, page->doorbell);
}

// Ends the program because the host would not let it wait.
__attribute__((cold)) MAYFLY_INLINE void mayfly_sdk_refused(int64_t error) {
    fprintf(stderr, "mayfly: the host refused to wait for a request: error %d\n", (int)-error);
    exit(1);
}

// The next request, the host's own ones included.
MAYFLY_INLINE const struct mayfly_request *mayfly_sdk_next(void) {
    if (mayfly_sdk.next) {
        const struct mayfly_request *request = mayfly_sdk.next;
        mayfly_sdk.next = NULL;
        return request;
    }
    if (!mayfly_sdk.doorbell) mayfly_sdk_open();
    int64_t answer = mayfly_sdk.doorbell(MAYFLY_OP_WAIT, NULL, MAYFLY_ABI);
    if (answer < 0) mayfly_sdk_refused(answer);
    return MAYFLY_CAST(const struct mayfly_request *, answer);
}

// -- The functions. --

// What the host offers, or NULL outside Mayfly. Never ends the program.
MAYFLY_INLINE const struct mayfly_page *mayfly_host(void) {
    return MAYFLY_CAST(const struct mayfly_page *, MAYFLY_GETAUXVAL(AT_MAYFLY));
}

// Memory that all of the tenant's workers see at this address, and that nothing rolls back: the tenant's
// `shared_memory`. Returns NULL, and a size of 0, if the tenant has none, and outside Mayfly. It starts as zeroes,
// aligned to a page.
//
// Other requests use it at the same time, so reach it with atomics: a C11 `_Atomic` or a C++ `std::atomic` that is
// lock-free. A request can end at any instruction, by a limit or a fault: what must not be seen half done must change
// in one atomic step, and a lock that such a request held stays locked for ever. No system call waits for another
// worker.
MAYFLY_INLINE void *mayfly_shared(size_t *size) {
    const struct mayfly_page *page = mayfly_host();
    int there = page && page->magic == MAYFLY_MAGIC && page->flags & MAYFLY_PAGE_SHARED;
    *size = there ? page->shared_size : 0;
    return there ? MAYFLY_CAST(void *, page->shared) : NULL;
}

// Answers the request that mayfly_wait() returned last, and so ends it.
//
// Where the worker keeps its state the function returns 0, or -EPROTO if there was no request to answer
// (answered already, or never waited for), or another -errno of the host's. Where the worker is ephemeral
// it does not return.
MAYFLY_INLINE int mayfly_respond_with(const struct mayfly_response *response) {
    if (mayfly_sdk.next || !mayfly_sdk.doorbell) return -EPROTO;
    int64_t answer = mayfly_sdk.doorbell(MAYFLY_OP_RESPOND, response, MAYFLY_ABI);
    if (answer < 0) return (int)answer;
    mayfly_sdk.next = MAYFLY_CAST(const struct mayfly_request *, answer);
    return 0;
}

// mayfly_respond_with() for the usual response: a body of `size` bytes and the header `content-type`
// (or no header, if `content_type` is NULL).
MAYFLY_INLINE int mayfly_respond(uint32_t status, const char *content_type, const void *body, size_t size) {
    struct mayfly_header header = {{"content-type", sizeof "content-type" - 1}, {content_type, 0}};
    if (content_type) header.value.size = strlen(content_type);
    struct mayfly_response response = {status, content_type ? 1u : 0u, &header, {(const char *)body, size}};
    return mayfly_respond_with(&response);
}

// Whether `bytes` are the string `text`.
MAYFLY_INLINE int mayfly_equal(struct mayfly_bytes bytes, const char *text) {
    size_t size = strlen(text);
    return bytes.size == size && memcmp(bytes.data, text, size) == 0;
}

// Answers a request for the hooks. Returns 0 for another request.
__attribute__((cold)) MAYFLY_INLINE int mayfly_sdk_hand_over(const struct mayfly_request *request) {
    struct mayfly_bytes state = {NULL, 0};
    uint32_t status = 200;
    if (mayfly_equal(request->method, MAYFLY_METHOD_SAVE)) {
        state = mayfly_sdk.save();
    } else if (mayfly_equal(request->method, MAYFLY_METHOD_RESTORE)) {
        if (mayfly_sdk.restore(request->body) != 0) status = 500;
    } else {
        return 0;
    }
    // Even if the host refuses the response (a state above its limit), the request has ended.
    mayfly_respond(status, NULL, state.data, state.size);
    return 1;
}

// Waits for the next request. Never returns NULL; ends the program if there is no host (see ERRORS).
MAYFLY_INLINE const struct mayfly_request *mayfly_wait(void) {
    for (;;) {
        const struct mayfly_request *request = mayfly_sdk_next();
        if (!mayfly_sdk.save || !mayfly_sdk_hand_over(request)) return request;
    }
}

// Declares, before the first mayfly_wait(), that the program can hand its state over to its next version: for tenants
// whose workers keep their state. When a new version has booted, the host calls `save` of the old one, and passes the
// bytes to `restore` of the new one, which has served no request yet. Both run inside mayfly_wait(), under the limits
// of a request.
//
//   save     returns the state, at most response_max bytes, which must stay valid until the next mayfly_wait().
//   restore  takes the state, at most request_max bytes. Returns 0, or another number to refuse it and start without
//   one. The
//            last version wrote the bytes, so begin them with a version number.
//
// Returns 0; -ENODEV outside Mayfly; -EPROTO after the first mayfly_wait(); -ENOSYS if the host does not support it.
MAYFLY_INLINE int mayfly_on_handover(struct mayfly_bytes (*save)(void), int (*restore)(struct mayfly_bytes state)) {
    const struct mayfly_page *page = mayfly_host();
    if (!page || page->magic != MAYFLY_MAGIC) return -ENODEV;
    if (mayfly_sdk.doorbell) return -EPROTO;
    int64_t answer = MAYFLY_CAST(mayfly_doorbell, page->doorbell)(MAYFLY_OP_HOOKS, NULL, MAYFLY_ABI);
    if (answer < 0) return (int)answer;
    mayfly_sdk.save = save;
    mayfly_sdk.restore = restore;
    return 0;
}

// Calls the function `name` of the tenant's storage program, a second, long-lived program that the tenant names in its
// configuration. It gets a copy of the argument's `size` bytes; its result is copied to `result`, which has room for
// `capacity` bytes, and the result's size goes to `*result_size` (0 on errors). Calls of all of the tenant's workers
// run one after the other, so a function needs no locks. During a call the caller's CPU time stands still, and its
// wall-clock time runs.
//
// Only while a request is served. Returns 0, or
//   -ENOTCONN   the tenant has no storage program, or it does not run
//   -ENOENT     it has no such function
//   -EMSGSIZE   the argument is above the limit, or the result above `capacity` or the limit
//   -ETIMEDOUT  it took too long: it may or may not have run
//   -EBUSY      too many calls wait
//   -EIO        the function failed
//   -EFAULT     `argument` cannot be read or `result` not be written
//   -EINVAL     the name is invalid (see struct mayfly_peer_call)
//   -EPROTO     no request is being served
MAYFLY_INLINE int mayfly_call(const char *name, const void *argument, size_t size, void *result, size_t capacity,
                              size_t *result_size) {
    *result_size = 0;
    if (mayfly_sdk.next || !mayfly_sdk.doorbell) return -EPROTO;
    const struct mayfly_peer_call call = {{name, strlen(name)}, {(const char *)argument, size}, result, capacity};
    int64_t answer = mayfly_sdk.doorbell(MAYFLY_OP_CALL, &call, MAYFLY_ABI);
    if (answer < 0) return (int)answer;
    *result_size = (size_t)answer;
    return 0;
}

// A function of a storage program. It returns 0 and the result, which must stay where it is until the next call, or
// another number if it fails.
struct mayfly_function {
    const char *name;
    int (*call)(struct mayfly_bytes argument, struct mayfly_bytes *result);
};

// What a storage program runs: carries out calls of these functions, one after the other, for ever. The program keeps
// its state between them, and may have hooks (mayfly_on_handover). It gets no requests of clients.
__attribute__((noreturn)) MAYFLY_INLINE void mayfly_serve(const struct mayfly_function *functions, size_t count) {
    for (;;) {
        const struct mayfly_request *request = mayfly_wait();
        struct mayfly_bytes result = {NULL, 0};
        uint32_t status = mayfly_equal(request->method, MAYFLY_METHOD_CALL) ? 404 : 405;
        for (size_t i = 0; status == 404 && i < count; ++i)
            if (mayfly_equal(request->path, functions[i].name))
                status = functions[i].call(request->body, &result) == 0 ? 200 : 500;
        if (status != 200) result.size = 0;
        mayfly_respond(status, NULL, result.data, result.size);
    }
}

// The value of the first header of that name, or NULL. `name` may be in any case.
MAYFLY_INLINE const struct mayfly_bytes *mayfly_find_header(const struct mayfly_request *request, const char *name) {
    size_t size = strlen(name);
    for (uint32_t i = 0; i < request->header_count; ++i) {
        const struct mayfly_header *header = &request->headers[i];
        if (header->name.size != size) continue;
        size_t at = 0;
        // Only `name` is folded: the host has done the same to the request's names.
        while (at < size && header->name.data[at] == (name[at] >= 'A' && name[at] <= 'Z' ? name[at] | 0x20 : name[at]))
            ++at;
        if (at == size) return &header->value;
    }
    return NULL;
}

#ifdef __cplusplus
} // extern "C"

// The same for C++. Views are valid as long as the request is.
namespace mayfly {

using Request = ::mayfly_request;
using Response = ::mayfly_response;

inline std::string_view view(const mayfly_bytes &bytes) { return {bytes.data, bytes.size}; }

inline mayfly_bytes bytes(std::string_view text) { return {text.data(), text.size()}; }

inline std::string_view method(const Request &request) { return view(request.method); }
inline std::string_view path(const Request &request) { return view(request.path); }
inline std::string_view query(const Request &request) { return view(request.query); }
inline std::string_view body(const Request &request) { return view(request.body); }

// The value of the first header of that name, in any case.
inline std::optional<std::string_view> header(const Request &request, const char *name) {
    if (const mayfly_bytes *value = mayfly_find_header(&request, name)) return view(*value);
    return std::nullopt;
}

// Shared memory as a T, such as a struct of atomics; nullptr if there is none, or less than a T. See mayfly_shared().
template <class T> T *shared() {
    std::size_t size;
    void *memory = mayfly_shared(&size);
    return size >= sizeof(T) ? static_cast<T *>(memory) : nullptr;
}

inline const Request &wait() { return *mayfly_wait(); }

// Calls a function of the storage program; the result is a view of `buffer`. std::nullopt, and the reason in errno, on
// errors. See mayfly_call().
template <std::size_t Capacity>
std::optional<std::string_view> call(const char *name, std::string_view argument, char (&buffer)[Capacity]) {
    std::size_t size;
    const int error = mayfly_call(name, argument.data(), argument.size(), buffer, Capacity, &size);
    if (error == 0) return std::string_view{buffer, size};
    errno = -error;
    return std::nullopt;
}

inline int respond(const Response &response) { return mayfly_respond_with(&response); }

inline int respond(std::uint32_t status, std::string_view content_type, std::string_view body) {
    const mayfly_header header{bytes("content-type"), bytes(content_type)};
    return respond({status, 1, &header, bytes(body)});
}

} // namespace mayfly
#endif

#undef MAYFLY_INLINE
#undef MAYFLY_STATIC_ASSERT
#undef MAYFLY_CAST

#endif // MAYFLY_H
