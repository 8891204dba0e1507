// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The report of a compatibility program: lines that must be the same natively and inside Mayfly. They go to
// stdout during the boot, and inside Mayfly they also answer every request.

#ifndef REPORT_H
#define REPORT_H

#include <stdarg.h>
#include <stdio.h>

#include "mayfly.h"

static char report_text[65536];
static size_t report_size;

__attribute__((format(printf, 1, 2))) static void report(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(report_text + report_size, sizeof report_text - report_size, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof report_text - report_size) return;
    fputs(report_text + report_size, stdout);
    report_size += (size_t)size;
}

// Ends the boot. Natively this ends the program, with status 0.
__attribute__((noreturn)) static void report_serve(void) {
    for (;;) {
        mayfly_wait();
        mayfly_respond(200, "text/plain", report_text, report_size);
    }
}

#endif
