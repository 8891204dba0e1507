// SPDX-License-Identifier: MIT OR Apache-2.0
//
// libmayfly.h - the guest SDK as a shared library, for languages that call C by FFI. C and C++ programs use mayfly.h.
//
// Requests and responses pass through the *mailbox*, a piece of memory that the library owns and the language maps as
// an array of bytes. No call has an argument that needs converting, and one call is one request:
//
//     uint8_t *mailbox = mayfly_ffi_open();
//     mayfly_ffi_wait();               // The first request is in the mailbox; all before it ran once.
//     for (;;) {
//         ...                          // Read the request, write the response.
//         mayfly_ffi_exchange();       // Answers it, and the next one is in the mailbox.
//     }
//
// THE MAILBOX. Numbers are little-endian; sizes are in bytes.
//
//     offset size
//        0    4   size of the request: all that the library has written, this head included
//        4    4   capacity: size of the mailbox
//        8    4   response: status
//       12    4   response: number of headers
//       16    4   response: size of the body
//       20    4   response: offset in the mailbox, a multiple of 4 and not below the request's size
//       24    8   request: id
//       32    8   request: wall clock, ns since 1970
//       40    8   request: CLOCK_MONOTONIC, ns
//       48    4   request: size of the method
//       52    4   request: size of the path
//       56    4   request: size of the query
//       60    4   request: size of the body
//       64    4   request: number of headers
//       68    4   generator: the library sets it to 0 with each request; the language's to use
//       72   24   zeroes at first; the language's to use. Near the rest, so that it costs no page of its own
//       96        request: for each header the sizes of name and value, 4 and 4
//                 request: method, path, query, each header's name and value, body
//
//     At the response's offset lie, for each of its headers, the sizes of name and value, 4 and 4; then the names and
//     values; then the body. What a response may hold is as of `struct mayfly_response` in mayfly.h.
//
// The functions are for one thread, always the same.

#ifndef LIBMAYFLY_H
#define LIBMAYFLY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MAYFLY_FFI_REQUEST_SIZE 0u
#define MAYFLY_FFI_CAPACITY 4u
#define MAYFLY_FFI_STATUS 8u
#define MAYFLY_FFI_HEADER_COUNT 12u
#define MAYFLY_FFI_BODY_SIZE 16u
#define MAYFLY_FFI_RESPONSE 20u
#define MAYFLY_FFI_REQUEST 24u
#define MAYFLY_FFI_GENERATOR 68u
#define MAYFLY_FFI_HEADERS 96u

// The mailbox; the same each time. NULL outside Mayfly, or if there is no memory for it.
__attribute__((visibility("default"))) void *mayfly_ffi_open(void);

// Waits for the first request. Ends the process outside Mayfly, as mayfly_wait() does.
__attribute__((visibility("default"))) void mayfly_ffi_wait(void);

// Sleeps until the process's other threads have no work, for a second at most. Before mayfly_ffi_wait(): what compilers
// and collectors left to their threads is done then, and the program is not frozen before it has been taken over.
// Returns the microseconds of processor time that those threads used meanwhile.
__attribute__((visibility("default"))) uint32_t mayfly_ffi_rest(void);

// Answers the request with the response in the mailbox, and waits for the next one. Where the worker is reset, this
// never returns: the program is next seen coming out of mayfly_ffi_wait().
//
// Returns 0, or -errno when the response was not sent: -EINVAL if it is not all inside the mailbox or has more headers
// than may be, and then the request is still to be answered; another one of the host's, and then the next request has
// come all the same.
__attribute__((visibility("default"))) int mayfly_ffi_exchange(void);

// Random bytes that no other request gets, fit for keys. In a request they are made from the request's entropy, with no
// system call (ChaCha20, RFC 8439); before the first one they come from getrandom(2). Returns 0, or -errno.
__attribute__((visibility("default"))) int mayfly_ffi_random(void *to, size_t size);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // LIBMAYFLY_H
