// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The inventory of state that a request can change, seen from inside the program: for each entry, how to
// change it and how to tell. The value that an entry shows must be the same in each request of a worker
// that resets, whatever earlier requests did.
//
// Showing an entry may scribble on memory that reset must restore too; it never allocates.

#define _GNU_SOURCE
#include "faults.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#define BOOT_VALUE UINT64_C(0xb007)
#define DIRTY_VALUE UINT64_C(0xd127d127)
#define NOT_MAPPED UINT64_C(0xdead)
#define NEW_MAPPING UINT64_C(0x5a5a00000000) // Nothing is mapped there at boot.
#define BREAK_SIZE (8 * FAULTS_PAGE)

// One page each of one mapping, so that changing one splits it.
enum page {
    PAGE_WRITE,
    PAGE_UNMAP,
    PAGE_PROTECT_READ,
    PAGE_PROTECT_NONE,
    PAGE_MAKE_WRITABLE, // Read-only at boot.
    PAGE_REPLACE,
    PAGE_DISCARD,
    PAGE_MOVE,
    PAGE_GUARD, // The last, never touched again.
    PAGE_COUNT
};

static volatile uint64_t data_value = BOOT_VALUE;
static volatile uint64_t bss_value;
static _Thread_local volatile uint64_t tls_value = BOOT_VALUE;
static volatile uint64_t *heap_value;
static volatile uint64_t *stack_value;
static unsigned char *pages;
static uint64_t break_end;
static const struct mayfly_request *request; // The request whose state is shown.

// -- Memory --

static void write_data(void) { data_value = DIRTY_VALUE; }
static uint64_t see_data(void) { return data_value; }
static void write_bss(void) { bss_value = DIRTY_VALUE; }
static uint64_t see_bss(void) { return bss_value; }
static void write_tls(void) { tls_value = DIRTY_VALUE; }
static uint64_t see_tls(void) { return tls_value; }
static void write_heap(void) { *heap_value = DIRTY_VALUE; }
static uint64_t see_heap(void) { return *heap_value; }
static void write_stack(void) { *stack_value = DIRTY_VALUE; }
static uint64_t see_stack(void) { return *stack_value; }

// What the allocator does next shows its bookkeeping.
static uint64_t see_malloc(void) {
    void *block = malloc(48);
    uint64_t address = (uint64_t)(uintptr_t)block;
    free(block);
    return address;
}
static void spoil_malloc(void) {
    for (int i = 0; i < 64; ++i) {
        volatile char *block = malloc(48);
        if (block) *block = 1;
    }
}

static unsigned char *page_at(enum page page) { return pages + page * FAULTS_PAGE; }

static uint64_t see_page(enum page page) {
    uint64_t address = address_of(page_at(page));
    if (!readable(address)) return NOT_MAPPED;
    uint64_t value = *(volatile uint64_t *)page_at(page);
    return value << 8 | (uint64_t)writable(address + 64);
}

static void dirty_page(enum page page) { *(volatile uint64_t *)page_at(page) = DIRTY_VALUE; }

