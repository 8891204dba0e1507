// SPDX-License-Identifier: MIT OR Apache-2.0
// Ends as its argument says.
#include "say.h"

#include <assert.h>
#include <signal.h>
#include <sys/mman.h>

static volatile int zero;
static const int constant = 1;
static char data[16] = "\xc3";

static void handler(int signal) { _exit(signal); }

static int deep(int levels) {
    volatile char frame[4096];
    frame[0] = (char)levels;
    return levels == 0 ? 0 : deep(levels - 1) + frame[0];
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (!strcmp(how, "status")) return 300;
    if (!strcmp(how, "exit")) exit(7);
    if (!strcmp(how, "thread-exit")) syscall(SYS_exit, 9);
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "assert")) assert(argc == 0);
    if (!strcmp(how, "raise")) raise(SIGTERM);
    if (!strcmp(how, "kill")) kill(getpid(), SIGKILL);
    if (!strcmp(how, "unblock")) {
        sigset_t set;
        sigfillset(&set);
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGUSR1);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
    if (!strcmp(how, "read-null")) return *(volatile int *)(long)zero;
    if (!strcmp(how, "write-null")) *(volatile int *)(long)zero = 1;
    if (!strcmp(how, "call-null")) ((void (*)(void))(long)zero)();
    if (!strcmp(how, "write-text")) *(volatile char *)(long)main = 0;
    if (!strcmp(how, "write-constant")) *(volatile int *)(long)&constant = 2;
    if (!strcmp(how, "run-data")) ((void (*)(void))(long)data)();
    if (!strcmp(how, "run-stack")) {
        char code[16] = "\xc3";
        __asm__ volatile("call *%0" : : "r"(code) : "memory");
    }
    if (!strcmp(how, "no-access")) {
        char *page = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *(volatile char *)page = 1;
    }
    if (!strcmp(how, "kernel-address")) return *(volatile int *)(0xffff800000000000 + (unsigned)zero);
    if (!strcmp(how, "non-canonical")) return *(volatile int *)(0x800000000000 + (unsigned)zero);
    if (!strcmp(how, "stack-overflow")) return deep(1 << 20);
    if (!strcmp(how, "divide")) return argc * 1000 / zero;
    if (!strcmp(how, "float-trap")) {
        unsigned control = 0;
        volatile double none = 0;
        __asm__ volatile("ldmxcsr %0" : : "m"(control));
        none = 1 / none;
    }
    if (!strcmp(how, "illegal")) __asm__ volatile("ud2");
    if (!strcmp(how, "breakpoint")) __asm__ volatile("int3");
    if (!strcmp(how, "privileged")) __asm__ volatile("hlt");
    if (!strcmp(how, "port")) __asm__ volatile("outb %al, $0x80");
    if (!strcmp(how, "alignment")) {
        // An aligned move from an unaligned address.
        __asm__ volatile("movaps (%0), %%xmm0" : : "r"(data + 1));
    }
    if (!strcmp(how, "handled")) {
        signal(SIGSEGV, handler);
        *(volatile int *)(long)zero = 1;
    }
    if (!strcmp(how, "frame-nowhere")) {
        // No space for a handler's frame.
        signal(SIGUSR1, handler);
        signal(SIGSEGV, handler);
        __asm__ volatile("movq $64, %%rsp; syscall"
                         :
                         : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1)
                         : "rcx", "r11", "memory");
    }
    if (!strcmp(how, "frame-bad")) {
        // rt_sigreturn without a handler, and without a frame.
        __asm__ volatile("movq $64, %%rsp; syscall" : : "a"(SYS_rt_sigreturn) : "rcx", "r11", "memory");
    }
    if (!strcmp(how, "wait-futex")) {
        int word = 0;
        syscall(SYS_futex, &word, 0, 0, NULL);
    }
    if (!strcmp(how, "wait-signal")) pause();
    if (!strcmp(how, "wait-poll")) syscall(SYS_poll, NULL, 0, -1);
    if (!strcmp(how, "sleep")) {
        for (int i = 0; i < 1000; i++)
            sleep(1000000);
        return 0;
    }
    if (!strcmp(how, "hoard")) {
        for (;;) {
            char *block = malloc(1 << 20);
            if (!block) return 3;
            memset(block, 1, 1 << 20);
        }
    }
    if (!strcmp(how, "reserve")) {
        for (;;)
            if (mmap(NULL, 1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
                return errno == ENOMEM ? 4 : 5;
    }
    if (!strcmp(how, "fragment")) {
        for (unsigned long i = 0;; i++)
            if (mmap(NULL, PAGE, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
                return errno == ENOMEM ? 4 : 5;
    }
    if (!strcmp(how, "unknown")) {
        for (int i = 0; i < 3; i++)
            SAY(syscall(SYS_io_uring_setup, 1, 0));
        SAY(syscall(123456));
        return 0;
    }
    return 99;
}
