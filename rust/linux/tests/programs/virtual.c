// SPDX-License-Identifier: MIT OR Apache-2.0
// Synthetic files: devices and /proc. Prints what is the same on every system.
#include "say.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static char text[1 << 16];

// Reads a whole file; returns its size.
static long slurp(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -errno;
    long size = 0, got;
    while ((got = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += got;
    text[size] = 0;
    close(fd);
    return size;
}

static void devices(void) {
    char bytes[64];
    static const char *const paths[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct stat st;
        printf("%s\n", paths[i]);
        SAY(stat(paths[i], &st));
        printf("%o %lx %ld\n", st.st_mode, (unsigned long)st.st_rdev, (long)st.st_size);
        SAY(access(paths[i], R_OK | W_OK));
        SAY(access(paths[i], X_OK));
        int fd = open(paths[i], O_RDWR);
        SAY(read(fd, bytes, sizeof bytes));
        SAY(pread(fd, bytes, sizeof bytes, 5));
        SAY(read(fd, UNMAPPED, i ? 8 : 0));
        SAY(write(fd, bytes, sizeof bytes));
        SAY(lseek(fd, 10, SEEK_SET));
        SAY(isatty(fd));
        SAY(close(fd));
        SAY(open(paths[i], O_RDONLY | O_DIRECTORY));
    }
    int fd = open("/dev/zero", O_RDONLY);
    memset(bytes, 1, sizeof bytes);
    SAY(read(fd, bytes, sizeof bytes));
    printf("zero %d %d\n", bytes[0], bytes[63]);
    SAY(write(fd, bytes, 1));
    SAY(close(fd));
    char other[64] = {0};
    fd = open("/dev/urandom", O_RDONLY);
    SAY(read(fd, bytes, sizeof bytes));
    SAY(read(fd, other, sizeof other));
    printf("differ %d\n", memcmp(bytes, other, sizeof bytes) != 0);
    SAY(close(fd));
}

static void process(char **argv) {
    printf("cmdline %ld\n", slurp("/proc/self/cmdline") - (long)strlen(argv[0]));
    printf("is argv[0] %d\n", strcmp(text, argv[0]) == 0);
    SAY(slurp("/proc/self/auxv") % 16);
    SAY(slurp("/proc/self/maps") > 100);
    printf("stack %d\n", strstr(text, "[stack]\n") != NULL);
    unsigned long low, high;
    char flags[8];
    printf("first line %d\n", sscanf(text, "%lx-%lx %5s", &low, &high, flags) == 3 && low < high);
    int named = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to, here = (unsigned long)&named;
        if (sscanf(line, "%lx-%lx %5s", &from, &to, flags) == 3 && from <= here && here < to)
            printf("this stack: %s, name in column %ld\n", flags, strstr(line, "[stack]") - line), named++;
    }
    SAY(slurp("/proc/self/status") > 100);
    printf("has name %d, threads %d\n", strncmp(text, "Name:\t", 6) == 0, strstr(text, "\nThreads:\t1\n") != NULL);
    SAY(slurp("/proc/self/stat") > 50);
    int fields = 0;
    char *after = strrchr(text, ')');
    printf("after name: %.2s", after + 1);
    for (char *field = strtok(after + 1, " \n"); field; field = strtok(NULL, " \n"))
        fields++;
    printf(", %d fields\n", fields);
    int count = 0;
    slurp("/proc/self/statm");
    for (char *field = strtok(text, " \n"); field; field = strtok(NULL, " \n"))
        count++;
    printf("statm %d fields\n", count);
    SAY(slurp("/proc/self/mountinfo") > 0);
    SAY(slurp("/proc/self/cgroup") > 0);
    SAY(slurp("/proc/meminfo") > 100);
    printf("total first %d\n", strncmp(text, "MemTotal:", 9) == 0);
    SAY(slurp("/proc/cpuinfo") > 100);
    printf("processor first %d\n", strncmp(text, "processor\t: 0\n", 14) == 0);
    SAY(slurp("/proc/sys/kernel/random/uuid"));
    printf("version %c\n", text[14]);
    SAY(slurp("/proc/sys/vm/overcommit_memory"));
    SAY(slurp("/proc/sys/fs/pipe-max-size") > 4);
    SAY(slurp("/proc/sys/kernel/osrelease") > 3);
    SAY(slurp("/etc/passwd") > 10);
    SAY(slurp("/etc/nsswitch.conf") > 10);
    SAY(slurp("/proc/nothing"));
    SAY(slurp("/proc/self/fd/99"));
    SAY(slurp("/proc/self/fd/01"));
    SAY(open("/proc/meminfo", O_WRONLY | O_CREAT | O_EXCL, 0600));
    SAY(open("/proc/self", O_WRONLY));
    struct stat st;
    SAY(stat("/proc/meminfo", &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    SAY(lstat("/proc/self", &st));
    printf("%o\n", st.st_mode & S_IFMT);
    SAY(stat("/proc/self", &st));
    printf("%o\n", st.st_mode & S_IFMT);
    SAY(stat("/proc/self/../self/./maps", &st));
    SAY(access("/proc/self/maps/x", F_OK));
    SAY(access("/proc/meminfo/", F_OK));
}

static void descriptors(void) {
    char link[64] = {0};
    SAY(readlink("/proc/self/fd/0", link, sizeof link));
    puts(link);
    memset(link, 0, sizeof link);
    SAY(readlink("/proc/self/fd/1", link, 6));
    puts(link);
    int fd = open("/dev/stderr", O_WRONLY);
    SAY(fd);
    SAY(write(fd, "through /dev/stderr\n", 20));
    SAY(close(fd));
    fd = open("/dev/stdin", O_RDONLY);
    SAY(read(fd, link, 1));
    SAY(close(fd));
    struct stat st;
    SAY(stat("/dev/stdout", &st));
    printf("%o\n", st.st_mode & S_IFMT);
    SAY(lstat("/dev/stdout", &st));
    printf("%o\n", st.st_mode & S_IFMT);
    dup2(1, 20);
    DIR *directory = opendir("/proc/self/fd");
    int found = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        found += strcmp(entry->d_name, "20") == 0;
    printf("20 is there %d\n", found);
    closedir(directory);
    close(20);
    SAY(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 0, 0) == MAP_FAILED ? -1 : 0);
}

int main(int argc, char **argv) {
    (void)argc;
    devices();
    process(argv);
    fflush(stdout);
    descriptors();
    return 0;
}
