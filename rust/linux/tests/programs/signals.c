/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Signals: what handlers receive, and the program's state after they return, natively and in a machine. */
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "handlers.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static volatile long seen_address;
static sigjmp_buf out;

static void note_sender(int number, siginfo_t *info, void *context) {
    note(number, info, context);
    SAY(info->si_pid == getpid());
    SAY(info->si_uid == getuid());
    SAY(info->si_errno);
    ucontext_t *interrupted = context;
    SAY(((uintptr_t)interrupted->uc_mcontext.fpregs & 63) == 0);
    SAY(interrupted->uc_flags);
    SAY(interrupted->uc_mcontext.gregs[REG_CSGSFS] & 0xffff);
    SAY((char *)info - (char *)context);
}

static void sending(void) {
    handle(SIGUSR1, note_sender, 0);
    SAY(kill(getpid(), SIGUSR1));
    SAY(raise(SIGUSR1));
    SAY(syscall(SYS_tkill, getpid(), SIGUSR1));
    SAY(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1));
    handle(SIGUSR1, note, 0);
    SAY(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77}));
    SAY(seen_value);
    SAY(sigqueue(getpid(), 0, (union sigval){.sival_int = 77}));
    SAY(sigqueue(getpid(), 65, (union sigval){.sival_int = 77}));
    SAY(mask());
}

static void again(int number, siginfo_t *info, void *context) {
    static int depth;
    printf("depth %d\n", ++depth);
    if (depth < 3) raise(number);
    printf("depth %d ends\n", depth--);
    (void)info, (void)context;
}

static void other(int number, siginfo_t *info, void *context) {
    printf("before\n");
    raise(SIGUSR2);
    printf("after\n");
    (void)number, (void)info, (void)context;
}

static void nesting(void) {
    handle(SIGUSR1, again, SA_NODEFER);
    SAY(raise(SIGUSR1));
    handle(SIGUSR1, other, 0);
    handle(SIGUSR2, note, 0);
    SAY(raise(SIGUSR1));
    struct sigaction action = {.sa_flags = SA_SIGINFO, .sa_sigaction = other};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    SAY(raise(SIGUSR1));
    SAY(mask());
    handle(SIGUSR1, note, SA_RESETHAND);
    SAY(raise(SIGUSR1));
    SAY(sigaction(SIGUSR1, NULL, &action));
    SAY(action.sa_handler == SIG_DFL);
}

static void pending(void) {
    int queued = SIGRTMIN + 2;
    handle(SIGUSR1, note, 0);
    handle(SIGUSR2, note, 0);
    handle(queued, note, 0);
    unsigned long all = ~0UL, set = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8);
    for (int i = 0; i < 3; i++)
        sigqueue(getpid(), queued, (union sigval){.sival_int = i});
    raise(SIGUSR2);
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    syscall(SYS_rt_sigpending, &set, 8);
    printf("pending %lx\n", set & ((1UL << 31) - 1));
    /* Ignoring a pending signal discards it. */
    signal(SIGUSR2, SIG_IGN);
    syscall(SYS_rt_sigpending, &set, 8);
    printf("pending %lx\n", set & ((1UL << 31) - 1));
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, queued);
    siginfo_t info;
    struct timespec moment = {0, 5000000};
    SAY(sigtimedwait(&wanted, &info, &moment) == queued);
    SAY(info.si_value.sival_int);
    SAY(info.si_code);
    unsigned long none = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
    SAY(seen_value);
    set_mask(SIG_BLOCK, queued);
    SAY(sigtimedwait(&wanted, &info, &moment));
    set_mask(SIG_SETMASK, 0);
}

static char stack[64 << 10];

static int is_on_stack(void *address) { return (char *)address > stack && (char *)address < stack + sizeof stack; }

static void on_stack(int number, siginfo_t *info, void *context) {
    stack_t now;
    SAY(is_on_stack(&now));
    SAY(is_on_stack(context));
    SAY(sigaltstack(NULL, &now));
    printf("flags %x\n", now.ss_flags);
    if (number == SIGUSR1) {
        stack_t none = {.ss_flags = SS_DISABLE};
        SAY(sigaltstack(&none, NULL));
        raise(SIGUSR2);
    }
    (void)info;
}

