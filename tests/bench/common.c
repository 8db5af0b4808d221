/* Sockets and clocks. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

void die(const char *what, ...)
{
    va_list arguments;

    va_start(arguments, what);
    vfprintf(stderr, what, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec time;

    if (clock_gettime(clock, &time) < 0)
        return 0;
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

double now(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double cpu_of(pid_t pid)
{
    clockid_t clock;

    return pid && clock_getcpuclockid(pid, &clock) == 0 ? seconds_of(clock) : 0;
}

int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path))
        die("a socket's path must be shorter than %zu bytes, not %s", sizeof(address.sun_path), path);
    strcpy(address.sun_path, path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("cannot connect to %s: %s", path, strerror(errno));
    return fd;
}

void send_all(int socket, const void *data, size_t size, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(fd))] = { 0 };
    struct iovec part = { (void *)data, size };
    struct msghdr whole = { .msg_iov = &part, .msg_iovlen = 1 };

    if (fd >= 0) {
        struct cmsghdr *beside = (struct cmsghdr *)control;

        *beside = (struct cmsghdr){ CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS };
        memcpy(CMSG_DATA(beside), &fd, sizeof(fd));
        whole.msg_control = control;
        whole.msg_controllen = sizeof(control);
    }
    while (part.iov_len) {
        ssize_t sent = fd >= 0 ? sendmsg(socket, &whole, MSG_NOSIGNAL)
                               : send(socket, part.iov_base, part.iov_len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            die("cannot send: %s", strerror(errno));
        part.iov_base = (char *)part.iov_base + sent;
        part.iov_len -= (size_t)sent;
        fd = -1;
    }
}

size_t receive_all(int socket, void *data, size_t size, bool poll)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got = recv(socket, (char *)data + done, size - done, poll ? MSG_DONTWAIT : 0);

        if (got < 0 && (errno == EINTR || (errno == EAGAIN && poll)))
            continue;
        if (got < 0 && errno == EAGAIN)
            die("no answer came in time");
        if (got < 0)
            die("cannot receive: %s", strerror(errno));
        if (got == 0 && done)
            die("the peer left in the middle of a message");
        if (got == 0)
            return 0;
        done += (size_t)got;
    }
    return done;
}

size_t receive_with_fd(int socket, void *data, size_t size, int *fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(*fd))];
    struct iovec part = { data, size };
    struct msghdr whole = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    ssize_t got = recvmsg(socket, &whole, MSG_CMSG_CLOEXEC);
    struct cmsghdr *beside = CMSG_FIRSTHDR(&whole);

    if (got < 0)
        die("cannot receive: %s", strerror(errno));
    *fd = -1;
    if (beside && beside->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(beside), sizeof(*fd));
    return (size_t)got;
}
