// SPDX-License-Identifier: MIT OR Apache-2.0
// File mappings as loaders and runtimes make them. Called with the path of a file of 3 pages and 100 bytes, each
// page filled with a letter, and of a directory.
#include "say.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const char *kind(volatile char *at) {
    static char text[32];
    snprintf(text, sizeof text, "%c%c%c%c", at[0] ? at[0] : '0', at[PAGE] ? at[PAGE] : '0',
             at[2 * PAGE] ? at[2 * PAGE] : '0', at[3 * PAGE] ? at[3 * PAGE] : '0');
    return text;
}

static void named(const char *path, const void *at) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[5000], flags[8];
    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to, offset;
        if (sscanf(line, "%lx-%lx %7s %lx", &from, &to, flags, &offset) == 4 && from == (unsigned long)at)
            printf("%ld pages, %s, offset %lx, its path %d\n", (long)((to - from) / PAGE), flags, offset,
                   strstr(line, path) != NULL);
    }
    fclose(maps);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int fd = open(argv[1], O_RDONLY), directory = open(argv[2], O_RDONLY);
    char *map = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    puts(kind(map));
    printf("behind the end %d %d\n", map[3 * PAGE + 99], map[3 * PAGE + 100]);
    named(argv[1], map);
    SAY(mprotect(map + PAGE, PAGE, PROT_READ | PROT_WRITE));
    map[PAGE] = 'x';
    map[PAGE + 1] = 'y';
    puts(kind(map));
    char byte;
    SAY(pread(fd, &byte, 1, PAGE));
    printf("in the file %c\n", byte);
    named(argv[1], map);
    named(argv[1], map + PAGE);
    named(argv[1], map + 2 * PAGE);
    SAY(madvise(map, 4 * PAGE, MADV_DONTNEED));
    puts(kind(map));
    SAY(mprotect(map, 4 * PAGE, PROT_READ | PROT_WRITE));
    named(argv[1], map);
    // A system call is the first to touch a page.
    SAY(pread(fd, map + 2 * PAGE + 5, 3, 0));
    printf("%.10s\n", map + 2 * PAGE);
    SAY(write(1, map + 2 * PAGE, 0));

    // As the loader does: the whole file, then parts over it, then zeroes after it.
    char *image = mmap(NULL, 6 * PAGE, PROT_READ, MAP_PRIVATE | MAP_DENYWRITE, fd, 0);
    SAY(mmap(image + PAGE, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED | MAP_DENYWRITE, fd, 2 * PAGE) ==
        image + PAGE);
    SAY(mmap(image + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == image + 3 * PAGE);
    SAY(mmap(image + 4 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) ==
        image + 4 * PAGE);
    memset(image + 3 * PAGE + 50, 0, PAGE - 50);
    puts(kind(image));
    puts(kind(image + 2 * PAGE));
    named(argv[1], image + PAGE);
    SAY(munmap(image + PAGE, PAGE));
    named(argv[1], image + 2 * PAGE);
    SAY(munmap(image, 6 * PAGE));

    // From the middle; growing; moving.
    char *middle = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    *middle = 'm';
    char *grown = mremap(middle, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    printf("%c%c %d\n", grown[0], grown[PAGE], grown[2 * PAGE + 99]);
    named(argv[1], grown);
    SAY(munmap(grown, 3 * PAGE));

    char *shared = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    puts(kind(shared));
    named(argv[1], shared);
    SAY(mprotect(shared, PAGE, PROT_READ | PROT_WRITE));
    SAY(mprotect(shared, PAGE, PROT_NONE));
    SAY(mprotect(shared, PAGE, PROT_READ));
    SAY(msync(shared, 4 * PAGE, MS_SYNC));
    SAY(close(fd));
    puts(kind(shared));
    SAY(munmap(shared, 4 * PAGE));

    fd = open(argv[1], O_RDONLY);
    SAY(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, directory, 0) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, PAGE, PROT_READ, 0, fd, 0) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 77, 0) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 1, 0) == MAP_FAILED ? -1 : 0);
    SAY(mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0x7ffffffffffff000) == MAP_FAILED ? -1 : 0);
    SAY_OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100 * PAGE) == MAP_FAILED ? -1 : 0);
    int zero = open("/dev/zero", O_RDWR);
    char *zeroes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    printf("zero %d\n", *zeroes);
    *zeroes = 1;
    // A page past the end of the file cannot be a buffer either.
    char *past = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 3 * PAGE);
    SAY(read(zero, past + PAGE, 1));
    SAY(write(1, past + PAGE, 1));

    // Reserved memory, as runtimes use it: it costs nothing until it is touched.
    char *large = mmap(NULL, 1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    SAY(large == MAP_FAILED);
    SAY(mprotect(large + (1UL << 39), 4 * PAGE, PROT_READ | PROT_WRITE));
    large[(1UL << 39) + PAGE] = 1;
    SAY(mmap((void *)0xc000000000, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == (void *)0xc000000000);
    SAY(mmap((void *)0xc000000000, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        (void *)0xc000000000);
    *(char *)0xc000000000 = 1;
    SAY(munmap(large, 1UL << 39));
    SAY(madvise(large + (1UL << 39), 1UL << 39, MADV_DONTNEED));
    printf("discarded %d\n", large[(1UL << 39) + PAGE]);
    SAY(munmap(large + (1UL << 39), 1UL << 39));
    return 0;
}
