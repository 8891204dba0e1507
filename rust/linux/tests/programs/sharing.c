// SPDX-License-Identifier: MIT OR Apache-2.0
// What parts of one program share through files: locks of open files, shared memory, directories' times, permissions of
// own files, sockets with paths. The argument is an empty directory.
#include "say.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <utime.h>

static void flocks(void) {
    int one = open("lock", O_RDWR | O_CREAT, 0600), two = open("lock", O_RDWR), same = dup(one);
    SAY(flock(one, LOCK_SH | LOCK_NB));
    SAY(flock(two, LOCK_SH | LOCK_NB));
    SAY(flock(two, LOCK_EX | LOCK_NB));
    // The failed conversion has lost the lock that there was.
    SAY(flock(one, LOCK_EX | LOCK_NB));
    SAY(flock(same, LOCK_EX | LOCK_NB));
    SAY(flock(two, LOCK_SH | LOCK_NB));
    SAY(close(one));
    SAY(flock(two, LOCK_SH | LOCK_NB));
    SAY(close(same));
    SAY(flock(two, LOCK_EX | LOCK_NB));
    SAY(flock(two, LOCK_UN));
    SAY(flock(two, 77));
    SAY(flock(-1, LOCK_SH));
    int directory = open(".", O_RDONLY | O_DIRECTORY), again = open(".", O_RDONLY);
    SAY(flock(directory, LOCK_EX));
    SAY(flock(again, LOCK_EX | LOCK_NB));
    close(directory);
    SAY(flock(again, LOCK_EX | LOCK_NB));
    close(again);
    close(two);
}

static int waited;
static void *wait_for_lock(void *fd) {
    long result = flock(*(int *)fd, LOCK_EX);
    __atomic_store_n(&waited, 1, __ATOMIC_SEQ_CST);
    return (void *)result;
}

static void waits(void) {
    int one = open("lock", O_RDWR), two = open("lock", O_RDWR);
    for (int by_close = 0; by_close < 2; by_close++) {
        pthread_t thread;
        void *result;
        waited = 0;
        SAY(flock(one, LOCK_EX));
        pthread_create(&thread, NULL, wait_for_lock, &two);
        usleep(50000);
        SAY(__atomic_load_n(&waited, __ATOMIC_SEQ_CST));
        SAY(by_close ? close(one) : flock(one, LOCK_UN));
        pthread_join(thread, &result);
        SAY((long)result);
        SAY(flock(two, LOCK_UN));
    }
    close(two);
}

static void on_alarm(int number) { (void)number; }

// A wait that a signal ends has locked nothing, however often the lock was looked at before.
static void interrupted(void) {
    int one = open("lock", O_RDWR), two = open("lock", O_RDWR);
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval soon = {{0, 50000}, {0, 50000}}, never = {{0, 0}, {0, 0}};
    struct flock part = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    sigaction(SIGALRM, &action, NULL);
    SAY(flock(one, LOCK_EX));
    SAY(fcntl(one, F_OFD_SETLK, &part));
    setitimer(ITIMER_REAL, &soon, NULL);
    SAY(flock(two, LOCK_EX));
    SAY(fcntl(two, F_OFD_SETLKW, &part));
    setitimer(ITIMER_REAL, &never, NULL);
    SAY(flock(two, LOCK_EX | LOCK_NB));
    close(one);
    close(two);
}

static int range(int fd, int command, short type, long start, long len, int pid) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len, .l_pid = pid};
    return fcntl(fd, command, &lock);
}

static void tell(int fd, int command, short type, long start, long len) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    SAY(fcntl(fd, command, &lock));
    printf("type %d", lock.l_type);
    if (lock.l_type != F_UNLCK)
        printf(", %d %ld %ld %d", lock.l_whence, (long)lock.l_start, (long)lock.l_len, lock.l_pid);
    puts("");
}

