// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Answers with what the program sees: /exe is its own path, /argv0 its name, and other paths are files, to which the
// query is written first. /peer calls a function of a storage program with the content of /ro/file, which the boot
// mapped but did not touch.

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mayfly.h"

int main(int argc, char **argv) {
    (void)argc;
    int named = open("/ro/file", O_RDONLY);
    const char *argument = named < 0 ? NULL : mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, named, 0);
    if (named >= 0) close(named);
    for (;;) {
        const struct mayfly_request *request = mayfly_wait();
        char text[4096] = "";
        ssize_t size = 0;
        if (strcmp(request->path.data, "/exe") == 0) {
            // The path, and the magic number of the ELF file there.
            size = readlink("/proc/self/exe", text, 1000);
            int file = open("/proc/self/exe", O_RDONLY);
            size += read(file, text + size, 4);
            close(file);
        } else if (strcmp(request->path.data, "/argv0") == 0) {
            size = snprintf(text, sizeof text, "%s", argv[0]);
        } else if (strcmp(request->path.data, "/peer") == 0) {
            char result[16];
            size_t result_size;
            size =
                snprintf(text, sizeof text, "%d", mayfly_call("f", argument, 4, result, sizeof result, &result_size));
        } else {
            int is_write = request->query.size > 0;
            int file = open(request->path.data, is_write ? O_RDWR | O_CREAT : O_RDONLY, 0600);
            if (is_write && write(file, request->query.data, request->query.size) < 0) file = -1;
            size = pread(file, text, sizeof text, 0);
            if (file >= 0) close(file);
        }
        mayfly_respond(size < 0 ? 404 : 200, "text/plain", text, size < 0 ? 0 : (size_t)size);
    }
}
