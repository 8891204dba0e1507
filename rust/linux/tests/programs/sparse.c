// SPDX-License-Identifier: MIT OR Apache-2.0
// Files that are written page by page: over a file that was there, with holes, through several mappings. Called with a
// directory that has `base`, 60 pages of letters.
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
    static unsigned char bytes[70 * PAGE];
    long got = pread(fd, bytes, sizeof bytes, 0);
    unsigned long total = 0;
    for (long i = 0; i < got; i++)
        total = total * 31 + bytes[i];
    return got < 0 ? got : (long)(total >> 8);
}

static long size(int fd) {
    struct stat st;
    fstat(fd, &st);
    return st.st_size;
}

static long blocks(int fd) {
    struct stat st;
    fstat(fd, &st);
    return st.st_blocks;
}

static void over_a_file(void) {
    int early = open("base", O_RDONLY);
    char *shared = mmap(NULL, 62 * PAGE, PROT_READ, MAP_SHARED, early, 0);
    char *private = mmap(NULL, 62 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, early, 0);
    struct stat before, after;
    SAY(stat("base", &before));
    SAY(at(shared + 3 * PAGE));
    SAY(at(private + 3 * PAGE));
    private[45 * PAGE] = '!';
    int late = open("base", O_RDWR);
    SAY(stat("base", &after));
    SAY(before.st_ino == after.st_ino);
    SAY(sum(late));
    SAY(pwrite(late, "new", 3, 3 * PAGE));
    SAY(pwrite(late, "across", 6, 7 * PAGE - 3));
    SAY(pwrite(late, "5", 1, 45 * PAGE));
    SAY(at(shared + 3 * PAGE + 2));
    SAY(at(private + 3 * PAGE + 2));
    SAY(at(shared + 7 * PAGE));
    SAY(at(shared + 45 * PAGE));
    SAY(at(private + 45 * PAGE));
    SAY(sum(early));
    SAY(mprotect(shared, PAGE, PROT_READ | PROT_WRITE));
    // A second mapping, which can be written, and one of the middle.
    char *writable = mmap(NULL, 62 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, late, 0);
    char *middle = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, late, 10 * PAGE);
    SAY(at(middle + PAGE));
    writable[11 * PAGE] = '+';
    writable[12 * PAGE] = '-';
    SAY(at(middle + PAGE));
    SAY(at(shared + 11 * PAGE));
    SAY(sum(early));
    SAY(munmap(writable, 62 * PAGE));
    SAY(at(middle + PAGE));
    SAY(at(shared + 12 * PAGE));
    SAY(munmap(middle, 2 * PAGE));
    SAY(munmap(shared, 12 * PAGE));
    SAY(sum(early));
    int append = open("base", O_WRONLY | O_APPEND);
    SAY(write(append, "the end", 7));
    SAY(size(early));
    SAY(at(shared + 60 * PAGE + 6));
    SAY(truncate("base", 20 * PAGE + 5));
    SAY(at(shared + 20 * PAGE + 4));
    SAY(at(shared + 20 * PAGE + 5));
    SAY(at(shared + 21 * PAGE));
    SAY(at(private + 21 * PAGE));
    SAY(ftruncate(late, 30 * PAGE));
    SAY(at(shared + 20 * PAGE + 5));
    SAY(at(shared + 29 * PAGE));
    SAY(sum(early));
    // Renamed and removed while it is open.
    SAY(rename("base", "other"));
    SAY(pwrite(late, "renamed", 7, 0));
    SAY(sum(early));
    int third = open("other", O_RDONLY);
    SAY(sum(third));
    SAY(unlink("other"));
    SAY(pwrite(late, "removed", 7, 0));
    SAY(sum(third));
    SAY(at(shared + 20 * PAGE));
    SAY(close(early) | close(late) | close(third) | close(append));
}

static void emptied(void) {
    int early = open("second", O_RDONLY);
    char *shared = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, early, 0);
    SAY(at(shared + PAGE));
    int late = open("second", O_WRONLY | O_TRUNC);
    SAY(size(early));
    SAY(at(shared));
    SAY(pwrite(late, "x", 1, 2 * PAGE));
    SAY(at(shared));
    SAY(at(shared + 2 * PAGE));
    SAY(sum(early));
    SAY(close(early) | close(late));
}

