// SPDX-License-Identifier: MIT OR Apache-2.0
// What the system says about the program: resident memory, times, threads, descriptors, sockets. With "values" it
// prints figures, which are compared within tolerances; otherwise whether they are right.
#include "say.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <time.h>

#define BLOCK (20 << 20)

static char text[1 << 20];

static const char *slurp(const char *path) {
    int fd = open(path, O_RDONLY);
    long size = 0, got;
    if (fd < 0) {
        printf("%s: error %d\n", path, errno);
        text[0] = 0;
        return text;
    }
    while ((got = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += got;
    text[size] = 0;
    close(fd);
    return text;
}

// The number after a label; -1 without it.
static long after(const char *path, const char *label) {
    const char *found = strstr(slurp(path), label);
    return found ? strtol(found + strlen(label), NULL, 10) : -1;
}

// Field of /proc/self/stat, by its number in proc(5).
static long field(const char *path, int number) {
    slurp(path);
    char *at = strrchr(text, ')');
    for (int i = 2; at && i < number; i++)
        at = strchr(at + 1, ' ');
    return at ? strtol(at + 1, NULL, 10) : -1;
}

static long statm(int number) {
    slurp("/proc/self/statm");
    char *at = text;
    for (int i = 1; i < number; i++)
        at = strchr(at, ' ') + 1;
    return strtol(at, NULL, 10);
}

static int near(long value, long expected, long tolerance) { return labs(value - expected) <= tolerance; }

static long rss(void) { return after("/proc/self/status", "VmRSS:"); }

static long seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec;
}

static void memory(void) {
    struct rusage usage;
    long before = rss(), size = after("/proc/self/status", "VmSize:");
    char *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("mapped: size %d, resident %d\n", near(after("/proc/self/status", "VmSize:"), size + BLOCK / 1024, 256),
           near(rss(), before, 512));
    memset(block, 1, BLOCK);
    long touched = rss();
    printf("touched %d\n", near(touched, before + BLOCK / 1024, 512));
    printf("anonymous %d\n", after("/proc/self/status", "RssAnon:") >= BLOCK / 1024);
    printf("sum %d\n", near(after("/proc/self/status", "RssAnon:") + after("/proc/self/status", "RssFile:") +
                                after("/proc/self/status", "RssShmem:"),
                            touched, 512));
    printf("statm %d, stat %d, rollup %d\n", near(statm(2) * 4, touched, 512),
           near(field("/proc/self/stat", 24) * 4, touched, 512),
           near(after("/proc/self/smaps_rollup", "Rss:"), touched, 1024));
    getrusage(RUSAGE_SELF, &usage);
    printf("getrusage %d, peak %d\n", near(usage.ru_maxrss, touched, 1024),
           near(after("/proc/self/status", "VmHWM:"), touched, 1024));
    // The block has a line of its own in smaps.
    char range[64];
    snprintf(range, sizeof range, "%lx-", (long)block);
    const char *line = strstr(slurp("/proc/self/smaps"), range);
    long size_there = 0, resident_there = 0;
    if (line) {
        size_there = strtol(strstr(line, "Size:") + 5, NULL, 10);
        resident_there = strtol(strstr(line, "Rss:") + 4, NULL, 10);
    }
    printf("smaps: size %d, resident %d\n", size_there >= BLOCK / 1024, resident_there >= BLOCK / 1024);
    madvise(block, BLOCK, MADV_DONTNEED);
    printf("given back %d\n", near(rss(), before, 512));
    getrusage(RUSAGE_SELF, &usage);
    printf("the peak stays %d\n", near(usage.ru_maxrss, touched, 1024));
    block[0] = 1;
    munmap(block, BLOCK);
    // What is mapped and only reserved is not resident.
    char *reserved = mmap(NULL, 1L << 33, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    printf("reserved %d\n", reserved != MAP_FAILED && near(rss(), before, 512));
    munmap(reserved, 1L << 33);
    char *shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 1, 1 << 20);
    printf("shared %d\n", near(after("/proc/self/status", "RssShmem:"), 1024, 64));
    munmap(shared, 1 << 20);
    printf("free memory %d\n", after("/proc/meminfo", "MemAvailable:") < after("/proc/meminfo", "MemTotal:"));
    struct sysinfo info;
    sysinfo(&info);
    printf("sysinfo %d\n", info.freeram < info.totalram && info.freeram > 0);
}

static void clocks(void) {
    long up = seconds(CLOCK_BOOTTIME);
    printf("uptime %d\n", near(strtol(slurp("/proc/uptime"), NULL, 10), up, 1));
    printf("boot %d\n", near(after("/proc/stat", "btime "), seconds(CLOCK_REALTIME) - up, 1));
    struct sysinfo info;
    sysinfo(&info);
    printf("sysinfo %d\n", near(info.uptime, up, 1));
    long start = field("/proc/self/stat", 22) / sysconf(_SC_CLK_TCK);
    printf("started %d\n", near(start, up, 30) && start <= up);
    // Some CPU time.
    struct tms used;
    do
        times(&used);
    while (used.tms_utime + used.tms_stime < 20);
    times(&used);
    printf("cpu %d\n",
           near(field("/proc/self/stat", 14) + field("/proc/self/stat", 15), used.tms_utime + used.tms_stime, 5));
    long first = strtol(slurp("/proc/stat") + 4, NULL, 10);
    printf("system's cpu %d\n", first >= 10);
}

static pthread_barrier_t barrier;

static void *stay(void *nothing) {
    pthread_setname_np(pthread_self(), "second");
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return nothing;
}

static int entries(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return -errno;
    int found = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        found += entry->d_name[0] != '.';
    closedir(directory);
    return found;
}

static void threads(void) {
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    printf("one %d %ld %ld\n", entries("/proc/self/task"), after("/proc/self/status", "Threads:\t"),
           field("/proc/self/stat", 20));
    pthread_create(&thread, NULL, stay, NULL);
    pthread_barrier_wait(&barrier);
    printf("two %d %ld %ld\n", entries("/proc/self/task"), after("/proc/self/status", "Threads:\t"),
           field("/proc/self/stat", 20));
    DIR *directory = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.') continue;
        char path[PATH_MAX];
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        slurp(path);
        printf("%s", atoi(entry->d_name) == getpid() ? "first\n" : text);
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        printf("number %d, parent %d\n", strtol(slurp(path), NULL, 10) == atoi(entry->d_name),
               field(path, 4) == getppid());
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        printf("process %d, thread %d\n", after(path, "Tgid:\t") == getpid(),
               after(path, "\nPid:\t") == atoi(entry->d_name));
    }
    closedir(directory);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    printf("gone %d\n", entries("/proc/self/task"));
    SAY(access("/proc/self/task/999999/comm", F_OK));
    SAY(access("/proc/self/task/01/comm", F_OK));
    char link[64] = {0}, expected[64];
    SAY(readlink("/proc/thread-self", link, sizeof link) > 0);
    snprintf(expected, sizeof expected, "%d/task/%d", getpid(), getpid());
    printf("thread-self %d\n", strcmp(link, expected) == 0);
}

