// SPDX-License-Identifier: MIT OR Apache-2.0
// A mounted tree of files: look-ups, reads, positions, directories, links, and attempts to leave the tree.
// Called with the tree's path.
#include "say.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

static char buffer[PATH_MAX];

static void look(const char *path) {
    struct stat st;
    printf("%s\n", path);
    SAY(stat(path, &st));
    SAY(lstat(path, &st));
    if (lstat(path, &st) == 0)
        printf("mode %o size %ld mtime %ld.%09ld\n", st.st_mode, S_ISREG(st.st_mode) ? (long)st.st_size : 0,
               (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    struct statx stx;
    if (syscall(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &stx) == 0)
        printf("statx mode %o size %ld mtime %ld\n", stx.stx_mode, S_ISREG(stx.stx_mode) ? (long)stx.stx_size : 0,
               (long)stx.stx_mtime.tv_sec);
    memset(buffer, 0, sizeof buffer);
    SAY(readlink(path, buffer, sizeof buffer));
    puts(buffer);
    SAY(access(path, F_OK));
    SAY(access(path, R_OK));
    SAY(access(path, X_OK));
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        printf("open: error %d\n", errno);
        return;
    }
    memset(buffer, 0, sizeof buffer);
    SAY(read(fd, buffer, 20));
    printf("<%s>\n", buffer);
    SAY(close(fd));
}

static void finding(void) {
    static const char *const paths[] = {
        "file",
        "empty",
        "directory",
        "directory/inner",
        "directory/../file",
        "directory/inner/",
        "file/",
        "file/.",
        "file/x",
        "nothing",
        "nothing/x",
        "nothing/",
        "nothing/..",
        ".",
        "./",
        "./././file",
        "link",
        "link-to-directory",
        "link-to-directory/",
        "link-to-directory/inner",
        "link-to-directory/../file",
        "dangling",
        "loop",
        "loop/x",
        "chain",
        "absolute",
        "absolute/x",
        "up",
        "up/..",
        "",
        "directory//inner",
        "deep/a/b/c/d/e/f",
        "deep/a/../../file",
        "link/",
        "script",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        look(paths[i]);
    char name[300] = {0};
    memset(name, 'n', 255);
    SAY(access(name, F_OK));
    memset(name, 'n', 256);
    SAY(access(name, F_OK));
}

static void reading(void) {
    int fd = open("numbers", O_RDONLY | O_CLOEXEC);
    SAY(fd);
    SAY(fcntl(fd, F_GETFD));
    SAY(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_CLOEXEC));
    SAY(fcntl(fd, F_SETFL, O_NONBLOCK));
    SAY(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_CLOEXEC));
    SAY(read(fd, buffer, 10));
    printf("%.10s\n", buffer);
    int copy = dup(fd);
    SAY(read(copy, buffer, 10));
    printf("%.10s\n", buffer);
    SAY(lseek(fd, 0, SEEK_CUR));
    int other = open("numbers", O_RDONLY);
    SAY(lseek(other, 0, SEEK_CUR));
    SAY(close(other));
    SAY(pread(fd, buffer, 5, 100));
    printf("%.5s\n", buffer);
    SAY(pread(fd, buffer, 5, -1));
    SAY(pread(fd, buffer, 5, LONG_MAX));
    SAY(lseek(fd, 0, SEEK_CUR));
    char first[3], second[4];
    struct iovec parts[3] = {{first, 3}, {NULL, 0}, {second, 4}};
    SAY(readv(fd, parts, 3));
    printf("%.3s %.4s\n", first, second);
    SAY(preadv(fd, parts, 3, 5));
    printf("%.3s %.4s\n", first, second);
    SAY(lseek(fd, -3, SEEK_END));
    SAY(read(fd, buffer, 100));
    SAY(read(fd, buffer, 100));
    SAY(lseek(fd, -1, SEEK_SET));
    SAY(lseek(fd, 1L << 40, SEEK_SET));
    SAY(read(fd, buffer, 100));
    SAY(lseek(fd, 5, SEEK_DATA));
    SAY(lseek(fd, 5, SEEK_HOLE));
    SAY(lseek(fd, 1L << 40, SEEK_DATA));
    SAY(lseek(fd, 0, 77));
    SAY(lseek(fd, 7, SEEK_SET));
    int left = 0;
    SAY(ioctl(fd, FIONREAD, &left));
    printf("left %d\n", left);
    SAY(isatty(fd));
    SAY(write(fd, "x", 1));
    SAY(pwrite(fd, "x", 1, 0));
    SAY(read(fd, UNMAPPED, 5));
    SAY(read(fd, KERNEL, 5));
    SAY(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    SAY(posix_fadvise(fd, 0, 0, 77));
    SAY(flock(fd, LOCK_SH));
    SAY(flock(fd, LOCK_UN | LOCK_NB));
    SAY(flock(fd, 77));
    SAY(fsync(fd));
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 5};
    SAY(fcntl(fd, F_SETLK, &lock));
    SAY(fcntl(fd, F_GETLK, &lock));
    printf("unlocked %d\n", lock.l_type == F_UNLCK);
    lock.l_type = F_WRLCK;
    SAY(fcntl(fd, F_SETLK, &lock));
    lock.l_type = 77;
    SAY(fcntl(fd, F_SETLKW, &lock));
    SAY(fcntl(fd, F_SETLK, UNMAPPED));
    SAY(close(copy));
    SAY(close(fd));
    SAY(read(fd, buffer, 1));

    // A file larger than one chunk of a copy, with a checksum.
    fd = open("large", O_RDONLY);
    static char large[300000];
    long total = 0, got;
    unsigned sum = 0;
    while ((got = read(fd, large, sizeof large)) > 0) {
        for (long i = 0; i < got; i++)
            sum = sum * 31 + (unsigned char)large[i];
        total += got;
    }
    printf("large: %ld bytes, sum %u, end %ld\n", total, sum, got);
    // A buffer whose end is not mapped: as many bytes as fit are read.
    SAY(lseek(fd, 0, SEEK_SET));
    SAY(pread(fd, large, 0, 0));
    SAY(close(fd));

    FILE *stream = fopen("numbers", "r");
    long lines = 0;
    while (fgets(buffer, sizeof buffer, stream))
        lines++;
    printf("%ld lines, position %ld\n", lines, ftell(stream));
    fclose(stream);
}