static void alternate_stack(void) {
    stack_t new = {.ss_sp = stack, .ss_size = sizeof stack}, old;
    SAY(sigaltstack(&new, NULL));
    handle(SIGUSR1, on_stack, SA_ONSTACK);
    handle(SIGUSR2, on_stack, SA_ONSTACK);
    SAY(raise(SIGUSR1));
    SAY(sigaltstack(NULL, &old));
    SAY(old.ss_flags);
    new.ss_flags = SS_AUTODISARM;
    SAY(sigaltstack(&new, NULL));
    SAY(raise(SIGUSR2));
    SAY(sigaltstack(NULL, &old));
    printf("flags %x, size %zu\n", old.ss_flags, old.ss_size);
    handle(SIGUSR2, on_stack, 0);
    SAY(raise(SIGUSR2));
    new.ss_flags = 0;
    new.ss_size = 100;
    SAY(sigaltstack(&new, NULL));
    new.ss_flags = 5;
    SAY(sigaltstack(&new, NULL));
    new.ss_flags = SS_DISABLE;
    SAY(sigaltstack(&new, NULL));
}

static void jump(int number, siginfo_t *info, void *context) {
    seen = number;
    seen_code = info->si_code;
    seen_address = (long)info->si_addr;
    (void)context;
    siglongjmp(out, 1);
}

static char *page;

static void make_accessible(int number, siginfo_t *info, void *context) {
    ucontext_t *interrupted = context;
    printf("signal %d code %d at %ld, trap %lld error %llx, address %ld\n", number, info->si_code,
           (long)((char *)info->si_addr - page), interrupted->uc_mcontext.gregs[REG_TRAPNO],
           interrupted->uc_mcontext.gregs[REG_ERR], (long)((char *)interrupted->uc_mcontext.gregs[REG_CR2] - page));
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
}

static int deeper(int levels) {
    volatile char frame[4096];
    frame[0] = (char)levels;
    return levels == 0 ? 0 : deeper(levels - 1) + frame[0];
}

static void *overflow(void *argument) {
    stack_t new = {.ss_sp = stack, .ss_size = sizeof stack}, old;
    SAY(sigaltstack(NULL, &old));
    SAY(old.ss_flags);
    SAY(sigaltstack(&new, NULL));
    for (int i = 0; i < 2; i++) {
        seen = 0;
        if (!sigsetjmp(out, 1)) SAY(deeper(1 << 20));
        SAY(seen);
    }
    return argument;
}

static void faults(void) {
    handle(SIGSEGV, jump, SA_ONSTACK);
    volatile long nothing = 16;
    if (!sigsetjmp(out, 1)) *(volatile char *)nothing = 1;
    printf("signal %d code %d at %lx, mask %lx\n", seen, seen_code, seen_address, mask());
    nothing = 1L << 62;
    if (!sigsetjmp(out, 1)) *(volatile char *)nothing = 1;
    printf("signal %d code %d at %lx\n", seen, seen_code, seen_address);
    page = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(out, 1)) seen = page[5];
    printf("signal %d code %d at %ld\n", seen, seen_code, seen_address - (long)page);
    if (!sigsetjmp(out, 1)) ((void (*)(void))page)();
    printf("signal %d code %d at %ld\n", seen, seen_code, seen_address - (long)page);
    if (!sigsetjmp(out, 1)) __asm__ volatile("hlt");
    printf("signal %d code %d at %lx\n", seen, seen_code, seen_address);
    mprotect(page, PAGE, PROT_READ);
    SAY(page[0]);
    handle(SIGSEGV, make_accessible, 0);
    page[7] = 3;
    SAY(page[7]);
    handle(SIGSEGV, jump, SA_ONSTACK);
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    pthread_create(&thread, &small, overflow, NULL);
    pthread_join(thread, NULL);
    /* A frame that cannot be written is SIGSEGV, whose handler here has its own stack. */
    stack_t new = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&new, NULL);
    handle(SIGUSR1, note, 0);
    seen = 0;
    if (!sigsetjmp(out, 1))
        __asm__ volatile("movq $64, %%rsp; syscall"
                         :
                         : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1)
                         : "rcx", "r11", "memory");
    printf("signal %d code %d\n", seen, seen_code);
    new.ss_flags = SS_DISABLE;
    sigaltstack(&new, NULL);
    signal(SIGSEGV, SIG_DFL);
}

