/*
 * Descriptors that came from a client, who chooses what they are. To ask some for anything, or to close them, can take as
 * long as somebody else likes: a file on FUSE until its server answers, a TCP socket until what is unsent is (SO_LINGER).
 */
#include "hotpath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECEIVES = 4096 }; /* of what nobody received from one socket */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int *waiting; /* to be closed by the thread */
static size_t count, capacity;
static pid_t owner; /* the process that has the thread, or 0: a child that is forked off has none */

/*
 * Memory can be sealed (tmpfs, a memfd, hugetlbfs). Other file systems than that and those of disks have no device
 * number of a disk: FUSE and those of a network could have each access wait. Even to ask for the file's attributes, or
 * the file system's, would, so nothing is asked that the kernel does not know.
 */
int descriptor_file(int fd, struct statx *file)
{
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, file) < 0)
        return -errno;
    if (!S_ISREG(file->stx_mode) || (!file->stx_dev_major && fcntl(fd, F_GET_SEALS) < 0))
        return -EOPNOTSUPP;
    return 0;
}

int descriptors_beside(struct msghdr *message, int fds[static PVU_FDS_BESIDE])
{
    int found = 0;

    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        size_t size = part->cmsg_len - CMSG_LEN(0);

        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        memcpy(fds + found, CMSG_DATA(part), size);
        found += (int)(size / sizeof(fds[0]));
    }
    return found;
}

static bool closes_at_once(int fd)
{
    static const char eventfd[] = "anon_inode:[eventfd]";
    struct statx file = { 0 };
    char path[32], name[sizeof(eventfd)];

    if (descriptor_file(fd, &file) == 0 || S_ISFIFO(file.stx_mode))
        return true;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return readlink(path, name, sizeof(name)) == (ssize_t)strlen(eventfd) && !memcmp(name, eventfd, strlen(eventfd));
}

/* What nobody received from a socket may have descriptors beside it, which would be closed with it. */
static void drain(int fd)
{
    _Alignas(struct cmsghdr) char control[RX_CONTROL];
    char data[4096];
    int family = AF_UNSPEC;
    socklen_t size = sizeof(family);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 || family != AF_UNIX)
        return;
    for (int i = 0; i < RECEIVES; i++) {
        struct iovec part = { .iov_base = data, .iov_len = sizeof(data) };
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
        };

        if (recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
            return;
        for (int fds[PVU_FDS_BESIDE], n = descriptors_beside(&message, fds); n;)
            pvu_drop(fds[--n]);
    }
}

static void *close_all(void *none)
{
    static const struct linger no = { 0 };

    for (;;) {
        int fd;

        pthread_mutex_lock(&lock);
        if (!count) {
            owner = 0;
            pthread_mutex_unlock(&lock);
            return none;
        }
        fd = waiting[--count];
        pthread_mutex_unlock(&lock);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &no, sizeof(no));
        drain(fd);
        close(fd);
    }
}

static bool start(void)
{
    pthread_attr_t detached;
    pthread_t thread;
    sigset_t all, before;
    bool started;

    if (pthread_attr_init(&detached))
        return false;
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are for Python's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, &detached, close_all, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    return started;
}

/* Leaves a descriptor to the thread, which runs as long as there are any. */
static bool leave(int fd)
{
    bool left = true;

    pthread_mutex_lock(&lock);
    if (count == capacity) {
        size_t more = capacity ? 2 * capacity : 64;
        int *fds = realloc(waiting, more * sizeof(*fds));

        left = fds;
        if (fds) {
            waiting = fds;
            capacity = more;
        }
    }
    if (left) {
        waiting[count++] = fd;
        if (owner != getpid()) {
            owner = start() ? getpid() : 0;
            left = owner;
            count -= !left;
        }
    }
    pthread_mutex_unlock(&lock);
    return left;
}

void pvu_drop(int fd)
{
    if (fd >= 0 && (closes_at_once(fd) || !leave(fd)))
        close(fd);
}

void pvu_hang_up(int socket)
{
    int unread = 0;

    shutdown(socket, SHUT_RDWR); /* no more can come */
    if (ioctl(socket, SIOCINQ, &unread) == 0 && unread)
        drain(socket);
    close(socket);
}
