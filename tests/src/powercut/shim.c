/*
 * Keeps a journal of what a process does to the files below its working folder, and of what it
 * tells others, in one order. Loaded with LD_PRELOAD; `powercut/mod.rs` reads the journal and makes
 * the disk of any moment, as a power cut leaves it.
 *
 * Nothing is synced in truth: a sync is an entry in the journal, and that is what the replay heeds.
 * One mutex is held over each call and its entry, so that the journal's order is what happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, RENAME, UNLINK, MKDIR, SENT };

#define FDS_MAX 65536
#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static char root[PATH_MAX];
static uint64_t inode_of[FDS_MAX]; /* 0: not a file below the root */

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("POWERCUT_JOURNAL");
    if (!path || !getcwd(root, sizeof root)) return;
    journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note(enum kind kind, uint64_t a, uint64_t b, const void *bytes, uint32_t length) {
    struct __attribute__((packed)) { uint8_t kind; uint64_t a, b; uint32_t length; } head =
        {(uint8_t)kind, a, b, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)bytes, length}};
    if (journal < 0) return;
    ssize_t whole = (ssize_t)sizeof head + length;
    if (REAL(writev)(journal, parts, 2) != whole) abort(); /* A journal with a hole proves nothing. */
}

/* The whole path, when it is below the root. */
static int below(int folder, const char *path, char *out) {
    char base[PATH_MAX] = "";
    if (path[0] != '/') {
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n < 0) return 0;
            base[n] = 0;
        }
    }
    while (path[0] == '.' && path[1] == '/') path += 2;
    if (snprintf(out, PATH_MAX, "%s%s%s", base, base[0] ? "/" : "", path) >= PATH_MAX) return 0;
    size_t n = strlen(root);
    return journal >= 0 && !strncmp(out, root, n) && (out[n] == '/' || !out[n]);
}

static uint64_t file_of(int fd) {
    return fd >= 0 && fd < FDS_MAX ? inode_of[fd] : 0;
}

static int opened(int fd, const char *path, int flags) {
    struct stat st;
    if (fd < 0 || fd >= FDS_MAX || fstat(fd, &st)) return fd;
    inode_of[fd] = S_ISREG(st.st_mode) ? st.st_ino : 0;
    if (inode_of[fd]) note(OPEN, st.st_ino, (flags & O_TRUNC) != 0, path, strlen(path));
    return fd;
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    if (!below(folder, path, whole)) return REAL(openat)(folder, path, flags, mode);
    pthread_mutex_lock(&order);
    int fd = opened(REAL(openat)(folder, path, flags, mode), whole, flags);
    int error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); \
    }
int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_at(at, path, flags, mode); }

/* Whether what is written there is told to somebody: sockets, and standard output. */
static int is_told(int fd) {
    struct stat st;
    if (journal < 0 || fd == journal) return 0;
    return fd == 1 || (!fstat(fd, &st) && S_ISSOCK(st.st_mode));
}

