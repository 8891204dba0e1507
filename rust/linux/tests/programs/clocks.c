// SPDX-License-Identifier: MIT OR Apache-2.0
// The C library's clocks, which it reads in the vDSO. Values that differ from run to run are printed only with
// arguments.
#include "say.h"

#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <time.h>

static const clockid_t clocks[] = {CLOCK_REALTIME,          CLOCK_MONOTONIC,     CLOCK_PROCESS_CPUTIME_ID,
                                   CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
                                   CLOCK_MONOTONIC_COARSE,  CLOCK_BOOTTIME,      CLOCK_TAI,
                                   (clockid_t)99,           (clockid_t)-1};

static void tell(void) {
    static const clockid_t known[] = {CLOCK_REALTIME,        CLOCK_MONOTONIC,        CLOCK_MONOTONIC_RAW,
                                      CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
        struct timespec now = {-1, -1};
        clock_gettime(known[i], &now);
        printf("%d: %lld.%09ld\n", known[i], (long long)now.tv_sec, now.tv_nsec);
    }
    struct timeval day;
    gettimeofday(&day, NULL);
    printf("day: %lld.%06ld\n", (long long)day.tv_sec, (long)day.tv_usec);
    printf("time: %lld\n", (long long)time(NULL));
    printf("cpu: %d\n", sched_getcpu());
}

// Whether a mapping of this name contains `address`.
static int maps_say(unsigned long address, const char *name) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int found = 0;
    while (maps && fgets(line, sizeof line, maps))
        if (strtoul(line, NULL, 16) == address && strstr(line, name) && strstr(line, " r-xp ")) found = 1;
    if (maps) fclose(maps);
    return found;
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        tell();
        return 0;
    }
    unsigned long object = getauxval(AT_SYSINFO_EHDR);
    printf("an ELF file: %d\n", object && memcmp((const void *)object, "\177ELF", 4) == 0);
    printf("in maps: %d\n", maps_say(object, "[vdso]"));
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; ++i) {
        struct timespec first = {0, 0}, second = {0, 0};
        SAY(clock_gettime(clocks[i], &first));
        if (clock_gettime(clocks[i], &second) != 0) continue;
        printf("goes on: %d\n",
               first.tv_sec < second.tv_sec || (first.tv_sec == second.tv_sec && first.tv_nsec <= second.tv_nsec));
        printf("in range: %d\n", second.tv_nsec >= 0 && second.tv_nsec < 1000000000);
    }
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; ++i) {
        struct timespec resolution = {-1, -1};
        SAY(clock_getres(clocks[i], &resolution));
        printf("%lld.%09ld\n", (long long)resolution.tv_sec, resolution.tv_nsec);
        SAY(clock_getres(clocks[i], NULL));
    }
    struct timespec real;
    struct timeval day;
    clock_gettime(CLOCK_REALTIME, &real);
    SAY(gettimeofday(&day, NULL));
    time_t now = 0;
    printf("the same: %d\n", time(&now) - real.tv_sec <= 1 && day.tv_sec - real.tv_sec <= 1 && now - real.tv_sec <= 1);
    struct timezone zone = {7, 7};
    SAY(syscall(SYS_gettimeofday, &day, &zone));
    return 0;
}
