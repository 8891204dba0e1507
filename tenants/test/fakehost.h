// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Included before a tenant's sources (-include) to replace Mayfly by the fake host.

#ifndef FAKEHOST_H
#define FAKEHOST_H

#ifndef __ASSEMBLER__
#define MAYFLY_GETAUXVAL fakehost_getauxval
#ifdef __cplusplus
extern "C"
#endif
    unsigned long
    fakehost_getauxval(unsigned long type);
#endif

#endif
