// SPDX-License-Identifier: MIT OR Apache-2.0
// Changes a tree of files. Called with a directory: empty, or with the files that `tests/files.rs` has created there.
#include "say.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

static char buffer[PATH_MAX];

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) {
        printf("%s: error %d\n", path, errno);
        return;
    }
    static char *names[100];
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) && count < 100;) {
        char text[300];
        snprintf(text, sizeof text, "%s %d", entry->d_name, entry->d_type);
        names[count++] = strdup(text);
    }
    closedir(directory);
    qsort(names, count, sizeof *names, by_name);
    printf("%s:", path);
    for (size_t i = 0; i < count; i++)
        printf(" [%s]", names[i]);
    puts("");
}

static void show(const char *path) {
    struct stat st;
    if (lstat(path, &st)) {
        printf("%s: error %d\n", path, errno);
        return;
    }
    printf("%s: mode %o size %ld links %ld ", path, st.st_mode, S_ISREG(st.st_mode) ? (long)st.st_size : 0,
           S_ISREG(st.st_mode) ? (long)st.st_nlink : 0);
    int fd = S_ISREG(st.st_mode) ? open(path, O_RDONLY) : -1;
    if (fd >= 0) {
        memset(buffer, 0, sizeof buffer);
        printf("%ld <%.60s>", (long)read(fd, buffer, 60), buffer);
        close(fd);
    }
    puts("");
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) printf("%s: error %d\n", path, errno);
    close(fd);
}

