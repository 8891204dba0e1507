// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Exercises what a C library does at start-up and what programs ask of memory, clocks and files. Built against
// static glibc, static-PIE glibc and static musl; the report holds nothing that differs from run to run. (C does
// not order the arguments of a call: what changes something stands in a report() of its own.)

#define _GNU_SOURCE
#include "report.h"

#include <alloca.h>
#include <elf.h>
#include <math.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define ARCH_GET_FS 0x1003 // From <asm/prctl.h>, which musl-gcc does not find.

extern char _start[];
extern char **environ;

static int constructed;
static _Thread_local int tls_data = 42;
static _Thread_local int tls_bss;
static _Thread_local char tls_aligned[64] __attribute__((aligned(64)));

__attribute__((constructor(200))) static void second(void) { constructed = constructed * 10 + 2; }
__attribute__((constructor(101))) static void first(void) { constructed = constructed * 10 + 1; }

static const char *yes(int condition) { return condition ? "yes" : "NO"; }

// The result of a call that returns -1 and sets errno.
static long failed(long result) { return result == -1 ? -(long)errno : result; }
static long map_failed(const void *address) { return address == MAP_FAILED ? -(long)errno : 0; }

static void *map_pages(size_t count) {
    return mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int all_are(const unsigned char *bytes, size_t size, unsigned char value) {
    for (size_t i = 0; i < size; ++i)
        if (bytes[i] != value) return 0;
    return 1;
}

static void start_up(int argc, char **argv) {
    report("arguments %d:", argc - 1);
    for (int i = 1; i < argc; ++i)
        report(" [%s]", argv[i]);
    const char *value = getenv("COMPAT");
    report("\nargv ends with NULL: %s, environment: %s\n", yes(argv[argc] == NULL), value ? value : "(not set)");
    report("constructors %d, tls %d %d, aligned: %s\n", constructed, tls_data, tls_bss,
           yes((uintptr_t)tls_aligned % 64 == 0 && all_are((unsigned char *)tls_aligned, 64, 0)));
    tls_data = 1;

    const Elf64_Phdr *headers = (const Elf64_Phdr *)getauxval(AT_PHDR);
    int loads = 0;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); ++i)
        loads += headers[i].p_type == PT_LOAD;
    report("auxv: page %lu, phent %lu, loads: %s, entry: %s, secure %lu, clock %lu\n", getauxval(AT_PAGESZ),
           getauxval(AT_PHENT), yes(loads > 0), yes(getauxval(AT_ENTRY) == (unsigned long)(uintptr_t)_start),
           getauxval(AT_SECURE), getauxval(AT_CLKTCK));
    report("auxv: random: %s, execfn: %s, platform: %s\n", yes(getauxval(AT_RANDOM) != 0),
           yes(getauxval(AT_EXECFN) && strcmp((const char *)getauxval(AT_EXECFN), argv[0]) == 0),
           getauxval(AT_PLATFORM) ? (const char *)getauxval(AT_PLATFORM) : "(none)");

    unsigned long fs_base = 0, self;
    __asm__("mov %%fs:0, %0" : "=r"(self));
    report("arch_prctl %ld", syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_base));
    report(", fs base: %s, bad code %ld\n", yes(fs_base == self), failed(syscall(SYS_arch_prctl, 0x7777, 0)));

    struct rlimit limit = {0, 0};
    report("getrlimit %d", getrlimit(RLIMIT_STACK, &limit));
    report(", stack: %s\n", yes(limit.rlim_cur >= 1 << 20));
    report("sysconf page %ld, unknown call %ld\n", sysconf(_SC_PAGESIZE), failed(syscall(9999)));
}

static void allocations(void) {
    static unsigned char *blocks[512];
    uint32_t seed = 12345;
    int good = 0;
    for (int round = 0; round < 2; ++round) {
        for (size_t i = 0; i < 512; ++i) {
            seed = seed * 1664525u + 1013904223u;
            size_t size = (seed >> 8) % ((size_t)1 << (seed >> 28) << 4) + 1;
            blocks[i] = malloc(size);
            if (!blocks[i]) continue;
            memset(blocks[i], (int)(i & 0xff), size);
            unsigned char *grown = realloc(blocks[i], size * 2);
            if (grown) blocks[i] = grown;
            good += all_are(blocks[i], size, (unsigned char)i);
        }
        for (size_t i = 0; i < 512; ++i)
            free(blocks[(i * 7 + (size_t)round) % 512]);
    }
    report("malloc: %d of 1024 blocks kept their content\n", good);

    unsigned char *zeroes = calloc(1000, 1000), *big = malloc(2 << 20);
    report("calloc is zero: %s", yes(zeroes && all_are(zeroes, 1000000, 0)));
    if (big) memset(big, 7, 2 << 20);
    big = realloc(big, 8 << 20); // mremap
    report(", realloc of 2 MiB keeps: %s", yes(big && all_are(big, 2 << 20, 7)));
    void *aligned = aligned_alloc(4096, 3 * 4096);
    volatile size_t too_much = (size_t)1 << 60;
    report(", aligned: %s, too much: %s\n", yes(aligned && (uintptr_t)aligned % 4096 == 0),
           yes(malloc(too_much) == NULL));
    free(aligned);
    free(big);
    free(zeroes);
}

