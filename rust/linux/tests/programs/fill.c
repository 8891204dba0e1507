// SPDX-License-Identifier: MIT OR Apache-2.0
// Creates files until that fails, then writes bytes until that fails, twice.
#include "say.h"

#include <fcntl.h>
#include <sys/stat.h>

static long thousands(void) {
    char block[1000];
    memset(block, 'x', sizeof block);
    int fd = open("/tmp/large", O_WRONLY | O_CREAT, 0600);
    long count = 0;
    while (write(fd, block, sizeof block) == sizeof block)
        count++;
    int error = errno;
    close(fd);
    errno = error;
    return count;
}

int main(void) {
    char name[64];
    int count = 0;
    for (;; count++) {
        snprintf(name, sizeof name, "/tmp/%d", count);
        if (mkdir(name, 0700)) break;
    }
    printf("files %d, error %d\n", count, errno);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "/tmp/%d", i);
        rmdir(name);
    }
    long written = thousands();
    printf("bytes %ld, error %d\n", written, errno);
    unlink("/tmp/large");
    printf("again %ld\n", thousands());
    printf("read-only error %d\n", open("/new", O_WRONLY | O_CREAT, 0600) < 0 ? errno : 0);
    return 0;
}
