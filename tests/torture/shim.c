/* Faults below Python: counts the libc calls that touch a folder and lets the n-th of them go wrong.
 *
 * Preloaded into a process, this does nothing until torture_arm() is called there. Linux with glibc. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

enum { WRITES = 1, READS = 2 };
enum { KILL = 1, TEAR, SHORT, FAIL, FAIL_FROM, LIE, RAISE, RAISE_TWICE };
enum { PASS = 0, REFUSED, LYING, TORN, SHORTENED };

static struct {
    char root[4096];
    size_t length;
    long at, count;
    int kinds, action, value, gap, log, armed;
} plan;
static char watched[1 << 16]; /* by file descriptor */

/* The action happens at call `at`, counted from 1; a second signal comes `gap` calls later, or at once for 0. */
void torture_arm(const char *root, int kinds, int action, long at, int value, int gap, const char *log) {
    snprintf(plan.root, sizeof plan.root, "%s", root);
    plan.length = strlen(root);
    plan.kinds = kinds, plan.action = action, plan.at = at, plan.value = value, plan.gap = gap, plan.count = 0;
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    plan.log = fcntl(fd, F_DUPFD_CLOEXEC, 1000);
    syscall(SYS_close, fd);
    plan.armed = 1;
}

static int under(int folder, const char *path) {
    if (!plan.armed || !path) return 0;
    if (path[0] != '/') return folder >= 0 && folder < (int)sizeof watched && watched[folder];
    return !strncmp(path, plan.root, plan.length) && (path[plan.length] == '/' || !path[plan.length]);
}

static int known(int fd) { return plan.armed && fd >= 0 && fd < (int)sizeof watched && watched[fd]; }

static void watch(int fd, int yes) {
    if (fd >= 0 && fd < (int)sizeof watched) watched[fd] = yes;
}

static void strike(int number) { syscall(SYS_kill, getpid(), number); }

/* Counts a call, and says what is to happen to it; kills and signals happen here. */
static int fate(const char *name, const char *path, int kind) {
    if (!(plan.kinds & kind)) return PASS;
    long n = __atomic_add_fetch(&plan.count, 1, __ATOMIC_SEQ_CST);
    int now = n == plan.at, second = plan.action == RAISE_TWICE && plan.gap && n == plan.at + plan.gap;
    int fires = plan.at && (now || second || (plan.action == FAIL_FROM && n > plan.at));
    char line[4400];
    int size = snprintf(line, sizeof line, "%ld %s %s %s\n", n, fires ? "fault" : "-", name, path);
    syscall(SYS_write, plan.log, line, size < (int)sizeof line ? size : (int)sizeof line - 1);
    if (!fires) return PASS;
    switch (plan.action) {
    case KILL: strike(SIGKILL); break;
    case RAISE: strike(plan.value); break;
    case RAISE_TWICE:
        strike(plan.value);
        if (!plan.gap) {
            nanosleep(&(struct timespec){0, 2000000}, NULL);
            strike(plan.value);
        }
        break;
    case FAIL: case FAIL_FROM: return REFUSED;
    case LIE: return LYING;
    case TEAR: return TORN;
    case SHORT: return SHORTENED;
    }
    return PASS;
}