static void files(void) {
    int fd = open("new", O_RDWR | O_CREAT | O_EXCL, 0666);
    SAY(fd);
    SAY(write(fd, "hello world", 11));
    SAY(lseek(fd, 0, SEEK_CUR));
    SAY(pread(fd, buffer, 5, 6));
    printf("%.5s\n", buffer);
    SAY(pwrite(fd, "W", 1, 6));
    SAY(lseek(fd, 0, SEEK_CUR));
    show("new");
    SAY(open("new", O_RDWR | O_CREAT | O_EXCL, 0666));
    SAY(ftruncate(fd, 5));
    show("new");
    SAY(ftruncate(fd, 20));
    SAY(ftruncate(fd, -1));
    show("new");
    SAY(lseek(fd, 100, SEEK_SET));
    SAY(write(fd, "far", 3));
    SAY(lseek(fd, 0, SEEK_END));
    SAY(pread(fd, buffer, 50, 60));
    printf("%d %.3s\n", buffer[0], buffer + 40);
    int append = open("new", O_WRONLY | O_APPEND);
    SAY(write(append, "end", 3));
    SAY(lseek(append, 0, SEEK_CUR));
    SAY(lseek(append, 0, SEEK_SET));
    SAY(write(append, "END", 3));
    SAY(read(append, buffer, 1));
    SAY(lseek(fd, 0, SEEK_END));
    SAY(close(append));
    struct iovec parts[3] = {{"one", 3}, {NULL, 0}, {"two", 3}}, bad[2] = {{"ok", 2}, {UNMAPPED, 5}};
    SAY(lseek(fd, 0, SEEK_SET));
    SAY(writev(fd, parts, 3));
    SAY(pwritev(fd, parts, 3, 3));
    SAY(writev(fd, bad, 2));
    SAY(write(fd, UNMAPPED, 5));
    SAY(write(fd, "", 0));
    show("new");
    SAY(posix_fallocate(fd, 0, 500));
    SAY(fsync(fd));
    show("new");
    SAY(truncate("new", 3));
    show("new");
    SAY(truncate("nothing", 3));
    SAY(truncate(".", 3));
    SAY(truncate("new", -1));
    // One file, opened twice.
    int other = open("new", O_RDONLY);
    SAY(pwrite(fd, "shared", 6, 0));
    SAY(read(other, buffer, 6));
    printf("%.6s\n", buffer);
    SAY(write(other, "x", 1));
    SAY(ftruncate(other, 1));
    SAY(close(other));
    SAY(fchmod(fd, 0600));
    show("new");
    SAY(chmod("new", 0755));
    SAY(chown("new", -1, -1));
    SAY(fchown(fd, -1, -1));
    SAY(fchownat(AT_FDCWD, "nothing", -1, -1, 0));
    show("new");
    struct timespec times[2] = {{5, 6}, {7, 8}};
    SAY(utimensat(AT_FDCWD, "new", times, 0));
    SAY(futimens(fd, times));
    struct stat st;
    SAY(fstat(fd, &st));
    printf("%ld.%ld\n", (long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
    printf("%ld.%ld\n", (long)st.st_atim.tv_sec, (long)st.st_atim.tv_nsec);
    struct timespec one[2] = {{9, 10}, {0, UTIME_OMIT}}, other_one[2] = {{0, UTIME_OMIT}, {11, 12}};
    SAY(futimens(fd, one));
    SAY(utimensat(AT_FDCWD, "new", other_one, 0));
    SAY(stat("new", &st));
    printf("%ld.%ld %ld.%ld\n", (long)st.st_atim.tv_sec, (long)st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec,
           (long)st.st_mtim.tv_nsec);
    one[0].tv_nsec = 1000000000;
    SAY(futimens(fd, one));
    SAY(unlink("new"));
    SAY(fstat(fd, &st));
    printf("links %ld\n", (long)st.st_nlink);
    SAY(pread(fd, buffer, 6, 0));
    printf("still there %.6s\n", buffer);
    SAY(access("new", F_OK));
    put("new", "another");
    SAY(pread(fd, buffer, 6, 0));
    printf("still there %.6s\n", buffer);
    SAY(close(fd));
    show("new");
    SAY(unlink("new"));
    // More than one chunk of a copy.
    static char large[200000];
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i % 251);
    fd = open("large", O_RDWR | O_CREAT, 0644);
    SAY(write(fd, large, sizeof large));
    memset(large, 0, sizeof large);
    SAY(pread(fd, large, sizeof large, 0));
    int wrong = 0;
    for (size_t i = 0; i < sizeof large; i++)
        wrong += large[i] != (char)(i % 251);
    printf("wrong %d\n", wrong);
    char *map = mmap(NULL, sizeof large, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    printf("mapped %d %d\n", map[1000], map[150000]);
    map[1000] = 1;
    SAY(pread(fd, buffer, 1, 1000));
    printf("in the file %d\n", buffer[0]);
    SAY(munmap(map, sizeof large));
    SAY(close(fd));
    SAY(unlink("large"));
    FILE *temporary = tmpfile();
    printf("a temporary file %d\n", temporary != NULL || errno == EOPNOTSUPP || errno == ENOENT);
}

static void names(void) {
    SAY(mkdir("d", 0777));
    SAY(mkdir("d", 0777));
    SAY(mkdir("d/e/f", 0777));
    SAY(mkdir("d/e", 0700));
    SAY(mkdir("slash/", 0755));
    SAY(mkdir(".", 0755));
    SAY(mkdir("", 0755));
    put("d/file", "in d");
    show("d");
    show("d/e");
    show("d/file");
    list("d");
    SAY(rmdir("d"));
    SAY(unlink("d"));
    SAY(rmdir("d/file"));
    SAY(rmdir("d/."));
    SAY(rmdir("nothing"));
    SAY(unlink("nothing"));
    SAY(unlink("d/file/x"));
    SAY(open("d/file/x", O_WRONLY | O_CREAT, 0644));
    SAY(open("d/new/", O_WRONLY | O_CREAT, 0644));
    SAY(symlink("file", "d/link"));
    SAY(symlink("file", "d/link"));
    SAY(symlink("", "d/other"));
    memset(buffer, 0, sizeof buffer);
    SAY(readlink("d/link", buffer, sizeof buffer));
    puts(buffer);
    show("d/link");
    put("d/link", "through the link");
    show("d/file");
    SAY(symlink("target", "d/dangling"));
    put("d/dangling", "made through a link");
    show("d/target");
    SAY(link("d/file", "d/hard"));
    SAY(link("d/file", "d/hard"));
    SAY(link("d", "d2"));
    put("d/hard", "both");
    show("d/file");
    show("d/hard");
    SAY(unlink("d/file"));
    show("d/hard");
    SAY(rename("d/hard", "moved"));
    show("moved");
    put("target", "to be replaced");
    SAY(rename("moved", "target"));
    show("target");
    SAY(rename("nothing", "target"));
    SAY(rename("target", "d"));
    SAY(rename("d", "target"));
    SAY(rename("d", "d/e/inside"));
    SAY(rename("target", "target"));
    SAY(syscall(SYS_renameat2, AT_FDCWD, "target", AT_FDCWD, "d/link", 1));
    SAY(mkdir("full", 0755));
    put("full/x", "x");
    SAY(rename("d", "full"));
    SAY(unlink("full/x"));
    SAY(rename("d", "full"));
    list(".");
    list("full");
    show("full/target");
    show("full/link");
    int directory = open("full", O_RDONLY);
    SAY(mkdirat(directory, "at", 0755));
    SAY(symlinkat("x", directory, "at/link"));
    SAY(renameat(directory, "at/link", directory, "at/link2"));
    SAY(linkat(directory, "target", directory, "at/hard", 0));
    SAY(unlinkat(directory, "at", 0));
    SAY(unlinkat(directory, "at", AT_REMOVEDIR));
    list("full/at");
    SAY(unlinkat(directory, "at/link2", 0));
    SAY(unlinkat(directory, "at/hard", 0));
    SAY(unlinkat(directory, "at", AT_REMOVEDIR));
    SAY(unlinkat(directory, "at", 77));
    SAY(close(directory));
    SAY(access("full", W_OK));
    SAY(access("target", R_OK | W_OK));
    SAY(chdir("full"));
    put("here", "relative");
    SAY(chdir(".."));
    list("full");
}

static void existing(void) {
    list(".");
    list("old");
    SAY(access("old/a", W_OK));
    int before = open("old/a", O_RDONLY);
    int fd = open("old/a", O_RDWR);
    SAY(pwrite(fd, "A", 1, 0));
    SAY(close(fd));
    show("old/a");
    SAY(close(before));
    fd = open("old/b", O_WRONLY | O_APPEND);
    SAY(write(fd, " and more", 9));
    SAY(close(fd));
    show("old/b");
    put("old/c", "truncated");
    show("old/c");
    SAY(unlink("old/d"));
    show("old/d");
    SAY(unlink("old/d"));
    put("old/d", "again");
    show("old/d");
    SAY(rename("old/e", "old/renamed"));
    show("old/e");
    show("old/renamed");
    SAY(rename("old/link", "old/link2"));
    memset(buffer, 0, sizeof buffer);
    SAY(readlink("old/link2", buffer, sizeof buffer));
    puts(buffer);
    SAY(rmdir("old"));
    list("old");
    SAY(rmdir("hollow"));
    SAY(mkdir("hollow", 0755));
    put("hollow/x", "x");
    list("hollow");
    // Empties a directory, removes it, creates it again: its old entries do not reappear.
    SAY(unlink("two/x"));
    SAY(rmdir("two"));
    SAY(unlink("two/y"));
    SAY(rmdir("two"));
    list("two");
    SAY(mkdir("two", 0755));
    list("two");
    SAY(access("two/x", F_OK));
    put("two/z", "z");
    list("two");
    SAY(truncate("old/f", 2));
    show("old/f");
    put("old/sub/new", "new in an old directory");
    list("old/sub");
    list(".");
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    SAY(chdir(argv[1]));
    if (access("old", F_OK) == 0) existing();
    files();
    names();
    return 0;
}