int close(int fd) {
    pthread_mutex_lock(&order);
    if (fd >= 0 && fd < FDS_MAX) inode_of[fd] = 0;
    /* The next socket gets this number: its first line is not the rest of this one's last. */
    if (is_told(fd)) note(SENT, (uint64_t)fd, 0, "\n", 1);
    int result = REAL(close)(fd);
    int error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

static void wrote(int fd, int told, off_t at, const struct iovec *parts, int count, ssize_t written) {
    uint64_t inode = file_of(fd);
    if (written <= 0 || (!inode && !told)) return;
    if (inode && at < 0) at = lseek(fd, 0, SEEK_CUR) - written;
    for (int i = 0; i < count && written > 0; i++) {
        size_t n = parts[i].iov_len < (size_t)written ? parts[i].iov_len : (size_t)written;
        if (inode) note(WRITE, inode, (uint64_t)at, parts[i].iov_base, (uint32_t)n);
        else note(SENT, (uint64_t)fd, 0, parts[i].iov_base, (uint32_t)n);
        at += (off_t)n;
        written -= (ssize_t)n;
    }
}

#define NOTED(fd, at, parts, count, call) \
    do { \
        int told = is_told(fd); \
        if (!told && !file_of(fd)) return call; \
        pthread_mutex_lock(&order); \
        ssize_t written = call; \
        int error = errno; \
        wrote(fd, told, at, parts, count, written); \
        pthread_mutex_unlock(&order); \
        errno = error; \
        return written; \
    } while (0)

#define ONE(bytes, n) struct iovec one = {(void *)(bytes), n}
ssize_t write(int fd, const void *p, size_t n) { ONE(p, n); NOTED(fd, -1, &one, 1, REAL(write)(fd, p, n)); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { ONE(p, n); NOTED(fd, at, &one, 1, REAL(pwrite)(fd, p, n, at)); }
ssize_t pwrite64(int fd, const void *p, size_t n, off_t at) { ONE(p, n); NOTED(fd, at, &one, 1, REAL(pwrite)(fd, p, n, at)); }
ssize_t writev(int fd, const struct iovec *v, int n) { NOTED(fd, -1, v, n, REAL(writev)(fd, v, n)); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { NOTED(fd, at, v, n, REAL(pwritev)(fd, v, n, at)); }
ssize_t send(int fd, const void *p, size_t n, int f) { ONE(p, n); NOTED(fd, -1, &one, 1, REAL(send)(fd, p, n, f)); }
ssize_t sendto(int fd, const void *p, size_t n, int f, const struct sockaddr *to, socklen_t tn) {
    ONE(p, n);
    NOTED(fd, -1, &one, 1, REAL(sendto)(fd, p, n, f, to, tn));
}
ssize_t sendmsg(int fd, const struct msghdr *m, int f) {
    NOTED(fd, -1, m->msg_iov, (int)m->msg_iovlen, REAL(sendmsg)(fd, m, f));
}

static int truncated(int fd, off_t size) {
    uint64_t inode = file_of(fd);
    if (!inode) return REAL(ftruncate)(fd, size);
    pthread_mutex_lock(&order);
    int result = REAL(ftruncate)(fd, size);
    int error = errno;
    if (!result) note(TRUNCATE, inode, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}
int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size); }

static int synced(int fd) {
    struct stat st;
    char link[64], path[PATH_MAX];
    if (journal < 0 || fstat(fd, &st)) return REAL(fsync)(fd);
    pthread_mutex_lock(&order);
    if (S_ISDIR(st.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path);
        if (n > 0) note(SYNC_FOLDER, 0, 0, path, (uint32_t)n);
    } else if (file_of(fd)) {
        note(SYNC, file_of(fd), 0, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    return 0;
}
int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

#define NAMED(kind, text, length, call) \
    do { \
        pthread_mutex_lock(&order); \
        int result = call; \
        int error = errno; \
        if (!result) note(kind, 0, 0, text, (uint32_t)(length)); \
        pthread_mutex_unlock(&order); \
        errno = error; \
        return result; \
    } while (0)

int unlinkat(int at, const char *path, int flags) {
    char whole[PATH_MAX];
    if (!below(at, path, whole)) return REAL(unlinkat)(at, path, flags);
    NAMED(UNLINK, whole, strlen(whole), REAL(unlinkat)(at, path, flags));
}
int unlink(const char *path) {
    char whole[PATH_MAX];
    if (!below(AT_FDCWD, path, whole)) return REAL(unlink)(path);
    NAMED(UNLINK, whole, strlen(whole), REAL(unlink)(path));
}
int mkdir(const char *path, mode_t mode) {
    char whole[PATH_MAX];
    if (!below(AT_FDCWD, path, whole)) return REAL(mkdir)(path, mode);
    NAMED(MKDIR, whole, strlen(whole), REAL(mkdir)(path, mode));
}
int rename(const char *from, const char *to) {
    char both[2 * PATH_MAX], target[PATH_MAX];
    if (!below(AT_FDCWD, from, both) || !below(AT_FDCWD, to, target)) return REAL(rename)(from, to);
    size_t n = strlen(both);
    strcpy(both + n + 1, target);
    NAMED(RENAME, both, n + 1 + strlen(target), REAL(rename)(from, to));
}
