// SPDX-License-Identifier: MIT OR Apache-2.0
//
// For LD_PRELOAD: hides from a program that it was forked, as the fork of a machine is hidden. Its process number
// stays, and no page is wiped or left out; the fake host does not go through fork(3), so no handler of
// pthread_atfork(3) runs either.

#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static pid_t first;

__attribute__((constructor)) static void start(void) { first = (pid_t)syscall(SYS_getpid); }

pid_t getpid(void) { return first ? first : (pid_t)syscall(SYS_getpid); }

int madvise(void *address, size_t size, int advice) {
    if (advice == MADV_WIPEONFORK) {
        errno = EINVAL; // As from a kernel that does not have it.
        return -1;
    }
    if (advice == MADV_DONTFORK) return 0;
    return (int)syscall(SYS_madvise, address, size, advice);
}