/* Continues after the instruction, whose length is in RBX. */
static void skip(int number, siginfo_t *info, void *context) {
    long long *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    printf("signal %d code %d trap %lld error %lld, at the instruction %d\n", number, info->si_code,
           registers[REG_TRAPNO], registers[REG_ERR], (long long)info->si_addr == registers[REG_RIP]);
    registers[REG_RIP] += registers[REG_RBX];
    registers[REG_R12] = 0x1234;
}

static void exceptions(void) {
    handle(SIGFPE, skip, 0);
    handle(SIGILL, skip, 0);
    handle(SIGTRAP, skip, 0);
    long changed = 0;
    unsigned low = 1, high = 0;
    __asm__ volatile("mov $0, %%r12; mov $2, %%ebx; div %%ecx; mov %%r12, %2"
                     : "+a"(low), "+d"(high), "=r"(changed)
                     : "c"(0)
                     : "rbx", "r12");
    printf("%u, %lx\n", low, changed);
    __asm__ volatile("mov $2, %%ebx; ud2" : : : "rbx", "r12");
    __asm__ volatile("mov $0, %%ebx; int3" : : : "rbx", "r12");
    const unsigned unmasked = 0, masked = 0x1f80;
    double x = 1, none = 0;
    /* divsd %xmm1, %xmm0 has four bytes. */
    __asm__ volatile("ldmxcsr %2; mov $4, %%ebx; divsd %1, %0; ldmxcsr %3"
                     : "+x"(x)
                     : "x"(none), "m"(unmasked), "m"(masked)
                     : "rbx", "r12");
    SAY(x == 1);
    __asm__ volatile("ldmxcsr %0" : : "m"(masked));
    /* Flags: a single step with the trap flag set. */
    __asm__ volatile("mov $0, %%ebx; pushfq; orq $0x100, (%%rsp); popfq; nop; pushfq; andq $~0x100, (%%rsp); popfq"
                     :
                     :
                     : "rbx", "r12", "memory", "cc");
}

static void spoil(int number, siginfo_t *info, void *context) {
    unsigned control, mxcsr;
    unsigned short x87;
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(x87));
    printf("control %x %x\n", mxcsr, x87);
    __asm__ volatile("pushfq; popq %%rax; mov %%eax, %0" : "=r"(control) : : "rax");
    printf("direction and trap %x\n", control & 0x500);
    __asm__ volatile("fninit; fldz; fldz; pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15"
                     :
                     :
                     : "xmm0", "xmm7", "xmm15");
    if (__builtin_cpu_supports("avx")) {
        char *state = (char *)((ucontext_t *)context)->uc_mcontext.fpregs;
        uint32_t *software = (uint32_t *)(state + 464);
        uint64_t features = *(uint64_t *)(state + 472), low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        SAY(software[0] == 0x46505853);
        SAY(features == (high << 32 | low));
        SAY(software[1] - software[4]);
        SAY(*(uint32_t *)(state + software[4]) == 0x46505845);
        SAY((*(uint64_t *)(state + 512) & 7));
        __asm__ volatile("vpxor %%ymm3, %%ymm3, %%ymm3; vpxor %%ymm12, %%ymm12, %%ymm12" : : : "xmm3", "xmm12");
        /* The handler's changes of the frame are restored. */
        ((uint64_t *)(state + 160))[2 * 5] = 0x5555;
    }
    (void)number, (void)info;
}

