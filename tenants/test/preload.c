// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Puts the fake host below a program that is loaded dynamically: its getauxval(3) finds AT_MAYFLY.

#include "fakehost.h"

#include <sys/auxv.h>

unsigned long __getauxval(unsigned long type); // The C library's own.

unsigned long getauxval(unsigned long type) {
    return type == 0x4d59464cul ? fakehost_getauxval(type) : __getauxval(type);
}