static void opening(void) {
    SAY(open("file", O_RDONLY | O_DIRECTORY));
    SAY(open("link", O_RDONLY | O_NOFOLLOW));
    int itself = open("link", O_PATH | O_NOFOLLOW);
    struct stat of_link;
    char byte;
    SAY(fstat(itself, &of_link) == 0 && S_ISLNK(of_link.st_mode));
    SAY(read(itself, &byte, 1));
    SAY(close(itself));
    SAY(open("link", O_PATH | O_NOFOLLOW | O_DIRECTORY));
    SAY(fchmodat(AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW));
    SAY(open("directory", O_WRONLY));
    SAY(open("directory", O_RDWR));
    SAY(open("file", O_RDONLY | O_CREAT | O_EXCL, 0600));
    SAY(open("dangling", O_RDONLY | O_CREAT | O_EXCL, 0600));
    SAY(open("nothing/x", O_WRONLY | O_CREAT, 0600));
    SAY(open("file/x", O_WRONLY | O_CREAT, 0600));
    SAY(open("loop", O_RDONLY));
    int directory = open("directory", O_RDONLY | O_DIRECTORY);
    SAY(directory);
    SAY(read(directory, buffer, 1));
    int inner = openat(directory, "inner", O_RDONLY);
    SAY(inner);
    SAY(openat(inner, "x", O_RDONLY));
    SAY(openat(inner, "", O_RDONLY));
    SAY(faccessat(directory, "../file", R_OK, 0));
    SAY(faccessat(directory, "../file", 8, 0));
    SAY(syscall(SYS_faccessat2, directory, "inner", R_OK, AT_EACCESS));
    SAY(syscall(SYS_faccessat2, directory, "", R_OK, AT_EMPTY_PATH));
    SAY(syscall(SYS_faccessat2, directory, "inner", R_OK, 0x1));
    struct stat st;
    SAY(fstatat(directory, "inner", &st, 0));
    SAY(fstatat(directory, "", &st, AT_EMPTY_PATH));
    printf("directory: %d\n", S_ISDIR(st.st_mode));
    SAY(fstatat(directory, "inner", &st, 0x8000000));
    SAY(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
    printf("directory: %d\n", S_ISDIR(st.st_mode));
    SAY(readlinkat(directory, "../link", buffer, sizeof buffer));
    SAY(readlinkat(directory, "inner", buffer, sizeof buffer));
    struct open_how how = {.flags = O_RDONLY};
    int again = syscall(SYS_openat2, directory, "inner", &how, sizeof how);
    SAY(again);
    SAY(syscall(SYS_openat2, directory, "inner", &how, 8));
    SAY(syscall(SYS_openat2, directory, "inner", UNMAPPED, sizeof how));
    SAY(close(again));
    SAY(close(inner));
    SAY(close(directory));
    // No descriptor was left open.
    int next = open("file", O_RDONLY);
    SAY(next);
    SAY(close(next));
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void directories(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) {
        printf("opendir %s: error %d\n", path, errno);
        return;
    }
    static char *names[4000];
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char text[300];
        snprintf(text, sizeof text, "%s %d", entry->d_name, entry->d_type);
        names[count++] = strdup(text);
    }
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++)
        if (count < 50 || i % 100 == 0) puts(names[i]);
    printf("%s: %zu entries\n", path, count);
    rewinddir(directory);
    size_t again = 0;
    while (readdir(directory))
        again++;
    printf("again: %zu\n", again);
    SAY(lseek(dirfd(directory), 0, SEEK_SET));
    SAY(syscall(SYS_getdents64, dirfd(directory), buffer, 10));
    SAY_OK(syscall(SYS_getdents64, dirfd(directory), UNMAPPED, 1000));
    SAY(closedir(directory));
}

