// SPDX-License-Identifier: MIT OR Apache-2.0
// Two mappings whose pages are touched alternately, so that no two pages of one are contiguous in memory; then
// calls on all of one.

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "say.h"

int main(int argc, char **argv) {
    unsigned long pages = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;
    char *one = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *other = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned long page = 0; page < pages; page++) {
        one[page * PAGE] = (char)page;
        other[page * PAGE] = (char)~page;
    }
    SAY(mprotect(one, pages * PAGE, PROT_READ));
    SAY(mprotect(one, pages * PAGE, PROT_NONE));
    SAY(mprotect(one, pages * PAGE, PROT_READ | PROT_WRITE));
    unsigned long same = 0, zero = 0;
    for (unsigned long page = 0; page < pages; page++)
        same += one[page * PAGE] == (char)page && other[page * PAGE] == (char)~page;
    SAY(madvise(one, pages * PAGE, MADV_DONTNEED));
    for (unsigned long page = 0; page < pages; page++)
        zero += one[page * PAGE] == 0 && other[page * PAGE] == (char)~page;
    SAY(munmap(other, pages * PAGE));
    SAY(same == pages);
    SAY(zero == pages);
    return 0;
}