static void descriptors(void) {
    slurp("/proc/self/environ");
    printf("environ %s %s\n", text, text + strlen(text) + 1);
    int fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    printf("pos %ld\n", after(path, "pos:\t"));
    const char *flags = strstr(slurp(path), "flags:\t");
    printf("cloexec %d\n", flags && (strtol(flags + 7, NULL, 8) & O_CLOEXEC) != 0);
    close(fd);
    SAY(access(path, F_OK));
    printf("same %d\n", entries("/proc/self/fdinfo") == entries("/proc/self/fd"));
    long written = after("/proc/self/io", "wchar: "), calls = after("/proc/self/io", "syscw: ");
    int ends[2];
    SAY(pipe(ends));
    SAY(write(ends[1], text, 1000));
    printf("wchar %d, syscw %d\n", near(after("/proc/self/io", "wchar: "), written + 1000, 600),
           after("/proc/self/io", "syscw: ") > calls);
    long got = after("/proc/self/io", "rchar: ");
    SAY(read(ends[0], text, 1000));
    printf("rchar %d\n", after("/proc/self/io", "rchar: ") >= got + 1000);
    close(ends[0]);
    close(ends[1]);
}

// Whether a table of sockets has one with this local port in this state.
static int lists(const char *path, int port, int state) {
    char *save = NULL;
    slurp(path);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned local, at;
        char *colon = strrchr(line, ':');
        (void)colon;
        char host[40];
        if (sscanf(line, " %*d: %32[0-9A-F]:%X %*[0-9A-F]:%*X %X", host, &local, &at) == 3 && (int)local == port &&
            (int)at == state)
            return 1;
    }
    return 0;
}

static void sockets(void) {
    struct sockaddr_in name = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
    struct sockaddr_in6 name6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t len = sizeof name, len6 = sizeof name6;
    int listener = socket(AF_INET, SOCK_STREAM, 0), listener6 = socket(AF_INET6, SOCK_STREAM, 0);
    bind(listener, (void *)&name, sizeof name);
    bind(listener6, (void *)&name6, sizeof name6);
    listen(listener, 5);
    listen(listener6, 5);
    getsockname(listener, (void *)&name, &len);
    getsockname(listener6, (void *)&name6, &len6);
    int port = ntohs(name.sin_port);
    printf("listens %d %d\n", lists("/proc/net/tcp", port, 10), lists("/proc/net/tcp6", ntohs(name6.sin6_port), 10));
    int client = socket(AF_INET, SOCK_STREAM, 0);
    SAY(connect(client, (void *)&name, sizeof name));
    int server = accept(listener, NULL, NULL);
    printf("connected %d\n", lists("/proc/self/net/tcp", port, 1));
    struct stat st;
    fstat(listener, &st);
    char inode[40];
    snprintf(inode, sizeof inode, " %lu ", (unsigned long)st.st_ino);
    printf("inode %d\n", strstr(slurp("/proc/net/tcp"), inode) != NULL);
    printf("loopback %d\n", strstr(slurp("/proc/net/dev"), "    lo:") != NULL);
    printf("own address %d\n",
           strstr(slurp("/proc/net/if_inet6"), "00000000000000000000000000000001 01 80 10 80") != NULL);
    close(server);
    close(client);
    close(listener);
    close(listener6);
}

static void file_systems(void) {
    struct statvfs st;
    SAY(statvfs("/tmp", &st));
    printf("room %d, files %d, writable %d\n", st.f_bavail * st.f_frsize > 1000000 && st.f_bfree <= st.f_blocks,
           st.f_favail > 0 && st.f_ffree <= st.f_files, (st.f_flag & ST_RDONLY) == 0);
    SAY(statvfs("/proc", &st));
    printf("blocks %lu\n", (unsigned long)st.f_blocks);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "values") == 0) {
        // Before anything else has been touched.
        printf("rss %ld\n", rss());
        printf("anonymous %ld\n", after("/proc/self/status", "RssAnon:"));
        printf("data %ld\n", after("/proc/self/status", "VmData:"));
        printf("size %ld\n", after("/proc/self/status", "VmSize:"));
        return 0;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    memory();
    clocks();
    threads();
    descriptors();
    sockets();
    file_systems();
    return 0;
}
