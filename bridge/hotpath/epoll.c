/* epoll: waits for descriptors that are no session's, and for sessions where the kernel has no io_uring. */
#include "poller.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int epoll_open(pvu_poller *poller)
{
    poller->epoll = epoll_create1(EPOLL_CLOEXEC);
    return poller->epoll < 0 ? -errno : 0;
}

/* In milliseconds, rounded up, where the kernel does not take it finer (before Linux 5.11). */
static int wait_coarsely(pvu_poller *poller, int64_t timeout)
{
    int64_t milliseconds = timeout < 0 ? -1 : timeout / 1000000 + (timeout % 1000000 != 0);

    return epoll_wait(poller->epoll, poller->ready, POLLER_BATCH, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds);
}

int epoll_look(pvu_poller *poller, int64_t timeout)
{
    struct timespec limit = { .tv_sec = timeout / 1000000000, .tv_nsec = timeout % 1000000000 };
    int found = -1;

    errno = ENOSYS;
#ifdef SYS_epoll_pwait2
    if (timeout > 0)
        found = (int)syscall(SYS_epoll_pwait2, poller->epoll, poller->ready, POLLER_BATCH, &limit, NULL, (size_t)0);
#endif
    if (found < 0 && errno == ENOSYS)
        found = wait_coarsely(poller, timeout);
    poller->ready_next = 0;
    poller->ready_count = found < 0 ? 0 : found;
    return found < 0 && errno != EINTR ? -errno : 0;
}

void epoll_interest(pvu_poller *poller, pvu_session *session, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.u64 = (uintptr_t)session };
    int what = !events ? EPOLL_CTL_DEL : session->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (events == session->interest || !*poller->origin)
        return;
    if (epoll_ctl(poller->epoll, what, session->fd, &event) == 0)
        session->interest = events;
    else
        session_end(session, errno);
}

void epoll_forget(pvu_poller *poller, uint64_t data)
{
    for (int i = poller->ready_next; i < poller->ready_count; i++)
        if (poller->ready[i].data.u64 == data)
            poller->ready[i].data.u64 = 0;
}
