/*
 * Waiting: one epoll for the sessions of an event loop and for its other descriptors. Only this file knows how it is
 * waited.
 */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64,         /* descriptors taken from epoll at once */
    STREAK = 64,        /* sessions served from what they have received, before others get a look in */
    BUSY_NS = 10000000, /* longest stay in C while there is traffic: Python must see its signals */
};

struct pvu_poller {
    int epoll;
    pvu_event event;
    pvu_session *first, **last; /* sessions with work at hand */
    struct epoll_event ready[BATCH];
    int ready_next, ready_count;
    int streak;
};

/* Descriptors that are no session's are told from pointers by their lowest bit. */
static uint64_t foreign(int fd)
{
    return (uint64_t)(uint32_t)fd << 1 | 1;
}

static void *session_of(uint64_t data)
{
    return (void *)(uintptr_t)data;
}

pvu_poller *pvu_poller_new(void)
{
    pvu_poller *poller = calloc(1, sizeof(*poller));

    if (!poller)
        return NULL;
    poller->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (poller->epoll < 0) {
        free(poller);
        return NULL;
    }
    poller->last = &poller->first;
    return poller;
}

void pvu_poller_free(pvu_poller *poller)
{
    close(poller->epoll);
    free(poller);
}

int pvu_poller_fd(const pvu_poller *poller)
{
    return poller->epoll;
}

pvu_event *pvu_poller_event(pvu_poller *poller)
{
    return &poller->event;
}

int pvu_poller_watch(pvu_poller *poller, int fd, uint32_t events, int known)
{
    struct epoll_event event = { .events = events, .data.u64 = foreign(fd) };
    int what = !events ? EPOLL_CTL_DEL : known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (!events)
        for (int i = poller->ready_next; i < poller->ready_count; i++)
            if (poller->ready[i].data.u64 == foreign(fd))
                poller->ready[i].data.u64 = 0;
    return epoll_ctl(poller->epoll, what, fd, &event) < 0 ? -errno : 0;
}

int poller_add(pvu_poller *poller, pvu_session *session)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uintptr_t)session };

    session->interest = event.events;
    return epoll_ctl(poller->epoll, EPOLL_CTL_ADD, session->fd, &event);
}

void poller_update(pvu_poller *poller, pvu_session *session)
{
    uint32_t interest = (session->blocked ? 0 : EPOLLIN) | (session->tx_head < session->tx_tail ? EPOLLOUT : 0);
    struct epoll_event event = { .events = interest, .data.u64 = (uintptr_t)session };

    if (interest != session->interest && epoll_ctl(poller->epoll, EPOLL_CTL_MOD, session->fd, &event) == 0)
        session->interest = interest;
}

void poller_remove(pvu_poller *poller, pvu_session *session)
{
    pvu_session **link = &poller->first;

    epoll_ctl(poller->epoll, EPOLL_CTL_DEL, session->fd, NULL);
    for (int i = poller->ready_next; i < poller->ready_count; i++)
        if (session_of(poller->ready[i].data.u64) == session)
            poller->ready[i].data.u64 = 0;
    while (session->queued && *link != session)
        link = &(*link)->next;
    if (session->queued) {
        *link = session->next;
        if (!*link)
            poller->last = link;
        session->queued = false;
    }
}

void poller_enqueue(pvu_poller *poller, pvu_session *session)
{
    if (session->queued)
        return;
    session->queued = true;
    session->next = NULL;
    *poller->last = session;
    poller->last = &session->next;
}

static pvu_session *dequeue(pvu_poller *poller)
{
    pvu_session *session = poller->first;

    poller->first = session->next;
    if (!poller->first)
        poller->last = &poller->first;
    session->queued = false;
    return session;
}

static int serve(pvu_poller *poller, pvu_session *session)
{
    int kind = session->deferred;

    session->deferred = PVU_NONE;
    if (kind != PVU_NONE)
        poller->event = session->event;
    else if (!session->owed)
        kind = session_serve(session, &poller->event);
    if (kind == PVU_DOORBELLS)
        poller_enqueue(poller, session); /* it goes on when Python has heard of them */
    if (kind == PVU_NONE && session->over && !session->owed && !session->told) {
        session->told = true;
        poller->event.token = session->token;
        poller->event.value = (uint64_t)session->error;
        return PVU_CLOSED;
    }
    return kind;
}

static int serve_ready(pvu_poller *poller, const struct epoll_event *ready)
{
    pvu_session *session;

    if (ready->data.u64 == 0)
        return PVU_NONE;
    if (ready->data.u64 & 1) {
        poller->event.token = (uint32_t)(ready->data.u64 >> 1);
        poller->event.events = ready->events;
        return PVU_READY;
    }
    session = session_of(ready->data.u64);
    if (session->queued)
        return PVU_NONE; /* what it has received comes first */
    if (ready->events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !session->owed && !session->blocked)
        session_receive(session);
    return serve(poller, session);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* How long to wait, in milliseconds, when `begun` was the first wait of this call; below -1 for not at all. */
static int remaining(uint64_t begun, int timeout)
{
    uint64_t spent = now() - begun;

    if (spent >= BUSY_NS || !timeout)
        return -2;
    if (timeout < 0)
        return timeout;
    return spent / 1000000 < (uint64_t)timeout ? timeout - (int)(spent / 1000000) : -2;
}

int pvu_poller_next(pvu_poller *poller, int timeout)
{
    uint64_t begun = 0;

    for (;;) {
        int kind = PVU_NONE, wait = timeout;

        while (kind == PVU_NONE && poller->ready_next < poller->ready_count)
            kind = serve_ready(poller, &poller->ready[poller->ready_next++]);
        while (kind == PVU_NONE && poller->first && poller->streak++ < STREAK)
            kind = serve(poller, dequeue(poller));
        if (kind != PVU_NONE || timeout < -1)
            return kind;
        if (poller->first)
            wait = 0;
        else if (begun)
            wait = remaining(begun, timeout);
        if (wait < -1)
            return PVU_NONE;
        if (!begun)
            begun = now();
        poller->streak = 0;
        poller->ready_next = 0;
        poller->ready_count = epoll_wait(poller->epoll, poller->ready, BATCH, wait);
        if (poller->ready_count <= 0 && !poller->first)
            return PVU_NONE; /* time is up, or a signal came */
    }
}