static void ranges(void) {
    int one = open("ranges", O_RDWR | O_CREAT, 0600), two = open("ranges", O_RDWR), reader = open("ranges", O_RDONLY);
    SAY(write(one, "0123456789", 10));
    SAY(range(one, F_OFD_SETLK, F_WRLCK, 10, 10, 0));
    SAY(range(two, F_OFD_SETLK, F_RDLCK, 0, 10, 0));
    SAY(range(two, F_OFD_SETLK, F_RDLCK, 0, 11, 0));
    SAY(range(two, F_OFD_SETLK, F_RDLCK, 15, 0, 0));
    SAY(range(two, F_OFD_SETLK, F_WRLCK, 20, 0, 0));
    SAY(range(one, F_OFD_SETLK, F_UNLCK, 12, 4, 0));
    SAY(range(two, F_OFD_SETLK, F_WRLCK, 12, 4, 0));
    SAY(range(one, F_OFD_SETLK, F_WRLCK, 5, 1, 0));
    SAY(range(one, F_OFD_SETLK, F_RDLCK, 5, 1, 0));
    SAY(range(one, F_OFD_SETLK, F_RDLCK, 0, 0, 1));
    SAY(range(one, F_OFD_SETLK, 9, 0, 0, 0));
    SAY(range(one, F_OFD_SETLK, F_WRLCK, -1, 1, 0));
    SAY(range(reader, F_OFD_SETLK, F_WRLCK, 100, 1, 0));
    tell(two, F_OFD_GETLK, F_WRLCK, 0, 0);
    tell(one, F_OFD_GETLK, F_WRLCK, 0, 0);
    tell(reader, F_OFD_GETLK, F_RDLCK, 5, 1);
    tell(reader, F_OFD_GETLK, F_RDLCK, 11, 2);
    // Record locks of one process never conflict with each other.
    SAY(range(one, F_OFD_SETLK, F_UNLCK, 0, 0, 0));
    SAY(range(two, F_OFD_SETLK, F_UNLCK, 0, 0, 0));
    SAY(range(one, F_SETLK, F_WRLCK, 0, 0, 0));
    SAY(range(two, F_SETLK, F_WRLCK, 0, 0, 0));
    tell(two, F_GETLK, F_WRLCK, 0, 0);
    SAY(range(two, F_SETLK, F_UNLCK, 0, 0, 0));
    struct flock end = {.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -3, .l_len = -2};
    SAY(fcntl(one, F_OFD_SETLK, &end));
    tell(two, F_OFD_GETLK, F_WRLCK, 0, 0);
    close(one);
    tell(two, F_OFD_GETLK, F_WRLCK, 0, 0);
    close(two);
    close(reader);
}