static void moving(const char *tree) {
    SAY(chdir("directory"));
    SAY(access("inner", F_OK));
    SAY(access("file", F_OK));
    size_t prefix = strlen(tree);
    SAY(syscall(SYS_getcwd, buffer, sizeof buffer) - (long)prefix);
    puts(buffer + prefix);
    SAY(syscall(SYS_getcwd, buffer, prefix));
    int here = open(".", O_RDONLY);
    SAY(chdir("../link-to-directory/../deep"));
    getcwd(buffer, sizeof buffer);
    puts(buffer + prefix);
    SAY(fchdir(here));
    getcwd(buffer, sizeof buffer);
    puts(buffer + prefix);
    SAY(close(here));
    SAY(chdir("inner"));
    SAY(chdir("nothing"));
    SAY(chdir(""));
    SAY(fchdir(0));
    SAY(fchdir(77));
    SAY(chdir(tree));
    int fd = open("directory/../file", O_RDONLY);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    memset(buffer, 0, sizeof buffer);
    SAY(readlink(link, buffer, sizeof buffer) - (long)prefix);
    puts(buffer + prefix);
    int again = open(link, O_RDONLY);
    SAY(again);
    memset(buffer, 0, sizeof buffer);
    SAY(read(again, buffer, 4));
    puts(buffer);
    SAY(close(again));
    SAY(close(fd));
    SAY(access(link, F_OK));
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    SAY(chdir(argv[1]));
    finding();
    reading();
    opening();
    static const char *const paths[] = {".", "directory", "many", "file", "nothing", "link-to-directory", "deep/a"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        directories(paths[i]);
    moving(argv[1]);
    return 0;
}
