// SPDX-License-Identifier: MIT OR Apache-2.0
// Calls that change the address space, their results, and the content of the pages afterwards.
#include "say.h"

#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#define NOREPLACE 0x100000
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

static char *map(unsigned long pages, int prot) {
    char *at = mmap(NULL, pages * PAGE, prot, ANON, -1, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

// The permitted accesses at `at`: a call with a bad pointer returns an error and does not kill the program.
static const char *access_to(void *at) {
    int readable = syscall(SYS_nanosleep, at, NULL) == 0 || errno != EFAULT;
    int writable = 0;
    if (readable) {
        struct timespec before;
        memcpy(&before, at, sizeof before);
        writable = syscall(SYS_clock_gettime, CLOCK_MONOTONIC, at) == 0;
        if (writable) memcpy(at, &before, sizeof before);
    }
    return writable ? "rw" : readable ? "r-" : "--";
}

static void show(const char *what, char *at, unsigned long pages) {
    printf("%s:", what);
    for (unsigned long i = 0; i < pages; i++) {
        const char *access = access_to(at + i * PAGE);
        printf(" %s", access);
        if (access[0] == 'r') printf("%d", at[i * PAGE + 100]);
    }
    printf("\n");
}

static void fill(char *at, unsigned long pages) {
    for (unsigned long i = 0; i < pages; i++)
        at[i * PAGE + 100] = (char)(i + 1);
}

static void mapping(void) {
    char *at = map(8, RW);
    show("fresh", at, 8);
    fill(at, 8);
    SAY(munmap(at + 2 * PAGE, PAGE));
    SAY(munmap(at + 2 * PAGE, PAGE));
    show("hole", at, 8);
    SAY(mmap(at + 1 * PAGE, 3 * PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0) == at + PAGE);
    show("replaced", at, 8);
    SAY(mmap(at + 4 * PAGE, PAGE, RW, ANON | NOREPLACE, -1, 0));
    SAY(munmap(at + 5 * PAGE, PAGE));
    SAY(mmap(at + 5 * PAGE, PAGE, RW, ANON | NOREPLACE, -1, 0) == at + 5 * PAGE);
    SAY(munmap(at + 6 * PAGE, PAGE));
    SAY(mmap(at + 6 * PAGE, PAGE, RW, ANON, -1, 0) == at + 6 * PAGE);
    SAY(mmap(at + 6 * PAGE, PAGE, RW, ANON, -1, 0) == at + 6 * PAGE);
    SAY((uintptr_t)mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0) < 1UL << 31);
    // A hint is good there, too, and not if it leads out of there or is taken.
    char *const low = (char *)0x50000000;
    SAY(mmap(low, PAGE, RW, ANON | MAP_32BIT, -1, 0) == low);
    SAY((uintptr_t)mmap(low, PAGE, RW, ANON | MAP_32BIT, -1, 0) < 1UL << 31);
    SAY((uintptr_t)mmap((void *)0x7ffff000, 2 * PAGE, RW, ANON | MAP_32BIT, -1, 0) < (1UL << 31) - PAGE);
    SAY((uintptr_t)mmap((void *)0x600000000000, PAGE, RW, ANON | MAP_32BIT, -1, 0) < 1UL << 31);

    SAY(mmap(NULL, 0, RW, ANON, -1, 0));
    SAY(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    SAY(mmap(NULL, -PAGE, RW, ANON, -1, 0));
    SAY(mmap(NULL, -1UL, RW, ANON, -1, 0));
    SAY(mmap(NULL, 1UL << 47, RW, ANON, -1, 0));
    SAY(mmap(at + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    SAY(mmap(KERNEL, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    SAY(mmap(NULL, PAGE, RW, ANON, -1, 1));
    SAY(mmap(NULL, PAGE, RW, MAP_PRIVATE, 77, 0));
    SAY(mmap(NULL, PAGE, RW, MAP_PRIVATE, 1, 0));
    SAY(mmap(NULL, PAGE, RW, 3 | MAP_ANONYMOUS | 0x40000000, -1, 0));
    SAY_OK(mmap(KERNEL, PAGE, RW, ANON, -1, 0));
    SAY_OK(mmap(NULL, 1UL << 40, PROT_NONE, ANON | MAP_NORESERVE, -1, 0));
    SAY_OK(mmap(NULL, PAGE, RW, ANON | MAP_GROWSDOWN | MAP_STACK | MAP_POPULATE, -1, 0));

    SAY(munmap(at + 1, PAGE));
    SAY(munmap(at, 0));
    SAY(munmap(KERNEL, PAGE));
    SAY(munmap(at, -PAGE));
    SAY(munmap((void *)0, PAGE));
    SAY(munmap(at, 8 * PAGE));
    show("gone", at, 8);
}

static void protection(void) {
    char *at = map(8, RW);
    fill(at, 8);
    SAY(mprotect(at + PAGE, PAGE, PROT_READ));
    SAY(mprotect(at + 2 * PAGE, PAGE, PROT_NONE));
    SAY(mprotect(at + 3 * PAGE, PAGE, PROT_WRITE));
    SAY(mprotect(at + 4 * PAGE, PAGE, PROT_READ | PROT_EXEC));
    show("mixed", at, 8);
    SAY(mprotect(at, 8 * PAGE, RW));
    show("all back", at, 8);
    SAY(munmap(at + 5 * PAGE, PAGE));
    SAY(mprotect(at + 3 * PAGE, 5 * PAGE, PROT_READ));
    show("up to the gap", at, 8);
    SAY(mprotect(at + 5 * PAGE, PAGE, PROT_READ));
    SAY(mprotect(at, 0, PROT_READ));
    SAY(mprotect(at + 1, PAGE, PROT_READ));
    SAY(mprotect(at, -PAGE, PROT_READ));
    SAY(mprotect(KERNEL, PAGE, PROT_READ));
    SAY(mprotect(at, PAGE, 0x40));
    SAY(mprotect(at, PAGE, PROT_GROWSDOWN | PROT_READ));
    SAY(mprotect(at, PAGE, PROT_GROWSUP | PROT_READ));
    SAY(mprotect(at, PAGE, PROT_GROWSDOWN | PROT_GROWSUP | PROT_READ));
    char *untouched = map(2, PROT_NONE);
    SAY(mprotect(untouched, PAGE, RW));
    show("untouched", untouched, 2);
    // Code is written, made executable, and run.
    char *code = map(1, RW);
    memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6);
    SAY(mprotect(code, PAGE, PROT_READ | PROT_EXEC));
    SAY(((int (*)(void))(uintptr_t)code)());
    SAY(mprotect(code, PAGE, RW));
    code[1] = 43;
    SAY(mprotect(code, PAGE, PROT_READ | PROT_EXEC));
    SAY(((int (*)(void))(uintptr_t)code)());
}

static void advice(void) {
    char *at = map(6, RW);
    fill(at, 6);
    SAY(madvise(at + PAGE, PAGE, MADV_DONTNEED));
    show("given up", at, 6);
    at[PAGE + 100] = 9;
    for (int advice = 0; advice < 26; advice++)
        if (advice != MADV_DONTNEED && advice != MADV_FREE && advice != 5 && advice != MADV_REMOVE && advice != 12 &&
            advice != 13 && advice != 18 && advice != 19 && advice < 22)
            printf("advice %d: %d\n", advice, madvise(at + 2 * PAGE, PAGE, advice));
    show("after advice", at, 6);
    SAY(madvise(at, PAGE, MADV_FREE)); // the content is undefined until the next write
    at[100] = 11;
    SAY(at[100]);
    // Before there is a gap in which it might be placed.
    char *shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    SAY(munmap(at + 3 * PAGE, PAGE));
    SAY(madvise(at + 2 * PAGE, 3 * PAGE, MADV_DONTNEED));
    show("around the gap", at, 6);
    SAY(madvise(at + 3 * PAGE, PAGE, MADV_WILLNEED));
    SAY(madvise(at + 1, PAGE, MADV_DONTNEED));
    SAY(madvise(at, PAGE, 12345));
    SAY(madvise(at, 0, MADV_DONTNEED));
    SAY(madvise(at, -PAGE, MADV_DONTNEED));
    shared[100] = 5;
    SAY(madvise(shared, PAGE, MADV_DONTNEED));
    SAY(shared[100]);
    SAY(mlock(at, PAGE));
    SAY(mlock(at + 3 * PAGE, PAGE));
    SAY(munlock(at, PAGE));
    SAY(msync(at, PAGE, MS_SYNC));
    SAY(msync(at + 3 * PAGE, PAGE, MS_SYNC));
    SAY(msync(at + 1, PAGE, MS_SYNC));
    SAY(msync(at, 1, MS_ASYNC | MS_INVALIDATE));
    SAY(msync(at, 0, 0));
    SAY(msync(at, PAGE, MS_SYNC | MS_ASYNC));
    SAY(msync(at, PAGE, 8));
}

static void remapping(void) {
    char *at = map(8, RW);
    fill(at, 8);
    SAY(mremap(at, 8 * PAGE, 4 * PAGE, 0) == at);
    show("shrunk", at, 8);
    SAY(mremap(at, 4 * PAGE, 6 * PAGE, 0) == at);
    show("grown in place", at, 8);
    char *wall = mmap(at + 6 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0);
    SAY(mremap(at, 6 * PAGE, 16 * PAGE, 0));
    SAY(mprotect(wall, PAGE, PROT_NONE));
    SAY(mremap(at, 6 * PAGE, 16 * PAGE, 0));
    char *moved = mremap(at, 6 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    SAY(moved != at && moved != MAP_FAILED);
    show("moved", moved, 8);
    show("left behind", at, 6);
    char *target = map(8, RW);
    fill(target, 8);
    SAY(mremap(moved, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE) == target + PAGE);
    show("moved to a place", target, 8);
    show("where it was", moved, 4);
    SAY(mremap(moved + 2 * PAGE, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + 5 * PAGE) ==
        target + 5 * PAGE);
    show("moved and shrunk", target, 8);
    SAY(mremap(target, PAGE, 0, 0));
    SAY(mremap(target + 1, PAGE, PAGE, 0));
    SAY(mremap(target, PAGE, PAGE, 8));
    SAY(mremap(target, PAGE, PAGE, MREMAP_FIXED, target + PAGE));
    SAY(mremap(target, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE));
    SAY(mremap(target, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + 100));
    SAY(mremap(KERNEL, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    SAY(munmap(target + 3 * PAGE, PAGE));
    SAY(mremap(target + 2 * PAGE, 3 * PAGE, 8 * PAGE, MREMAP_MAYMOVE));
    SAY(mremap(target + 3 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
}

static void breaks(void) {
    char *start = sbrk(0);
    char *page = (char *)(((uintptr_t)start + PAGE - 1) / PAGE * PAGE);
    SAY(brk(page + 4 * PAGE));
    show("heap", page, 4);
    fill(page, 4);
    SAY(brk(page + PAGE + 1));
    show("smaller heap", page, 3);
    SAY(brk(page + 4 * PAGE));
    show("larger again", page, 4);
    SAY((char *)syscall(SYS_brk, (char *)0x1000) == page + 4 * PAGE);
    SAY((char *)syscall(SYS_brk, KERNEL) == page + 4 * PAGE);
    SAY((char *)syscall(SYS_brk, -1L) == page + 4 * PAGE);
    SAY(mmap(page + 8 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == page + 8 * PAGE);
    SAY((char *)syscall(SYS_brk, page + 8 * PAGE) == page + 4 * PAGE);
    SAY((char *)syscall(SYS_brk, page + 7 * PAGE) == page + 7 * PAGE);
    SAY(brk(start));
}

static int deep(int levels) {
    volatile char frame[4096];
    frame[0] = (char)levels;
    return levels == 0 ? 0 : deep(levels - 1) + frame[0] - (char)levels;
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    mapping();
    protection();
    advice();
    remapping();
    breaks();
    SAY(deep(1500));
    return 0;
}