static void mappings(void) {
    unsigned char *pages = map_pages(8);
    report("mmap: %ld, zero: %s", map_failed(pages), yes(all_are(pages, 8 * PAGE, 0)));
    memset(pages, 1, 8 * PAGE);
    report(", munmap of the middle: %d", munmap(pages + 3 * PAGE, 2 * PAGE));
    void *middle =
        mmap(pages + 3 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    report(", put back: %s, zero: %s, neighbours: %s\n", yes(middle == pages + 3 * PAGE),
           yes(all_are(middle, 2 * PAGE, 0)),
           yes(all_are(pages, 3 * PAGE, 1) && all_are(pages + 5 * PAGE, 3 * PAGE, 1)));

    report("mprotect: none %d", mprotect(pages, 2 * PAGE, PROT_NONE));
    report(", write again %d", mprotect(pages, 2 * PAGE, PROT_READ | PROT_WRITE));
    pages[0] = 2;
    report(", content kept: %s\n", yes(pages[0] == 2 && all_are(pages + 1, 2 * PAGE - 1, 1)));
    report("madvise: %d", madvise(pages, PAGE, MADV_DONTNEED));
    report(", zero again: %s\n", yes(all_are(pages, PAGE, 0)));

    unsigned char *moved = mremap(pages + 5 * PAGE, 3 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    report("mremap: grow %ld, content: %s, rest zero: %s", map_failed(moved), yes(all_are(moved, 3 * PAGE, 1)),
           yes(all_are(moved + 3 * PAGE, 61 * PAGE, 0)));
    unsigned char *shrunk = mremap(moved, 64 * PAGE, PAGE, 0);
    report(", shrink in place: %s\n", yes(shrunk == moved && all_are(moved, PAGE, 1)));
    munmap(moved, PAGE);

    void *noreplace = mmap(pages, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    report("errors: noreplace %ld", map_failed(noreplace));
    report(", empty %ld", map_failed(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    report(", huge %ld", map_failed(mmap(NULL, (size_t)1 << 47, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    report(", no kind %ld", map_failed(mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0)));
    report(", bad fd %ld\n", map_failed(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 77, 0)));
    report("errors: munmap unaligned %ld", failed(munmap(pages + 1, PAGE)));
    munmap(pages, 5 * PAGE);
    report(", again %ld, mprotect of nothing %ld", failed(munmap(pages, 5 * PAGE)),
           failed(mprotect(pages, PAGE, PROT_READ)));
    report(", madvise of nothing %ld, bad advice %ld", failed(madvise(pages, PAGE, MADV_DONTNEED)),
           failed(madvise(report_text, 0, 12345)));
    report(", mremap of nothing %ld\n", map_failed(mremap(pages, PAGE, 2 * PAGE, MREMAP_MAYMOVE)));
}

static void program_break(void) {
    unsigned char *old = (unsigned char *)syscall(SYS_brk, 0);
    unsigned char *start = (unsigned char *)(((uintptr_t)old + PAGE - 1) & ~(PAGE - 1));
    unsigned char *end = start + 16 * PAGE;
    report("brk: grow: %s", yes((unsigned char *)syscall(SYS_brk, end) == end));
    report(", zero: %s", yes(all_are(start, 16 * PAGE, 0)));
    memset(start, 3, 16 * PAGE);
    report(", shrink: %s", yes((unsigned char *)syscall(SYS_brk, start + 8 * PAGE) == start + 8 * PAGE));
    report(", grow again: %s", yes((unsigned char *)syscall(SYS_brk, end) == end));
    report(", kept: %s, zero: %s", yes(all_are(start, 8 * PAGE, 3)), yes(all_are(start + 8 * PAGE, 8 * PAGE, 0)));
    report(", too low is refused: %s", yes((unsigned char *)syscall(SYS_brk, PAGE) == end));
    report(", back: %s\n", yes((unsigned char *)syscall(SYS_brk, old) == old));
}

// Each string function at each alignment before an unmapped page.
static void strings_at_page_ends(void) {
    unsigned char *pages = map_pages(3);
    munmap(pages + 2 * PAGE, PAGE);
    unsigned char *end = pages + 2 * PAGE;
    int good = 0;
    for (size_t size = 1; size <= 300; ++size) {
        char *text = (char *)end - size;
        memset(text, 'a', size - 1);
        text[size - 1] = 0;
        char copy[301];
        memcpy(copy, text, size);
        good += strlen(text) == size - 1 && memcmp(copy, text, size) == 0 && strchr(text, 'b') == NULL &&
                memchr(text, 0, size) == text + size - 1 && strcmp(copy, text) == 0;
    }
    munmap(pages, 2 * PAGE);
    report("strings at the end of a page: %d of 300\n", good);
}

static uint64_t deep(int depth) {
    volatile unsigned char *frame = alloca(4000);
    frame[0] = (unsigned char)depth;
    frame[3999] = 1;
    return depth == 0 ? 1 : deep(depth - 1) + frame[3999] + (frame[0] == (unsigned char)depth ? 0 : 1000);
}

static void time_and_chance(void) {
    struct timespec before, now, coarse, wall, resolution;
    int ordered = 1;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (int i = 0; i < 1000; ++i) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        ordered &= now.tv_sec > before.tv_sec || (now.tv_sec == before.tv_sec && now.tv_nsec >= before.tv_nsec);
        before = now;
    }
    report("clocks: monotonic: %s", yes(ordered));
    struct timeval day;
    report(", wall %d", clock_gettime(CLOCK_REALTIME, &wall));
    report(", plausible: %s", yes(wall.tv_sec > 1700000000 && wall.tv_nsec < 1000000000));
    report(", gettimeofday %d", gettimeofday(&day, NULL));
    report(", agrees: %s, time agrees: %s", yes(day.tv_sec - wall.tv_sec <= 2), yes(time(NULL) - wall.tv_sec <= 2));
    report(", coarse %d, resolution %d", clock_gettime(CLOCK_MONOTONIC_COARSE, &coarse),
           clock_getres(CLOCK_MONOTONIC, &resolution));
    report(", by system call %ld, bad clock %ld\n", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now),
           failed(syscall(SYS_clock_gettime, 12345, &now)));

    unsigned char one[256], two[256] = {0};
    report("getrandom: %zd %zd", getrandom(one, sizeof one, 0), getrandom(two, sizeof two, GRND_NONBLOCK));
    report(", differ: %s, bad flags %ld, bad address %ld\n", yes(memcmp(one, two, sizeof one) != 0),
           failed(getrandom(one, 1, 0x7000)), failed(syscall(SYS_getrandom, 16, 16, 0)));
}

static void system_and_files(const char *program) {
    struct utsname names;
    report("uname %d", uname(&names));
    report(": %s %s\n", names.sysname, names.machine);

    char path[4096];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    path[size > 0 ? size : 0] = 0;
    const char *slash = strrchr(program, '/'), *own = slash ? slash + 1 : program, *found = strrchr(path, '/');
    report("/proc/self/exe: absolute: %s, own name: %s, into 3 bytes %zd", yes(path[0] == '/'),
           yes(found && strcmp(own, found + 1) == 0), readlink("/proc/self/exe", path, 3));
    report(", none %ld, bad address %ld\n", failed(readlink("/no/such/file", path, 10)),
           failed(syscall(SYS_readlink, 16, path, 10)));

    fflush(stdout);
    static const char line[] = "write and writev\n";
    struct iovec parts[] = {{(void *)"write", 5}, {NULL, 0}, {(void *)" and writev\n", 12}};
    ssize_t written = write(1, line, sizeof line - 1), gathered = writev(1, parts, 3);
    report("write %zd, writev %zd, nothing %zd", written, gathered, write(1, line, 0));
    report(", bad fd %ld, bad address %ld, bad count %ld", failed(write(77, line, 1)),
           failed(syscall(SYS_write, 1, 16, 1)), failed(syscall(SYS_writev, 1, parts, -1)));
    report(", end of input %zd, terminal %d\n", read(0, path, 1), isatty(1));
}

static int compare(const void *left, const void *right) { return *(const int *)left - *(const int *)right; }

static void arithmetic(void) {
    static jmp_buf back;
    volatile int jumps = 0;
    if (setjmp(back) < 3) longjmp(back, ++jumps);
    int numbers[1000];
    for (int i = 0; i < 1000; ++i)
        numbers[i] = i * 7919 % 1000;
    qsort(numbers, 1000, sizeof *numbers, compare);
    int sorted = 1;
    for (int i = 0; i < 1000; ++i)
        sorted &= numbers[i] == i;
    volatile double two = 2.0, third = 1.0 / 3.0;
    volatile long double wide = 1.0L / 3.0L;
    // Arithmetic that every CPU does alike, whatever variant of a function the C library chooses.
    report("longjmp %d, qsort: %s, sqrt %.17g, third %.17g, wide %.21Lg, strtod %.17g\n", jumps, yes(sorted), sqrt(two),
           third, wide, strtod("0.1e1", NULL));
}

int main(int argc, char **argv) {
    start_up(argc, argv);
    allocations();
    mappings();
    program_break();
    strings_at_page_ends();
    report("stack: %llu frames of 4 KiB\n", (unsigned long long)deep(500));
    time_and_chance();
    system_and_files(argv[0]);
    arithmetic();
    report_serve();
}