static void holes(void) {
    int fd = memfd_create("holes", 0);
    SAY(ftruncate(fd, 1L << 40));
    SAY(blocks(fd));
    SAY(pwrite(fd, "a", 1, 5 * PAGE));
    SAY(pwrite(fd, "b", 1, 1L << 39));
    SAY(blocks(fd));
    SAY(lseek(fd, 0, SEEK_DATA));
    SAY(lseek(fd, 5 * PAGE + 10, SEEK_DATA));
    SAY(lseek(fd, 6 * PAGE, SEEK_DATA));
    SAY(lseek(fd, 0, SEEK_HOLE));
    SAY(lseek(fd, 5 * PAGE, SEEK_HOLE));
    SAY(lseek(fd, (1L << 39) + PAGE, SEEK_DATA));
    SAY(lseek(fd, 1L << 40, SEEK_HOLE));
    SAY(lseek(fd, (1L << 40) - 1, SEEK_HOLE));
    SAY(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, PAGE));
    SAY(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE));
    SAY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1L << 39, PAGE));
    SAY(lseek(fd, 6 * PAGE, SEEK_DATA));
    SAY(ftruncate(fd, 8 * PAGE));
    SAY(pwrite(fd, "0123456789", 10, 6 * PAGE - 5));
    SAY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6 * PAGE - 2, 4));
    SAY(sum(fd));
    SAY(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8 * PAGE, PAGE));
    SAY(size(fd));
    SAY(fallocate(fd, 0, 7 * PAGE, 3 * PAGE));
    SAY(size(fd));
    SAY(sum(fd));
    // Through a mapping, which a hole is punched into.
    char *all = mmap(NULL, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    all[PAGE] = 7, all[2 * PAGE] = 8, all[2 * PAGE + 100] = 9;
    SAY(lseek(fd, 0, SEEK_DATA));
    SAY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE + 50));
    SAY(at(all + PAGE));
    SAY(at(all + 2 * PAGE));
    SAY(at(all + 2 * PAGE + 100));
    SAY(sum(fd));
    SAY(ftruncate(fd, 1L << 62));
    SAY(size(fd));
    SAY(ftruncate(fd, 0x7fffffffffffffff));
    SAY(pwrite(fd, "x", 1, 0x7ffffffffffffffe));
    SAY(pwrite(fd, "xx", 2, 0x7ffffffffffffffe));
    SAY(pwrite(fd, "x", 1, 0x7fffffffffffffff));
    SAY(fallocate(fd, 0, 0x7fffffffffffff00, 0x1000));
    SAY(close(fd));
}

// One page of code, written at one address and run at another.
static void two_views(void) {
    int fd = memfd_create("code", 0);
    SAY(ftruncate(fd, 4 * PAGE));
    unsigned char *write_view = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *run_view = mmap(NULL, 4 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    SAY(write_view != run_view && run_view != MAP_FAILED);
    for (int round = 0; round < 3; round++) {
        // mov eax, round; ret
        unsigned char code[] = {0xb8, (unsigned char)(40 + round), 0, 0, 0, 0xc3};
        memcpy(write_view + round * PAGE, code, sizeof code);
        SAY(((int (*)(void))(run_view + round * PAGE))());
        // The view that writes goes, and comes again elsewhere.
        SAY(munmap(write_view + round * PAGE, PAGE));
        SAY(((int (*)(void))(run_view + round * PAGE))());
        unsigned char *again = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, round * PAGE);
        again[1] = (unsigned char)(60 + round);
        SAY(((int (*)(void))(run_view + round * PAGE))());
        unsigned char one = (unsigned char)(80 + round);
        SAY(pwrite(fd, &one, 1, round * PAGE + 1));
        SAY(((int (*)(void))(run_view + round * PAGE))());
        SAY(mprotect(again, PAGE, PROT_NONE));
        SAY(pread(fd, &one, 1, round * PAGE + 1));
        SAY(one);
        SAY(mprotect(again, PAGE, PROT_READ));
        SAY(again[1]);
    }
    // A ring: the same pages twice in a row.
    char *ring = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int pages = memfd_create("ring", 0);
    SAY(ftruncate(pages, 2 * PAGE));
    for (int half = 0; half < 2; half++)
        SAY(mmap(ring + half * 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, pages, 0) !=
            MAP_FAILED);
    memcpy(ring + 2 * PAGE - 4, "wrapped", 8);
    printf("%s %.4s\n", ring, ring + 4 * PAGE - 4);
    char *moved = mremap(ring, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, run_view);
    SAY(moved == (char *)run_view);
    ring[2 * PAGE] = 'W';
    SAY(moved[0]);
    SAY(munmap(ring + 2 * PAGE, 2 * PAGE));
    SAY(moved[0]);
    SAY(sum(pages));
}

int main(int argc, char **argv) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    signal(SIGBUS, caught);
    signal(SIGSEGV, caught);
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2 || chdir(argv[1])) return 1;
    over_a_file();
    emptied();
    holes();
    two_views();
    return 0;
}