static int fate_fd(const char *name, int fd, int kind) {
    char link[40], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return fate(name, path, kind);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define DECIDE(done, failed)                                       \
    if (what == REFUSED) { errno = plan.value; return failed; }    \
    if (what == TORN) strike(SIGKILL);                             \
    __typeof__(done) result = done;                                \
    if (what == LYING) { errno = plan.value; return failed; }      \
    return result

#define MODE(flags, mode) va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest)
#define KIND(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? WRITES : READS)

#define OPENS(name)                                                                        \
    int name(const char *path, int flags, ...) {                                           \
        REAL(name); MODE(flags, mode);                                                     \
        if (!under(-1, path)) { int fd = real(path, flags, mode); watch(fd, 0); return fd; } \
        int what = fate(#name, path, KIND(flags));                                         \
        if (what == REFUSED) { errno = plan.value; return -1; }                            \
        if (what == TORN) strike(SIGKILL);                                                 \
        int fd = real(path, flags, mode); watch(fd, 1);                                    \
        if (what == LYING) { errno = plan.value; return -1; }                              \
        return fd;                                                                         \
    }
OPENS(open)
OPENS(open64)

#define OPENATS(name)                                                                      \
    int name(int folder, const char *path, int flags, ...) {                               \
        REAL(name); MODE(flags, mode);                                                     \
        if (!under(folder, path)) { int fd = real(folder, path, flags, mode); watch(fd, 0); return fd; } \
        int what = fate(#name, path, KIND(flags));                                         \
        if (what == REFUSED) { errno = plan.value; return -1; }                            \
        if (what == TORN) strike(SIGKILL);                                                 \
        int fd = real(folder, path, flags, mode); watch(fd, 1);                            \
        if (what == LYING) { errno = plan.value; return -1; }                              \
        return fd;                                                                         \
    }
OPENATS(openat)
OPENATS(openat64)

int creat(const char *path, mode_t mode) { return open(path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

#define FOPENS(name)                                                               \
    FILE *name(const char *path, const char *mode) {                               \
        REAL(name);                                                                \
        if (!under(-1, path)) return real(path, mode);                             \
        int what = fate(#name, path, strpbrk(mode, "wa+") ? WRITES : READS);       \
        if (what == REFUSED) { errno = plan.value; return NULL; }                  \
        if (what == TORN) strike(SIGKILL);                                         \
        FILE *file = real(path, mode);                                             \
        if (file) watch(fileno(file), 1);                                          \
        if (what == LYING) { errno = plan.value; return NULL; }                    \
        return file;                                                               \
    }
FOPENS(fopen)
FOPENS(fopen64)

size_t fread(void *to, size_t size, size_t count, FILE *file) {
    REAL(fread);
    if (!known(fileno(file))) return real(to, size, count, file);
    int what = fate_fd("fread", fileno(file), READS);
    DECIDE(real(to, size, what == SHORTENED ? count / 2 : count, file), 0);
}

int close(int fd) {
    REAL(close);
    if (!known(fd)) return real(fd);
    watch(fd, 0);
    return real(fd);
}

int fclose(FILE *file) {
    REAL(fclose);
    watch(fileno(file), 0);
    return real(file);
}

/* Bytes in or out: half of them where the call is torn (and the process dies) or short. */
#define MOVES(name, kind, constant, extra, pass)                                        \
    ssize_t name(int fd, constant void *bytes, size_t size extra) {                     \
        REAL(name);                                                                     \
        if (!known(fd)) return real(fd, bytes, size pass);                              \
        int what = fate_fd(#name, fd, kind);                                            \
        if (what == REFUSED) { errno = plan.value; return -1; }                         \
        int half = (what == TORN || what == SHORTENED) && size > 1;                     \
        ssize_t done = real(fd, bytes, half ? size / 2 : size pass);                    \
        if (what == TORN) strike(SIGKILL);                                              \
        if (what == LYING) { errno = plan.value; return -1; }                           \
        return done;                                                                    \
    }
#define COMMA ,
#define NONE
MOVES(read, READS, NONE, NONE, NONE)
MOVES(pread, READS, NONE, COMMA off_t place, COMMA place)
MOVES(pread64, READS, NONE, COMMA off64_t place, COMMA place)
MOVES(write, WRITES, const, NONE, NONE)
MOVES(pwrite, WRITES, const, COMMA off_t place, COMMA place)
MOVES(pwrite64, WRITES, const, COMMA off64_t place, COMMA place)

#define VECTORS(name, extra, pass)                                              \
    ssize_t name(int fd, const struct iovec *parts, int count extra) {          \
        REAL(name);                                                             \
        if (!known(fd)) return real(fd, parts, count pass);                     \
        int what = fate_fd(#name, fd, WRITES);                                  \
        DECIDE(real(fd, parts, count pass), -1);                                \
    }
VECTORS(writev, NONE, NONE)
VECTORS(pwritev, COMMA off_t place, COMMA place)
VECTORS(pwritev64, COMMA off64_t place, COMMA place)

#define ON_FD(name, kind, declared, passed)                 \
    int name declared {                                     \
        REAL(name);                                         \
        if (!known(fd)) return real passed;                 \
        int what = fate_fd(#name, fd, kind);                \
        DECIDE(real passed, -1);                            \
    }
ON_FD(fsync, WRITES, (int fd), (fd))
ON_FD(fdatasync, WRITES, (int fd), (fd))
ON_FD(ftruncate, WRITES, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, WRITES, (int fd, off64_t size), (fd, size))
ON_FD(futimens, WRITES, (int fd, const struct timespec times[2]), (fd, times))
ON_FD(fstat, READS, (int fd, struct stat *into), (fd, into))
ON_FD(fstat64, READS, (int fd, struct stat64 *into), (fd, into))

#define ON_PATH(name, kind, folder, path, declared, passed) \
    int name declared {                                     \
        REAL(name);                                         \
        if (!under(folder, path)) return real passed;       \
        int what = fate(#name, path, kind);                 \
        DECIDE(real passed, -1);                            \
    }
ON_PATH(rename, WRITES, -1, to, (const char *from, const char *to), (from, to))
ON_PATH(renameat, WRITES, b, to, (int a, const char *from, int b, const char *to), (a, from, b, to))
ON_PATH(link, WRITES, -1, to, (const char *from, const char *to), (from, to))
ON_PATH(linkat, WRITES, b, to, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
ON_PATH(unlink, WRITES, -1, path, (const char *path), (path))
ON_PATH(unlinkat, WRITES, a, path, (int a, const char *path, int flags), (a, path, flags))
ON_PATH(mkdir, WRITES, -1, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, WRITES, a, path, (int a, const char *path, mode_t mode), (a, path, mode))
ON_PATH(truncate, WRITES, -1, path, (const char *path, off_t size), (path, size))
ON_PATH(truncate64, WRITES, -1, path, (const char *path, off64_t size), (path, size))
ON_PATH(utime, WRITES, -1, path, (const char *path, const struct utimbuf *times), (path, times))
ON_PATH(utimes, WRITES, -1, path, (const char *path, const struct timeval times[2]), (path, times))
ON_PATH(utimensat, WRITES, a, path, (int a, const char *path, const struct timespec times[2], int flags),
        (a, path, times, flags))
ON_PATH(stat, READS, -1, path, (const char *path, struct stat *into), (path, into))
ON_PATH(stat64, READS, -1, path, (const char *path, struct stat64 *into), (path, into))
ON_PATH(lstat, READS, -1, path, (const char *path, struct stat *into), (path, into))
ON_PATH(lstat64, READS, -1, path, (const char *path, struct stat64 *into), (path, into))
ON_PATH(fstatat, READS, a, path, (int a, const char *path, struct stat *into, int flags), (a, path, into, flags))
ON_PATH(fstatat64, READS, a, path, (int a, const char *path, struct stat64 *into, int flags), (a, path, into, flags))

DIR *opendir(const char *path) {
    REAL(opendir);
    if (!under(-1, path)) return real(path);
    int what = fate("opendir", path, READS);
    DECIDE(real(path), NULL);
}
