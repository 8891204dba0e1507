// SPDX-License-Identifier: MIT OR Apache-2.0
// Handlers of signals, and the mask.
#pragma once

#include <signal.h>

#include "say.h"

typedef void handler_type(int, siginfo_t *, void *);

static volatile int seen, seen_code, seen_value;

static void handle(int number, handler_type *handler, int flags) {
    struct sigaction action = {.sa_flags = flags | SA_SIGINFO};
    action.sa_sigaction = handler;
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL)) puts("sigaction failed");
}

/* The mask as the kernel has it. */
static unsigned long mask(void) {
    unsigned long bits = 0;
    syscall(SYS_rt_sigprocmask, 0, NULL, &bits, 8);
    return bits;
}

static void set_mask(int how, int number) {
    sigset_t set;
    sigemptyset(&set);
    if (number) sigaddset(&set, number);
    sigprocmask(how, &set, NULL);
}

static void note(int number, siginfo_t *info, void *context) {
    (void)context;
    seen = number;
    seen_code = info->si_code;
    seen_value = info->si_value.sival_int;
    printf("signal %d code %d, mask %lx\n", number, info->si_code, mask());
}