static void page_write(void) { dirty_page(PAGE_WRITE); }
static uint64_t see_page_write(void) { return see_page(PAGE_WRITE); }
static void page_unmap(void) { munmap(page_at(PAGE_UNMAP), FAULTS_PAGE); }
static uint64_t see_page_unmap(void) { return see_page(PAGE_UNMAP); }
static void page_protect_read(void) { mprotect(page_at(PAGE_PROTECT_READ), FAULTS_PAGE, PROT_READ); }
static uint64_t see_page_protect_read(void) { return see_page(PAGE_PROTECT_READ); }
static void page_protect_none(void) { mprotect(page_at(PAGE_PROTECT_NONE), FAULTS_PAGE, PROT_NONE); }
static uint64_t see_page_protect_none(void) { return see_page(PAGE_PROTECT_NONE); }
static void page_make_writable(void) {
    if (mprotect(page_at(PAGE_MAKE_WRITABLE), FAULTS_PAGE, PROT_READ | PROT_WRITE) == 0) dirty_page(PAGE_MAKE_WRITABLE);
}
static uint64_t see_page_make_writable(void) { return see_page(PAGE_MAKE_WRITABLE); }
static void page_replace(void) {
    mmap(page_at(PAGE_REPLACE), FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}
static uint64_t see_page_replace(void) { return see_page(PAGE_REPLACE); }
static void page_discard(void) { madvise(page_at(PAGE_DISCARD), FAULTS_PAGE, MADV_DONTNEED); }
static uint64_t see_page_discard(void) { return see_page(PAGE_DISCARD); }
static void page_move(void) {
    mremap(page_at(PAGE_MOVE), FAULTS_PAGE, FAULTS_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
           (void *)(NEW_MAPPING + 64 * FAULTS_PAGE));
}
static uint64_t see_page_move(void) { return see_page(PAGE_MOVE); }

static void map_new(void) {
    volatile unsigned char *at = mmap((void *)NEW_MAPPING, 16 * FAULTS_PAGE, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (at == MAP_FAILED) return;
    for (size_t i = 0; i < 16; ++i)
        at[i * FAULTS_PAGE] = 0xd1;
}
static uint64_t see_new(void) {
    if (!readable(NEW_MAPPING)) return NOT_MAPPED;
    return *(volatile uint64_t *)NEW_MAPPING;
}

// Where the kernel would put the next mapping.
static void map_anywhere(void) {
    mmap(NULL, 256 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static uint64_t see_anywhere(void) {
    void *at = mmap(NULL, FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return NOT_MAPPED;
    munmap(at, FAULTS_PAGE);
    return (uint64_t)(uintptr_t)at;
}

static void grow_break(void) {
    if (CALL(SYS_brk, break_end + 64 * FAULTS_PAGE, 0, 0) < (int64_t)break_end) return;
    for (size_t i = 0; i < 64; ++i)
        *(volatile uint64_t *)(break_end + i * FAULTS_PAGE) = DIRTY_VALUE;
}
static void shrink_break(void) { CALL(SYS_brk, break_end - BREAK_SIZE / 2, 0, 0); }
static uint64_t see_break(void) { return (uint64_t)CALL(SYS_brk, 0, 0, 0); }
static uint64_t see_break_content(void) {
    uint64_t last = break_end - FAULTS_PAGE;
    return readable(last) ? *(volatile uint64_t *)last : NOT_MAPPED;
}
// Shrinks and grows again: the pages must be zero now, and what they were after the reset.
static void cycle_break(void) {
    shrink_break();
    CALL(SYS_brk, break_end, 0, 0);
}

// Whether the doorbell returns: a word of the host's, in the line in front of the request. A wrong ring makes it
// return.
static uint64_t see_doorbell_mode(void) { return *(const volatile uint32_t *)((uintptr_t)request - 64); }
static void ring_wrongly(void) {
    const struct ring ring = {UINT64_MAX, NULL, MAYFLY_ABI, host->doorbell, 0};
    faults_ring(&ring);
}

// Bytes of earlier requests behind the present one.
static uint64_t see_inbox_tail(void) {
    uintptr_t end = (uintptr_t)(request + 1);
    const struct mayfly_bytes *parts[] = {&request->method, &request->path, &request->query, &request->body};
    uintptr_t headers = (uintptr_t)(request->headers + request->header_count);
    if (request->header_count && headers > end) end = headers;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
        uintptr_t after = (uintptr_t)parts[i]->data + parts[i]->size;
        if (after > end) end = after;
    }
    for (uint32_t i = 0; i < request->header_count; ++i) {
        uintptr_t after = (uintptr_t)request->headers[i].value.data + request->headers[i].value.size;
        if (after > end) end = after;
    }
    uint64_t found = 0;
    for (; found < 1000000; ++end) {
        if (end % FAULTS_PAGE == 0 && !readable(end)) break;
        if (*(const volatile unsigned char *)end) ++found;
    }
    return found;
}

// -- The kernel's memory of us --

static void fd_close(void) { CALL(SYS_close, 1, 0, 0); }
static uint64_t see_fd(void) { return (uint64_t)CALL(SYS_fcntl, 1, F_GETFL, 0); }
static void fd_dup(void) { CALL(SYS_dup, 2, 0, 0); }
static uint64_t see_fd_lowest(void) {
    int64_t fd = CALL(SYS_dup, 2, 0, 0);
    if (fd >= 0) CALL(SYS_close, fd, 0, 0);
    return (uint64_t)fd;
}

struct kernel_sigaction {
    uint64_t handler, flags, restorer, mask;
};

// A file that the boot has written, with a descriptor in its middle.
#define STATE_FILE "/tmp/state-of-the-boot"
// One that requests make.
#define REQUEST_FILE "/tmp/state-of-a-request"
static int64_t state_file = -1;
static void file_seek(void) { CALL(SYS_lseek, state_file, 1, SEEK_SET); }
static uint64_t see_file_offset(void) { return (uint64_t)CALL(SYS_lseek, state_file, 0, SEEK_CUR); }
static void file_write(void) {
    uint64_t value = DIRTY_VALUE;
    call6(SYS_pwrite64, (uint64_t)state_file, (uint64_t)(uintptr_t)&value, sizeof value, 4, 0, 0);
}
static uint64_t see_file_content(void) {
    uint64_t words[2] = {0, 0};
    int64_t size = call6(SYS_pread64, (uint64_t)state_file, (uint64_t)(uintptr_t)words, sizeof words, 0, 0, 0);
    return (words[0] ^ words[1] * 3) + (uint64_t)size;
}
static void file_make(void) {
    int64_t fd = CALL(SYS_open, REQUEST_FILE, O_WRONLY | O_CREAT, 0600);
    if (fd >= 0) CALL(SYS_close, fd, 0, 0);
}
static uint64_t see_file_made(void) { return (uint64_t)CALL(SYS_access, REQUEST_FILE, 0, 0); }
static void file_remove(void) { CALL(SYS_unlink, STATE_FILE, 0, 0); }
static uint64_t see_file_removed(void) { return (uint64_t)CALL(SYS_access, STATE_FILE, 0, 0); }
// A lock of the boot's open file, which another open file meets.
static void file_lock(void) { CALL(SYS_flock, state_file, LOCK_EX | LOCK_NB, 0); }
static uint64_t see_file_lock(void) {
    int64_t fd = CALL(SYS_open, STATE_FILE, O_RDONLY, 0);
    if (fd < 0) return (uint64_t)fd;
    int64_t result = CALL(SYS_flock, fd, LOCK_SH | LOCK_NB, 0);
    CALL(SYS_close, fd, 0, 0);
    return (uint64_t)result;
}
static void range_lock(void) {
    struct flock lock = {.l_type = F_WRLCK, .l_start = 3, .l_len = 4};
    CALL(SYS_fcntl, state_file, F_OFD_SETLK, &lock);
}
static uint64_t see_range_lock(void) {
    struct flock lock = {.l_type = F_RDLCK};
    int64_t fd = CALL(SYS_open, STATE_FILE, O_RDONLY, 0);
    if (fd < 0) return (uint64_t)fd;
    int64_t error = CALL(SYS_fcntl, fd, F_OFD_GETLK, &lock);
    CALL(SYS_close, fd, 0, 0);
    return error ? (uint64_t)error : (uint64_t)lock.l_type << 32 | (uint64_t)lock.l_start;
}
// The time of a directory that is no file of the program's own.
static uint64_t see_directory_time(void) {
    struct stat seen = {0};
    int64_t error = CALL(SYS_stat, "/tmp", &seen, 0);
    return error ? (uint64_t)error : (uint64_t)seen.st_mtim.tv_sec * 1000000000 + (uint64_t)seen.st_mtim.tv_nsec;
}
static void directory_touch(void) {
    CALL(SYS_mkdir, "/tmp/touched", 0700, 0);
    CALL(SYS_rmdir, "/tmp/touched", 0, 0);
}
// The name of a Unix socket, and a file of shared memory.
#define SOCKET_FILE "/tmp/socket-of-a-request"
#define SHARED_FILE "/dev/shm/of-a-request"
static void socket_bind(void) {
    static const struct sockaddr_un name = {AF_UNIX, SOCKET_FILE};
    int64_t fd = CALL(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    CALL(SYS_bind, fd, &name, sizeof name);
    CALL(SYS_close, fd, 0, 0);
}
// A datagram socket of the snapshot.
static int64_t inbox;
static const struct sockaddr_un inbox_name = {AF_UNIX, "\0inbox"};
static void message_send(void) {
    int64_t fd = CALL(SYS_socket, AF_UNIX, SOCK_DGRAM, 0);
    CALL(SYS_connect, fd, &inbox_name, sizeof inbox_name);
    CALL(SYS_write, fd, "message", 7);
    CALL(SYS_close, fd, 0, 0);
}
static uint64_t see_message(void) {
    int size = -1;
    CALL(SYS_ioctl, inbox, FIONREAD, &size);
    return (uint64_t)size;
}
#define FIFO_FILE "/tmp/fifo-of-a-request"
static void fifo_make(void) { CALL(SYS_mknod, FIFO_FILE, S_IFIFO | 0600, 0); }
static uint64_t see_fifo(void) { return (uint64_t)CALL(SYS_access, FIFO_FILE, 0, 0); }
static uint64_t see_socket(void) { return (uint64_t)CALL(SYS_access, SOCKET_FILE, 0, 0); }
static void shared_make(void) {
    int64_t fd = CALL(SYS_open, SHARED_FILE, O_WRONLY | O_CREAT, 0600);
    if (fd >= 0) CALL(SYS_close, fd, 0, 0);
}
static uint64_t see_shared(void) { return (uint64_t)CALL(SYS_access, SHARED_FILE, 0, 0); }
// A number in a file of /proc/self, behind a label.
static uint64_t told(const char *path, const char *label) {
    static char text[4096];
    int64_t fd = CALL(SYS_open, path, O_RDONLY, 0);
    int64_t size = CALL(SYS_read, fd, text, sizeof text - 1);
    CALL(SYS_close, fd, 0, 0);
    if (size < 0) return (uint64_t)size;
    text[size] = 0;
    const char *at = strstr(text, label);
    return at ? strtoul(at + strlen(label), NULL, 10) : 0;
}
static void count_writes(void) {
    int64_t fd = CALL(SYS_open, "/dev/null", O_WRONLY, 0);
    CALL(SYS_write, fd, STATE_FILE, 5);
    CALL(SYS_close, fd, 0, 0);
}
static uint64_t see_writes(void) { return told("/proc/self/io", "wchar: "); }
static void grow_peak(void) {
    const uint64_t size = 8 << 20;
    int64_t block = call6(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
    for (uint64_t at = 0; block > 0 && at < size; at += FAULTS_PAGE)
        *(volatile char *)(uintptr_t)((uint64_t)block + at) = 1;
    told("/proc/self/status", "VmHWM:");
    CALL(SYS_munmap, block, size, 0);
}
// In units of 4 MiB: requests touch different pages of the stack.
static uint64_t see_peak(void) { return told("/proc/self/status", "VmHWM:") >> 12; }
// A file without a name that the boot has mapped twice.
static int64_t view_file = -1;
static volatile uint64_t *views[2];
static void view_write(void) { *views[0] = DIRTY_VALUE; }
static uint64_t see_view(void) { return *views[1]; }
static void view_punch(void) {
    call6(SYS_fallocate, (uint64_t)view_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FAULTS_PAGE, FAULTS_PAGE, 0,
          0);
}
static uint64_t see_punched(void) { return views[1][FAULTS_PAGE / sizeof **views]; }
static void set_handler(void) {
    struct kernel_sigaction action = {1 /* SIG_IGN */, 0, 0, 0};
    call6(SYS_rt_sigaction, SIGUSR1, (uint64_t)(uintptr_t)&action, 0, 8, 0, 0);
}
static uint64_t see_handler(void) {
    struct kernel_sigaction action = {0, 0, 0, 0};
    int64_t error = call6(SYS_rt_sigaction, SIGUSR1, 0, (uint64_t)(uintptr_t)&action, 8, 0, 0);
    return error ? (uint64_t)error : action.handler;
}
static void set_mask(void) {
    uint64_t mask = UINT64_C(1) << (SIGUSR2 - 1);
    call6(SYS_rt_sigprocmask, SIG_BLOCK, (uint64_t)(uintptr_t)&mask, 0, 8, 0, 0);
}
static uint64_t see_mask(void) {
    uint64_t mask = 0;
    int64_t error = call6(SYS_rt_sigprocmask, SIG_BLOCK, 0, (uint64_t)(uintptr_t)&mask, 8, 0, 0);
    return error ? (uint64_t)error : mask;
}
static void set_pending(void) {
    uint64_t mask = UINT64_C(1) << (SIGTERM - 1);
    call6(SYS_rt_sigprocmask, SIG_BLOCK, (uint64_t)(uintptr_t)&mask, 0, 8, 0, 0);
    CALL(SYS_kill, CALL(SYS_getpid, 0, 0, 0), SIGTERM, 0);
}
static uint64_t see_pending(void) {
    uint64_t set = 0;
    int64_t error = CALL(SYS_rt_sigpending, &set, 8, 0);
    return error ? (uint64_t)error : set;
}
static void set_timer(void) {
    int timer = 0;
    CALL(SYS_timer_create, CLOCK_MONOTONIC, 0, &timer);
}
static uint64_t see_timer(void) { return (uint64_t)CALL(SYS_timer_getoverrun, 0, 0, 0); }
static void set_altstack(void) {
    stack_t stack = {.ss_sp = page_at(PAGE_GUARD), .ss_size = FAULTS_PAGE};
    CALL(SYS_sigaltstack, &stack, 0, 0);
}
static uint64_t see_altstack(void) {
    stack_t stack = {.ss_size = 0};
    int64_t error = CALL(SYS_sigaltstack, 0, &stack, 0);
    return error ? (uint64_t)error : stack.ss_size;
}
static void set_umask(void) { CALL(SYS_umask, 0123, 0, 0); }
static uint64_t see_umask(void) {
    int64_t mask = CALL(SYS_umask, 0, 0, 0);
    if (mask >= 0) CALL(SYS_umask, mask, 0, 0);
    return (uint64_t)mask;
}
static void set_limit(void) {
    struct rlimit limit = {17, 19};
    call6(SYS_prlimit64, 0, RLIMIT_CORE, (uint64_t)(uintptr_t)&limit, 0, 0, 0);
}
static uint64_t see_limit(void) {
    struct rlimit limit = {0, 0};
    int64_t error = call6(SYS_prlimit64, 0, RLIMIT_CORE, 0, (uint64_t)(uintptr_t)&limit, 0, 0);
    return error ? (uint64_t)error : limit.rlim_cur << 16 | (limit.rlim_max & 0xffff);
}
static void set_name(void) { call6(SYS_prctl, PR_SET_NAME, (uint64_t)(uintptr_t) "dirty", 0, 0, 0, 0); }
static uint64_t see_name(void) {
    uint64_t name[2] = {0, 0};
    int64_t error = call6(SYS_prctl, PR_GET_NAME, (uint64_t)(uintptr_t)name, 0, 0, 0, 0);
    return error ? (uint64_t)error : name[0];
}
static void set_directory(void) { CALL(SYS_chdir, "/proc", 0, 0); }
static uint64_t see_directory(void) {
    char path[FAULTS_PAGE] = {0};
    int64_t size = CALL(SYS_getcwd, path, sizeof path, 0);
    uint64_t sum = (uint64_t)size;
    for (const char *c = path; size > 0 && *c; ++c)
        sum = sum * 31 + (unsigned char)*c;
    return sum;
}
static void set_alarm(void) { CALL(SYS_alarm, 100000, 0, 0); }
static uint64_t see_alarm(void) {
    int64_t left = CALL(SYS_alarm, 0, 0, 0);
    if (left > 0) CALL(SYS_alarm, left, 0, 0);
    return left > 0 ? 1 : (uint64_t)left;
}

static void set_profile(void) {
    struct itimerval far = {{7, 0}, {100000, 0}};
    CALL(SYS_setitimer, ITIMER_PROF, &far, 0);
}
static uint64_t see_profile(void) {
    struct itimerval left = {{0, 0}, {0, 0}};
    int64_t error = CALL(SYS_getitimer, ITIMER_PROF, &left, 0);
    return error ? (uint64_t)error : (uint64_t)left.it_interval.tv_sec;
}

// -- The processor, as it was when the doorbell returned --

static uint64_t hash(const void *bytes, size_t size) {
    uint64_t value = UINT64_C(0xcbf29ce484222325); // FNV-1a
    for (size_t i = 0; i < size; ++i)
        value = (value ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001b3);
    return value;
}

// Offset of a component in the standard form of the XSAVE area.
static uint64_t hash_component(uint32_t component) {
    uint32_t size = 0, offset = 0, c, d;
    if (!(faults_features & CPU_HAS_XSAVE)) return 0;
    __cpuid_count(0xd, component, size, offset, c, d);
    if (size == 0 || offset < 576 || (uint64_t)offset + size > sizeof faults_xsave) return 0;
    return hash(faults_xsave + offset, size);
}

static uint64_t see_general(void) { return hash(faults_seen.general, sizeof faults_seen.general); }
static uint64_t see_rsp(void) { return faults_seen.rsp; }
static uint64_t see_flags(void) { return faults_seen.flags & ~UINT64_C(0x10000); /* RF is the debugger's. */ }
static uint64_t see_data_seg(void) { return faults_seen.selectors[0] << 16 | faults_seen.selectors[1]; }
static uint64_t see_thread_seg(void) { return faults_seen.selectors[2] << 16 | faults_seen.selectors[3]; }
static uint64_t see_fs_base(void) { return faults_seen.fs_base; }
static uint64_t see_gs_base(void) { return faults_seen.gs_base; }
// FCW FSW FTW and the registers.
static uint64_t see_x87(void) { return hash(faults_xsave, 5) ^ hash(faults_xsave + 32, 128); }
// Address and opcode of the last x87 instruction; some CPUs save these only with a pending exception.
static uint64_t see_x87_pointers(void) { return hash(faults_xsave + 6, 18); }
static uint64_t see_mxcsr(void) {
    uint32_t value;
    memcpy(&value, faults_xsave + 24, sizeof value);
    return value;
}
static uint64_t see_sse(void) { return hash(faults_xsave + 160, 256); }
static uint64_t see_avx(void) { return faults_features & CPU_HAS_AVX ? hash_component(2) : 0; }
static uint64_t see_avx512(void) {
    if (!(faults_features & CPU_HAS_AVX512)) return 0;
    return hash_component(5) ^ hash_component(6) * 3 ^ hash_component(7) * 5;
}

// -- The table --

static const struct state {
    const char *name;
    void (*dirty)(void); // May be NULL.
    uint64_t (*see)(void);
    uint32_t spoil; // Of enum cpu_part: what ring.S does besides.
} states[] = {
    {"data", write_data, see_data, 0},
    {"bss", write_bss, see_bss, 0},
    {"tls", write_tls, see_tls, 0},
    {"heap", write_heap, see_heap, 0},
    {"malloc", spoil_malloc, see_malloc, 0},
    {"stack", write_stack, see_stack, 0},
    {"page-write", page_write, see_page_write, 0},
    {"page-unmap", page_unmap, see_page_unmap, 0},
    {"page-protect-read", page_protect_read, see_page_protect_read, 0},
    {"page-protect-none", page_protect_none, see_page_protect_none, 0},
    {"page-make-writable", page_make_writable, see_page_make_writable, 0},
    {"page-replace", page_replace, see_page_replace, 0},
    {"page-discard", page_discard, see_page_discard, 0},
    {"page-move", page_move, see_page_move, 0},
    {"map-new", map_new, see_new, 0},
    {"map-anywhere", map_anywhere, see_anywhere, 0},
    {"break-grow", grow_break, see_break, 0},
    {"break-shrink", shrink_break, see_break, 0},
    {"break-content", cycle_break, see_break_content, 0},
    {"inbox-tail", NULL, see_inbox_tail, 0},
    {"doorbell-mode", ring_wrongly, see_doorbell_mode, 0},
    {"fd-close", fd_close, see_fd, 0},
    {"fd-dup", fd_dup, see_fd_lowest, 0},
    {"file-offset", file_seek, see_file_offset, 0},
    {"file-content", file_write, see_file_content, 0},
    {"file-made", file_make, see_file_made, 0},
    {"file-removed", file_remove, see_file_removed, 0},
    {"file-lock", file_lock, see_file_lock, 0},
    {"range-lock", range_lock, see_range_lock, 0},
    {"directory-time", directory_touch, see_directory_time, 0},
    {"socket-file", socket_bind, see_socket, 0},
    {"datagram", message_send, see_message, 0},
    {"fifo", fifo_make, see_fifo, 0},
    {"shared-file", shared_make, see_shared, 0},
    {"io-figures", count_writes, see_writes, 0},
    {"peak-memory", grow_peak, see_peak, 0},
    {"file-view", view_write, see_view, 0},
    {"file-punched", view_punch, see_punched, 0},
    {"signal-handler", set_handler, see_handler, 0},
    {"signal-mask", set_mask, see_mask, 0},
    {"signal-pending", set_pending, see_pending, 0},
    {"signal-stack", set_altstack, see_altstack, 0},
    {"umask", set_umask, see_umask, 0},
    {"limit", set_limit, see_limit, 0},
    {"thread-name", set_name, see_name, 0},
    {"directory", set_directory, see_directory, 0},
    {"alarm", set_alarm, see_alarm, 0},
    {"timer", set_timer, see_timer, 0},
    {"timer-cpu", set_profile, see_profile, 0},
    {"cpu-general", NULL, see_general, CPU_GENERAL},
    {"cpu-stack", NULL, see_rsp, CPU_STACK},
    {"cpu-flags", NULL, see_flags, CPU_FLAGS},
    {"cpu-data-seg", NULL, see_data_seg, CPU_DATA_SEG},
    {"cpu-thread-seg", NULL, see_thread_seg, CPU_THREAD_SEG},
    {"cpu-fs-base", NULL, see_fs_base, CPU_FS_BASE},
    {"cpu-fs-base-call", NULL, see_fs_base, CPU_FS_BASE_CALL},
    {"cpu-gs-base", NULL, see_gs_base, CPU_GS_BASE},
    {"cpu-gs-base-call", NULL, see_gs_base, CPU_GS_BASE_CALL},
    {"cpu-x87", NULL, see_x87, CPU_X87},
    {"cpu-x87-pointers", NULL, see_x87_pointers, CPU_X87},
    {"cpu-mxcsr", NULL, see_mxcsr, CPU_MXCSR},
    {"cpu-sse", NULL, see_sse, CPU_VECTORS},
    {"cpu-avx", NULL, see_avx, CPU_VECTORS},
    {"cpu-avx512", NULL, see_avx512, CPU_VECTORS},
};

#define STATE_COUNT (sizeof states / sizeof *states)

void state_prepare(void) {
    heap_value = malloc(sizeof *heap_value);
    if (heap_value) *heap_value = BOOT_VALUE;
    // A page of the stack that the boot leaves alone.
    stack_value =
        (volatile uint64_t *)(((uintptr_t)__builtin_frame_address(0) - 16 * FAULTS_PAGE) & ~(FAULTS_PAGE - 1));

    pages = mmap(NULL, PAGE_COUNT * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < PAGE_COUNT; ++i)
        *(volatile uint64_t *)(pages + i * FAULTS_PAGE) = BOOT_VALUE + i;
    mprotect(page_at(PAGE_MAKE_WRITABLE), FAULTS_PAGE, PROT_READ);

    uint64_t value = BOOT_VALUE;
    // Left behind where there is no reset.
    CALL(SYS_unlink, REQUEST_FILE, 0, 0);
    CALL(SYS_unlink, SOCKET_FILE, 0, 0);
    CALL(SYS_unlink, FIFO_FILE, 0, 0);
    CALL(SYS_unlink, SHARED_FILE, 0, 0);
    state_file = CALL(SYS_open, STATE_FILE, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CALL(SYS_write, state_file, &value, sizeof value);
    inbox = CALL(SYS_socket, AF_UNIX, SOCK_DGRAM, 0);
    CALL(SYS_bind, inbox, &inbox_name, sizeof inbox_name);
    view_file = CALL(SYS_memfd_create, "views", 0, 0);
    CALL(SYS_ftruncate, view_file, 2 * FAULTS_PAGE, 0);
    for (size_t i = 0; i < 2; ++i)
        views[i] = mmap(NULL, 2 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (int)view_file, 0);
    views[0][0] = views[1][FAULTS_PAGE / sizeof **views] = BOOT_VALUE;

    // A piece of break of our own behind malloc's, which copes.
    uint64_t start = ((uint64_t)CALL(SYS_brk, 0, 0, 0) + FAULTS_PAGE - 1) & ~(FAULTS_PAGE - 1);
    break_end = (uint64_t)CALL(SYS_brk, start + BREAK_SIZE, 0, 0);
    for (uint64_t at = start; at + FAULTS_PAGE <= break_end; at += FAULTS_PAGE)
        *(volatile uint64_t *)at = BOOT_VALUE;

    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE)) {
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        faults_features |= CPU_HAS_XSAVE;
        if ((c & bit_AVX) && (low & 6) == 6) faults_features |= CPU_HAS_AVX;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX512F) && (low & 0xe6) == 0xe6)
            faults_features |= CPU_HAS_AVX512;
    }
    // HWCAP2_FSGSBASE: the kernel has switched the instructions on.
    if (getauxval(AT_HWCAP2) & 2) faults_features |= CPU_HAS_FSGSBASE;
}

static void state_now(struct act *act) {
    if (!act->request) return;
    request = act->request;
    // Looking may not change what a later entry shows: what looks by changing puts back what it changed.
    for (size_t i = 0; i < STATE_COUNT; ++i)
        say("%s %llx\n", states[i].name, (unsigned long long)states[i].see());
}

void processor_state(void) {
    for (size_t i = 0; i < STATE_COUNT; ++i)
        if (strncmp(states[i].name, "cpu-", 4) == 0)
            say("%s %llx\n", states[i].name, (unsigned long long)states[i].see());
}

static void processor_now(struct act *act) {
    (void)act;
    processor_state();
}

static void state_names(struct act *act) {
    (void)act;
    for (size_t i = 0; i < STATE_COUNT; ++i)
        say("%s\n", states[i].name);
}

static void state_dirty(struct act *act) {
    int all = strcmp(act->rest, "all") == 0, found = all;
    for (size_t i = 0; i < STATE_COUNT; ++i) {
        if (!all && strcmp(act->rest, states[i].name) != 0) continue;
        found = 1;
        if (states[i].dirty) states[i].dirty();
        act->ring.spoil |= states[i].spoil;
    }
    if (!found) act->response.status = 404;
    state_now(act);
}

const struct behaviour state_behaviours[] = {
    {"processor", processor_now}, {"states", state_names}, {"state", state_now}, {"dirty-", state_dirty}, {NULL, NULL},
};