static void shared_memory(void) {
    char name[64];
    struct stat st;
    snprintf(name, sizeof name, "/mayfly-test-%d", getpid());
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    SAY_OK(fd);
    SAY(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
    SAY(ftruncate(fd, 2 * PAGE));
    char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memcpy(memory + PAGE, "shared", 7);
    char text[8] = {0};
    int other = shm_open(name, O_RDONLY, 0);
    SAY(pread(other, text, 7, PAGE));
    puts(text);
    SAY(fstat(other, &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    SAY(shm_unlink(name));
    SAY(shm_open(name, O_RDONLY, 0));
    SAY(memory[PAGE]);
    SAY(munmap(memory, 2 * PAGE));
    close(other);
    close(fd);
    SAY(stat("/dev/shm", &st));
    printf("%o\n", st.st_mode);
    sem_t *semaphore = sem_open(name, O_CREAT | O_EXCL, 0600, 1);
    SAY(semaphore == SEM_FAILED);
    SAY(sem_open(name, O_CREAT | O_EXCL, 0600, 1) == SEM_FAILED);
    sem_t *again = sem_open(name, 0);
    SAY(again == semaphore);
    SAY(sem_wait(semaphore));
    SAY(sem_trywait(again));
    SAY(sem_post(semaphore));
    SAY(sem_trywait(again));
    SAY(sem_close(again));
    SAY(sem_close(semaphore));
    SAY(sem_unlink(name));
    SAY(sem_open(name, 0) == SEM_FAILED);
}

// Linux takes times of files from a clock that ticks, in an emulator now and then late.
static void await_tick(void) {
    struct timespec first, now;
    clock_gettime(CLOCK_REALTIME_COARSE, &first);
    do {
        usleep(20000);
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    } while (now.tv_sec == first.tv_sec && now.tv_nsec == first.tv_nsec);
}

// Whether the directory's time has changed since the last call.
static int has_changed(const char *path) {
    static struct timespec last;
    struct stat st;
    stat(path, &st);
    int changed = st.st_mtim.tv_sec != last.tv_sec || st.st_mtim.tv_nsec != last.tv_nsec;
    last = st.st_mtim;
    await_tick();
    return changed;
}

static void directory_times(const char *path, const char *outside) {
    char name[256], other[256];
    snprintf(name, sizeof name, "%s/entry", path);
    snprintf(other, sizeof other, "%s/entry", outside);
    has_changed(path);
    SAY(has_changed(path));
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    SAY(has_changed(path));
    SAY(write(fd, "text", 4));
    SAY(has_changed(path));
    close(fd);
    SAY(chmod(name, 0644));
    SAY(has_changed(path));
    SAY(rename(name, other));
    SAY(has_changed(path));
    SAY(rename(other, name));
    SAY(has_changed(path));
    SAY(unlink(name));
    SAY(has_changed(path));
    SAY(mkdir(name, 0755));
    SAY(has_changed(path));
    SAY(rmdir(name));
    SAY(has_changed(path));
    SAY(symlink("x", name));
    SAY(has_changed(path));
    SAY(unlink(name));
    struct stat before, after;
    int directory = open(path, O_RDONLY | O_DIRECTORY);
    SAY(fstat(directory, &before));
    await_tick();
    close(open(name, O_RDWR | O_CREAT, 0600));
    SAY(fstat(directory, &after));
    SAY(before.st_mtim.tv_sec == after.st_mtim.tv_sec && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    SAY(unlink(name));
    close(directory);
}

static void directories(void) {
    struct stat st;
    SAY(mkdir("made", 0755));
    SAY(mkdir("outside", 0755));
    directory_times("made", "outside");
    directory_times(".", "outside");
    int fd = open("made", O_RDONLY | O_DIRECTORY);
    SAY(fchmod(fd, 0700));
    struct timespec times[2] = {{1, 0}, {1000000, 5}};
    SAY(futimens(fd, times));
    SAY(fchown(fd, getuid(), getgid()));
    SAY(fchown(fd, -1, -1));
    SAY(fstat(fd, &st));
    printf("%o %ld %ld\n", st.st_mode, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    SAY(stat("made", &st));
    printf("%o %ld %ld\n", st.st_mode, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    printf("%ld %ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
    close(fd);
    fd = open("made", O_PATH);
    SAY(fchmod(fd, 0755));
    close(fd);
}

static void times(void) {
    struct stat st;
    close(open("times", O_RDWR | O_CREAT, 0600));
    struct timeval values[2] = {{5, 6}, {7, 8}}, wrong[2] = {{0, 0}, {0, 1000000}};
    SAY(syscall(SYS_utimes, "times", values));
    stat("times", &st);
    printf("%ld %ld\n", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    printf("%ld %ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
    SAY(syscall(SYS_utimes, "times", wrong));
    SAY(syscall(SYS_futimesat, AT_FDCWD, "times", values));
    SAY(syscall(SYS_futimesat, AT_FDCWD, "nothing", values));
    struct utimbuf seconds = {3, 4};
    SAY(syscall(SYS_utime, "times", &seconds));
    stat("times", &st);
    printf("%ld %ld\n", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    printf("%ld %ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
    struct timespec of_link[2] = {{9, 10}, {11, 12}};
    SAY(symlink("times", "times' link"));
    SAY(utimensat(AT_FDCWD, "times' link", of_link, AT_SYMLINK_NOFOLLOW));
    SAY(lstat("times' link", &st));
    printf("%ld %ld\n", (long)st.st_atim.tv_sec, (long)st.st_mtim.tv_sec);
    SAY(syscall(SYS_utime, "times", NULL));
    stat("times", &st);
    SAY(time(NULL) - st.st_mtim.tv_sec < 5);
}

static void vectors(void) {
    int fd = open("vectors", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct iovec out[2] = {{"ab", 2}, {"cde", 3}};
    char first[3] = {0}, second[8] = {0};
    struct iovec in[2] = {{first, 2}, {second, 7}};
    SAY(pwritev2(fd, out, 2, -1, 0));
    SAY(pwritev2(fd, out, 2, 10, RWF_DSYNC));
    SAY(pwritev2(fd, out, 1, 0, RWF_APPEND));
    SAY(lseek(fd, 0, SEEK_END));
    SAY(lseek(fd, 0, SEEK_SET));
    SAY(preadv2(fd, in, 2, -1, RWF_HIPRI));
    printf("%s %.3s\n", first, second);
    SAY(preadv2(fd, in, 2, 10, 0));
    printf("%s %s\n", first, second);
    SAY(preadv2(fd, in, 2, -2, 0));
    SAY(preadv2(fd, in, 2, 0, 0x4000));
    close(fd);
}

static void links(void) {
    struct stat st, other;
    SAY(symlink("nowhere", "link"));
    SAY(link("link", "hard"));
    SAY(lstat("link", &st));
    SAY(lstat("hard", &other));
    printf("%o %d same %d\n", other.st_mode, (int)other.st_nlink, st.st_ino == other.st_ino);
    SAY(linkat(AT_FDCWD, "link", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    SAY(unlink("link"));
    SAY(lstat("hard", &other));
    printf("%d\n", (int)other.st_nlink);
    char target[16] = {0};
    SAY(readlink("hard", target, sizeof target));
    puts(target);
}

static void permissions(void) {
    int fd = open("mode", O_RDWR | O_CREAT | O_TRUNC, 0400);
    SAY(write(fd, "text", 4));
    close(fd);
    SAY(open("mode", O_WRONLY));
    SAY_OK(close(open("mode", O_RDONLY)));
    SAY(truncate("mode", 1));
    SAY(access("mode", R_OK));
    SAY(access("mode", W_OK));
    SAY(access("mode", X_OK));
    SAY(chmod("mode", 0200));
    SAY(open("mode", O_RDONLY));
    SAY_OK(close(open("mode", O_WRONLY)));
    SAY(access("mode", R_OK));
    SAY(mkdir("closed", 0755));
    close(open("closed/file", O_RDWR | O_CREAT, 0600));
    SAY(chmod("closed", 0555));
    SAY(open("closed/new", O_RDWR | O_CREAT, 0600));
    SAY(mkdir("closed/new", 0755));
    SAY(mkdir("closed/file", 0755));
    SAY(unlink("closed/file"));
    SAY(rename("closed/file", "moved"));
    SAY(rename("mode", "closed/mode"));
    SAY(link("mode", "closed/mode"));
    SAY(access("closed", W_OK));
    SAY(chmod("closed", 0600));
    SAY(access("closed/file", F_OK));
    SAY(open("closed/file", O_RDONLY));
    SAY(chdir("closed"));
    SAY(chmod("closed", 0300));
    SAY(open("closed", O_RDONLY | O_DIRECTORY));
    SAY_OK(close(open("closed/file", O_RDONLY)));
    SAY(chmod("closed", 0755));
    SAY(unlink("closed/file"));
}

static void socket_paths(void) {
    struct sockaddr_un name = {AF_UNIX, "socket"}, moved = {AF_UNIX, "moved-socket"}, far = {AF_UNIX, "no/socket"};
    struct stat st;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(bind(listener, (void *)&far, sizeof far));
    SAY(bind(listener, (void *)&name, sizeof name));
    SAY(lstat("socket", &st));
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    SAY(chmod("socket", 0600));
    SAY(lstat("socket", &st));
    printf("%o\n", st.st_mode);
    SAY(open("socket", O_RDWR));
    SAY(bind(other, (void *)&name, sizeof name));
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(client, (void *)&name, sizeof name));
    SAY(listen(listener, 5));
    SAY(chmod("socket", 0500));
    SAY(connect(client, (void *)&name, sizeof name));
    SAY(chmod("socket", 0200));
    SAY(connect(client, (void *)&name, sizeof name));
    close(client);
    struct sockaddr_un within = {AF_UNIX, "hidden/socket"}, below = {AF_UNIX, "socket/below"};
    SAY(mkdir("hidden", 0755));
    SAY(rename("socket", "hidden/socket"));
    SAY(chmod("hidden", 0600));
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(client, (void *)&within, sizeof within));
    SAY(chmod("hidden", 0700));
    SAY(rename("hidden/socket", "socket"));
    SAY(connect(client, (void *)&below, sizeof below));
    close(client);
    SAY(rename("socket", "moved-socket"));
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(client, (void *)&name, sizeof name));
    SAY(connect(client, (void *)&moved, sizeof moved));
    close(client);
    // A new socket takes the old path.
    SAY(bind(other, (void *)&name, sizeof name));
    SAY(unlink("moved-socket"));
    client = socket(AF_UNIX, SOCK_STREAM, 0);
    SAY(connect(client, (void *)&moved, sizeof moved));
    close(listener);
    close(other);
    // The file outlives its socket.
    SAY(connect(client, (void *)&name, sizeof name));
    SAY(access("socket", F_OK));
    SAY(unlink("socket"));
    SAY(connect(client, (void *)&name, sizeof name));
    close(open("socket", O_RDWR | O_CREAT, 0600));
    SAY(connect(client, (void *)&name, sizeof name));
    SAY(unlink("socket"));
    close(client);
}

int main(int argc, char **argv) {
    // As root, natively, no mode forbids anything.
    if (geteuid() == 0 && (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))) return 1;
    if (argc < 2 || chdir(argv[1])) return 2;
    umask(022);
    flocks();
    waits();
    interrupted();
    ranges();
    shared_memory();
    directories();
    times();
    vectors();
    links();
    permissions();
    socket_paths();
    return 0;
}
