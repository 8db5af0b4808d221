/*
 * Signals a client's eventfd. A write does that too, but it sleeps when the counter is full and O_NONBLOCK is not set,
 * and the client, with which the flag is shared, can see to both. The kernel's own way to signal never waits; it takes
 * it for a request that ends, asked for with IOCB_FLAG_RESFD (io_submit(2)).
 */
#include "hotpath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUESTS = 64 }; /* that ended, and were not looked at yet */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static aio_context_t context; /* of the process `owner`: a child that is forked off does not inherit it */
static pid_t owner;

/* One more request: to tell what can be done with the eventfd, which is something at any time. */
static int submit(int fd)
{
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_POLL,
        .aio_fildes = (uint32_t)fd,
        .aio_buf = POLLIN | POLLOUT,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)fd,
    };
    struct iocb *requests = &request;

    return syscall(SYS_io_submit, context, 1L, &requests) == 1 ? 0 : -errno;
}

static int signal_by_request(int fd)
{
    struct io_event ended[REQUESTS];
    struct timespec none = { 0 };
    int status;

    if (owner != getpid()) {
        owner = getpid();
        context = 0;
        if (syscall(SYS_io_setup, REQUESTS, &context) < 0)
            context = 0;
    }
    if (!context)
        return -ENOSYS;
    status = submit(fd);
    if (status == -EAGAIN && syscall(SYS_io_getevents, context, 0L, (long)REQUESTS, ended, &none) > 0)
        status = submit(fd);
    return status;
}

int pvu_signal(int fd)
{
    uint64_t one = 1;
    int status;

    pthread_mutex_lock(&lock);
    status = signal_by_request(fd);
    pthread_mutex_unlock(&lock);
    if (status != -ENOSYS && status != -EAGAIN)
        return status;
    /* Without such requests, which containers may forbid, a client that is quick enough can have this write sleep. */
    if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0 ||
        (write(fd, &one, sizeof(one)) != (ssize_t)sizeof(one) && errno != EAGAIN))
        return -errno;
    return 0;
}