static void registers(void) {
    handle(SIGUSR1, spoil, 0);
    uint64_t before[12][4] __attribute__((aligned(32))), after[12][4] __attribute__((aligned(32)));
    memset(after, 0, sizeof after);
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 4; j++)
            before[i][j] = 0x0101010101010101UL * (unsigned)(16 * j + i + 1);
    unsigned mxcsr = 0x7f80, mxcsr_after = 0;
    unsigned short x87 = 0xf7f, x87_after = 0;
    double x = 2.5, y = 0;
    long flags = 0;
    int avx = __builtin_cpu_supports("avx");
    if (avx)
        __asm__ volatile(
            "ldmxcsr %[mxcsr]; fninit; fldcw %[x87]; fldl %[x];"
            "vmovdqa (%[b]), %%ymm0; vmovdqa 32(%[b]), %%ymm3; vmovdqa 64(%[b]), %%ymm5; vmovdqa 96(%[b]), %%ymm7;"
            "vmovdqa 128(%[b]), %%ymm12; vmovdqa 160(%[b]), %%ymm15; std; stc; syscall;"
            "pushfq; popq %[flags]; cld; vmovdqa %%ymm0, (%[a]); vmovdqa %%ymm3, 32(%[a]); vmovdqa %%ymm5, 64(%[a]);"
            "vmovdqa %%ymm7, 96(%[a]); vmovdqa %%ymm12, 128(%[a]); vmovdqa %%ymm15, 160(%[a]);"
            "stmxcsr %[mxcsr2]; fnstcw %[x872]; fstpl %[y]; fninit; ldmxcsr %[normal]"
            : [flags] "=&r"(flags), [mxcsr2] "=m"(mxcsr_after), [x872] "=m"(x87_after), [y] "=m"(y)
            : "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1), [b] "r"(before), [a] "r"(after), [mxcsr] "m"(mxcsr),
              [x87] "m"(x87), [x] "m"(x), [normal] "m"((const unsigned){0x1f80})
            : "rcx", "r11", "memory", "cc", "xmm0", "xmm3", "xmm5", "xmm7", "xmm12", "xmm15");
    for (int i = 0; avx && i < 6; i++)
        printf("%d: %d\n", i, memcmp(before[i], after[i], 32) != 0);
    printf("%lx\n", after[2][0]);
    printf("control %x %x, x87 %g, flags %lx\n", mxcsr_after, x87_after, y, flags & 0x501);
}

/* Returns to a frame of random words: the program ends by SIGSEGV, or continues in the handler for it. */
static uint64_t frame[2048] __attribute__((aligned(64)));

extern char landed[];

static int garbage(unsigned seed) {
    handle(SIGSEGV, jump, SA_ONSTACK);
    handle(SIGBUS, jump, SA_ONSTACK);
    handle(SIGILL, jump, SA_ONSTACK);
    handle(SIGFPE, jump, SA_ONSTACK);
    handle(SIGTRAP, jump, SA_ONSTACK);
    static volatile int round;
    for (round = 0; round < 300; round++) {
        stack_t new = {.ss_sp = stack, .ss_size = sizeof stack};
        sigaltstack(&new, NULL);
        uint64_t state = seed * 1000003UL + (unsigned)round * 7919UL + 1;
        for (unsigned i = 0; i < sizeof frame / 8; i++) {
            state = state * 6364136223846793005UL + 1442695040888963407UL;
            frame[i] = round % 3 ? (state >> 33) * (state >> 40) : 0;
        }
        /* A part of it is valid, so that the rest is examined. */
        uint64_t *context = frame + 1, *vector = frame + 128;
        if (state & 0x10000) context[23] = 0x33;
        if (state & 0x20000) context[21] &= 0x7fffffffffff;
        if (state & 0x100000) context[21] = (uint64_t)(uintptr_t)landed;
        if (state & 0x40000) context[28] = (uint64_t)(uintptr_t)vector;
        if (state & 0x80000) {
            uint32_t *software = (uint32_t *)vector + 116, low, high, size, b, c, d;
            __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            __asm__ volatile("cpuid" : "=a"(c), "=b"(size), "=c"(b), "=d"(d) : "a"(0xd), "c"(0));
            software[0] = 0x46505853;
            software[1] = size + 4;
            software[2] = low;
            software[3] = high;
            software[4] = size;
            *(uint32_t *)((char *)vector + size) = 0x46505845;
            if (state & 0x200000) vector[64] &= low;
            if (state & 0x400000) memset(vector + 65, 0, 56);
            if (state & 0x800000) ((uint32_t *)vector)[6] &= 0xffff;
        }
        context[37] = 0;
        /* No valid stack: the present one stays. */
        context[3] = 0x77;
        if (!sigsetjmp(out, 1)) {
            __asm__ volatile("movq %0, %%rsp; syscall"
                             :
                             : "r"(frame + 1), "a"(SYS_rt_sigreturn)
                             : "memory", "rcx", "r11");
            /* Gets here without a stack if the frame has none. */
            __asm__ volatile("landed: xorl %%eax, %%eax; movl (%%rax), %%eax" : : : "rax", "memory");
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 2 && !strcmp(argv[1], "garbage")) return garbage((unsigned)atoi(argv[2]));
    sending();
    nesting();
    pending();
    alternate_stack();
    faults();
    exceptions();
    registers();
    return 0;
}
