// SPDX-License-Identifier: MIT OR Apache-2.0
// memfd, shared mappings of written files, seals, and copies between files.
#include "say.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

static sigjmp_buf back;
static void caught(int number) { siglongjmp(back, number); }

// The signal that a read of this address causes, or the byte.
static long at(volatile char *address) {
    int number = sigsetjmp(back, 1);
    return number ? -number : *address;
}

static long sum(int fd) {
    static unsigned char bytes[1 << 16];
    long got = pread(fd, bytes, sizeof bytes, 0), total = 0;
    for (long i = 0; i < got; i++)
        total = total * 31 + bytes[i];
    return got < 0 ? got : total;
}

static void making(void) {
    char name[300];
    memset(name, 'a', sizeof name);
    name[250] = 0;
    SAY(memfd_create(name, 0));
    name[249] = 0;
    int fd = memfd_create(name, MFD_CLOEXEC);
    SAY(fcntl(fd, F_GETFD));
    SAY(fcntl(fd, F_GETFL));
    SAY(close(fd));
    SAY(memfd_create("x", 0x80));
    SAY(memfd_create(UNMAPPED, 0));
    fd = memfd_create("a name", 0);
    struct stat stat;
    SAY(fstat(fd, &stat));
    printf("size %ld mode %o links %ld\n", (long)stat.st_size, stat.st_mode, (long)stat.st_nlink);
    char link[32], path[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    SAY(readlink(link, path, sizeof path));
    printf("%s\n", path);
    SAY(write(fd, "hello", 5));
    SAY(lseek(fd, 0, SEEK_CUR));
    SAY(pread(fd, path, 10, 1));
    SAY(ftruncate(fd, 3));
    SAY(lseek(fd, 0, SEEK_END));
    SAY(fcntl(fd, F_GET_SEALS));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    // The same file, opened once more.
    int again = open(link, O_RDWR);
    SAY(again >= 0);
    SAY(pread(again, path, 10, 0));
    SAY(close(fd));
    SAY(pread(again, path, 10, 0));
    SAY(close(again));
    SAY(fcntl(0, F_GET_SEALS));
}

static void sharing(int fd) {
    SAY(ftruncate(fd, 3 * PAGE + 100));
    char *all = mmap(NULL, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    SAY(all != MAP_FAILED);
    SAY(at(all));
    SAY(at(all + 3 * PAGE + 200));
    SAY(at(all + 4 * PAGE));
    all[5] = 7;
    all[PAGE] = 8;
    SAY(sum(fd));
    SAY(pwrite(fd, "written", 7, 2 * PAGE - 3));
    SAY(at(all + 2 * PAGE));
    SAY(at(all + PAGE));
    SAY(sum(fd));
    // Bytes written outside of the mapping stay.
    all[2 * PAGE + 10] = 9;
    SAY(pwrite(fd, "x", 1, 2 * PAGE + 11));
    SAY(at(all + 2 * PAGE + 10));
    SAY(at(all + 2 * PAGE + 11));
    // Grown by a write, and by ftruncate.
    SAY(pwrite(fd, "end", 3, 4 * PAGE));
    SAY(at(all + 4 * PAGE));
    SAY(ftruncate(fd, PAGE + 10));
    SAY(at(all + PAGE + 9));
    SAY(at(all + 2 * PAGE));
    SAY(ftruncate(fd, 5 * PAGE));
    SAY(at(all + 2 * PAGE));
    all[PAGE + 20] = 3;
    SAY(sum(fd));
    // A private mapping has the present content, and keeps its own changes.
    char *own = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    SAY(at(own + 20));
    own[20] = 50;
    SAY(at(all + PAGE + 20));
    SAY(munmap(own, 2 * PAGE));
    SAY(madvise(all, PAGE, MADV_DONTNEED));
    SAY(at(all + 5));
    SAY(msync(all, 5 * PAGE, MS_SYNC));
    // A part is unmapped, and mapped again with its content.
    SAY(munmap(all + PAGE, PAGE));
    SAY(at(all + PAGE));
    SAY(sum(fd));
    SAY(mmap(all + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, PAGE) == all + PAGE);
    SAY(at(all + PAGE + 20));
    SAY(mprotect(all + PAGE, PAGE, PROT_READ | PROT_WRITE));
    all[PAGE + 21] = 4;
    SAY(pwrite(fd, "y", 1, PAGE + 22));
    SAY(sum(fd));
    // Another mapping in its place.
    SAY(mmap(all, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == all);
    SAY(at(all + 5));
    SAY(sum(fd));
    char *moved = mremap(all + 2 * PAGE, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, all + 16 * PAGE);
    SAY(moved == all + 16 * PAGE);
    moved[0] = 77;
    SAY(sum(fd));
    SAY(munmap(moved, 3 * PAGE));
    SAY(munmap(all, 2 * PAGE));
    SAY(sum(fd));
}

static void rights(int fd) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reader = open(link, O_RDONLY);
    SAY(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED ? errno : 0);
    char *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0);
    SAY(page != MAP_FAILED);
    SAY(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
    SAY(pwrite(fd, "z", 1, 3));
    SAY(at(page + 3));
    SAY(close(reader));
    SAY(close(fd));
    // The file exists while it is mapped.
    SAY(at(page + 3));
    SAY(munmap(page, PAGE));
}

static void sealing(void) {
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    char *page;
    SAY(fcntl(fd, F_GET_SEALS));
    SAY(ftruncate(fd, 2 * PAGE));
    SAY(fcntl(fd, F_ADD_SEALS, 1 << 20));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    SAY(ftruncate(fd, 3 * PAGE));
    SAY(pwrite(fd, "x", 1, 2 * PAGE));
    SAY(ftruncate(fd, PAGE));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    SAY(ftruncate(fd, 0));
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    page[0] = 1;
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SAY(munmap(page, PAGE));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SAY(write(fd, "x", 1));
    SAY(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0);
    page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    SAY(at(page));
    SAY(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    SAY(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    SAY(fcntl(fd, F_GET_SEALS));
    SAY(munmap(page, PAGE));
    SAY(close(fd));
}

static void copying(void) {
    int from = memfd_create("from", 0), to = memfd_create("to", 0), ends[2];
    char text[16] = "";
    loff_t at = 2, there = 4;
    SAY(write(from, "0123456789", 10));
    SAY(copy_file_range(from, NULL, to, NULL, 10, 0));
    SAY(copy_file_range(from, &at, to, NULL, 4, 0));
    printf("%ld %ld\n", (long)at, (long)lseek(to, 0, SEEK_CUR));
    SAY(copy_file_range(from, &at, to, &there, 100, 0));
    printf("%ld %ld %ld\n", (long)at, (long)there, (long)lseek(to, 0, SEEK_CUR));
    SAY(pread(to, text, 15, 0));
    printf("%s\n", text);
    SAY(copy_file_range(from, &at, to, NULL, 4, 7));
    at = -1;
    SAY(copy_file_range(from, &at, to, NULL, 4, 0));
    at = 0, there = 2;
    SAY(copy_file_range(from, &at, from, &there, 4, 0));
    there = 20;
    SAY(copy_file_range(from, &at, from, &there, 4, 0));
    SAY(lseek(from, 0, SEEK_END));
    SAY(copy_file_range(99, NULL, to, NULL, 4, 0));
    SAY(copy_file_range(from, UNMAPPED, to, NULL, 4, 0));
    SAY(pipe(ends));
    SAY(copy_file_range(from, NULL, ends[1], NULL, 4, 0));
    SAY(copy_file_range(ends[0], NULL, to, NULL, 4, 0));
    int directory = open("/", O_RDONLY);
    SAY(copy_file_range(directory, NULL, to, NULL, 4, 0));
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    signal(SIGBUS, caught);
    signal(SIGSEGV, caught);
    making();
    int fd = memfd_create("shared", 0);
    sharing(fd);
    rights(fd);
    char path[] = "/tmp/mayfly-memfd-XXXXXX";
    fd = mkstemp(path);
    SAY(unlink(path));
    sharing(fd);
    rights(fd);
    sealing();
    copying();
    return 0;
}
