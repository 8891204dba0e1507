// SPDX-License-Identifier: MIT OR Apache-2.0
// The initial state of a program: arguments, environment, auxiliary vector, and a working C library.
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

static int constructed;
__attribute__((constructor)) static void construct(void) { constructed = 1; }
static _Thread_local int thread_local_value = 7;
static char zeroes[100000];
extern char **environ;

int main(int argc, char **argv) {
    printf("argc %d\n", argc);
    for (int i = 1; i < argc; i++)
        printf("argv[%d] %s\n", i, argv[i]);
    for (char **e = environ; *e; e++)
        printf("env %s\n", *e);
    // Programs that change their title rely on this being contiguous.
    const char *end = argv[0];
    for (int i = 0; i < argc; i++) {
        printf("argv[%d] follows: %d\n", i, argv[i] == end);
        end = argv[i] + strlen(argv[i]) + 1;
    }
    for (char **e = environ; *e; e++) {
        printf("a variable follows: %d\n", *e == end);
        end = *e + strlen(*e) + 1;
    }
    printf("constructed %d, tls %d\n", constructed, thread_local_value);
    for (size_t i = 0; i < sizeof zeroes; i++)
        if (zeroes[i]) return 1;
    printf("execfn is argv[0]: %d\n", strcmp((char *)getauxval(AT_EXECFN), argv[0]) == 0);
    printf("phent %lu pagesz %lu secure %lu clktck %lu platform %s\n", getauxval(AT_PHENT), getauxval(AT_PAGESZ),
           getauxval(AT_SECURE), getauxval(AT_CLKTCK), (char *)getauxval(AT_PLATFORM));
    const Elf64_Phdr *header = (const void *)getauxval(AT_PHDR);
    unsigned loads = 0;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        loads += header[i].p_type == PT_LOAD;
    printf("segments found through AT_PHDR: %d\n", loads > 1);
    printf("random readable: %d\n", ((volatile char *)getauxval(AT_RANDOM))[15] * 0);
    printf("stack aligned: %d\n", (int)((unsigned long)__builtin_frame_address(0) % 16));
    char *heap = malloc(1 << 20);
    memset(heap, 1, 1 << 20);
    heap = realloc(heap, 8 << 20);
    printf("heap kept: %d\n", heap[(1 << 20) - 1]);
    free(heap);
    double d = strtod("2.5", NULL);
    printf("floating point: %g\n", d * d);
    fprintf(stderr, "to stderr\n");
    return 0;
}
