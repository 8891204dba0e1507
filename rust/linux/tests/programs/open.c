// SPDX-License-Identifier: MIT OR Apache-2.0
// Opens the paths in its arguments and prints the beginning of each file, or the error. Of a path after "-l" it prints
// the target instead.
#include "say.h"

#include <fcntl.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char text[64] = {0};
        if (strcmp(argv[i], "-l") == 0 && i + 1 < argc) {
            long size = readlink(argv[++i], text, sizeof text - 1);
            printf("%s -> %s\n", argv[i], size < 0 ? "?" : text);
            continue;
        }
        int fd = open(argv[i], O_RDONLY | O_NONBLOCK);
        if (fd < 0)
            printf("%s: error %d\n", argv[i], errno);
        else
            printf("%s: %ld %s\n", argv[i], (long)read(fd, text, sizeof text - 1), text);
        if (fd >= 0) close(fd);
    }
    return 0;
}
