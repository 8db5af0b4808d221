/* The poller: gives each session its turn, and waits when none has work; how it waits is in epoll.c and uring.c. */
#include "poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    STREAK = 16,         /* turns from the queue before others get a look in */
    BUSY_NS = 50000000,  /* longest stay in C while there is traffic: Python must see its signals */
    CLOCK = 16,          /* waits between two looks at the clock for that */
    HITS = 64,           /* messages that were waited for by spinning, between two checks of what that costs */
    LOOK = 16,           /* attempts to receive between two looks at everything else */
    MAX_PENALTY = 4096,  /* waits without spinning after it was in vain again and again */
    PAGE = 4096,
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

/* PYVFIO_USER_ENGINE is "epoll" or "io_uring"; by default the latter, where it can be had. */
static int open_engine(pvu_poller *poller)
{
    const char *engine = getenv("PYVFIO_USER_ENGINE");
    int status = epoll_open(poller);

    if (status < 0 || (engine && strcmp(engine, "epoll") == 0))
        return status;
    if (engine && *engine && strcmp(engine, "io_uring") != 0)
        return -EINVAL;
    poller->ring = uring_open();
    return !poller->ring && engine && *engine ? -errno : 0;
}

pvu_poller *pvu_poller_new(void)
{
    pvu_poller *poller = calloc(1, sizeof(*poller));
    int status;

    if (!poller)
        return NULL;
    poller->epoll = -1;
    poller->last = &poller->first;
    poller->penalty = 1;
    poller->origin = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (poller->origin == MAP_FAILED) {
        free(poller);
        return NULL;
    }
    status = madvise(poller->origin, PAGE, MADV_WIPEONFORK) < 0 ? -errno : 0;
    *poller->origin = 1;
    if (status == 0)
        status = open_engine(poller);
    if (status < 0) {
        pvu_poller_free(poller);
        errno = -status;
        return NULL;
    }
    return poller;
}

void pvu_poller_free(pvu_poller *poller)
{
    bells_leave(poller);
    if (poller->ring)
        uring_close(poller->ring);
    if (poller->epoll >= 0)
        close(poller->epoll);
    buffers_free(poller);
    munmap(poller->origin, PAGE);
    free(poller);
}

const char *pvu_poller_engine(const pvu_poller *poller)
{
    return poller->ring ? "io_uring" : "epoll";
}

void pvu_poller_spin(pvu_poller *poller, uint32_t budget)
{
    poller->spin_ns = (uint64_t)budget * 1000;
}

int pvu_poller_fd(pvu_poller *poller)
{
    return poller->ring ? uring_fd(poller->ring) : poller->epoll;
}

pvu_event *pvu_poller_event(pvu_poller *poller)
{
    return &poller->event;
}

int pvu_poller_watch(pvu_poller *poller, int fd, uint32_t events, int known)
{
    struct epoll_event event = { .events = events, .data.u64 = foreign(fd) };
    int what = !events ? EPOLL_CTL_DEL : known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (!*poller->origin)
        return -ECHILD;
    if (!events)
        epoll_forget(poller, foreign(fd));
    return epoll_ctl(poller->epoll, what, fd, &event) < 0 ? -errno : 0;
}

int pvu_poller_submit(pvu_poller *poller)
{
    return poller->ring && *poller->origin ? uring_submit(poller->ring) : 0;
}

/* Sessions with work at hand */

void poller_enqueue(pvu_poller *poller, pvu_session *session)
{
    if (session->queued)
        return;
    session->queued = true;
    session->next = NULL;
    *poller->last = session;
    poller->last = &session->next;
}

void poller_put_off(pvu_poller *poller, pvu_session *session)
{
    poller_enqueue(poller, session);
    poller->streak = STREAK;
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

/* What a session wants of the engine */

void poller_update(pvu_poller *poller, pvu_session *session)
{
    bool receive = !poller->ring && !session->blocked;
    /* What waits for room goes on when there is some, be it that Python has sent all that was in the way. */
    bool send = session->blocked || session->starved || (session->tx_head < session->tx_tail && !session->tx_queued);

    if (!session->over)
        epoll_interest(poller, session, (receive ? EPOLLIN : 0) | (send ? EPOLLOUT : 0));
}

bool poller_send(pvu_poller *poller, pvu_session *session)
{
    return !session->over && poller->ring && !poller->spinning && uring_send(poller->ring, session);
}

static void receive(pvu_poller *poller, pvu_session *session)
{
    if (poller->ring && !session->receiving && !session->owed && !session->blocked && !session->over)
        uring_receive(poller->ring, session);
}

/* The session served last is asked for only when there is no spinning, which would receive from it itself. */
void poller_receive(pvu_poller *poller, pvu_session *session)
{
    if (!poller->spin_ns || session != poller->hot)
        receive(poller, session);
}

void poller_settle(pvu_poller *poller, pvu_session *session)
{
    if (session->tx_queued && *poller->origin)
        (void)uring_submit(poller->ring);
}

void poller_remove(pvu_poller *poller, pvu_session *session)
{
    pvu_session **link = &poller->first;

    epoll_interest(poller, session, 0);
    epoll_forget(poller, (uintptr_t)session);
    if (poller->hot == session)
        poller->hot = NULL;
    while (session->queued && *link != session)
        link = &(*link)->next;
    if (session->queued) {
        *link = session->next;
        if (!*link)
            poller->last = link;
        session->queued = false;
    }
}

bool poller_forget(pvu_poller *poller, pvu_session *session)
{
    bool forgotten = !poller->ring || (*poller->origin && uring_forget(poller->ring, session));

    poller_remove(poller, session);
    return forgotten;
}

bool poller_forked(const pvu_poller *poller)
{
    return !*poller->origin;
}

/* Serving */

static int serve(pvu_poller *poller, pvu_session *session)
{
    pvu_session *before = poller->hot;
    int kind = session->deferred;

    poller->hot = session;
    if (before && before != session)
        receive(poller, before);
    poller->served = true;
    session->deferred = PVU_NONE;
    if (kind != PVU_NONE)
        poller->event = session->event;
    else if (!session->owed)
        kind = session_serve(session, &poller->event);
    if (kind == PVU_DOORBELLS || kind == PVU_TRANSFERRED)
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
    if (ready->events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !session->owed && !session->blocked && !session->receiving)
        session_receive(session);
    return serve(poller, session);
}

static int serve_found(pvu_poller *poller)
{
    int kind = PVU_NONE;

    while (kind == PVU_NONE && poller->ready_next < poller->ready_count)
        kind = serve_ready(poller, &poller->ready[poller->ready_next++]);
    while (kind == PVU_NONE && poller->first && poller->streak++ < STREAK)
        kind = serve(poller, dequeue(poller));
    return kind;
}

/* Waiting */

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int look(pvu_poller *poller, int64_t timeout)
{
    poller->streak = 0;
    if (poller->hot && !poller->spinning)
        receive(poller, poller->hot);
    return poller->ring ? uring_wait(poller->ring, poller, timeout) : epoll_look(poller, timeout);
}

static bool found(const pvu_poller *poller)
{
    return poller->first || poller->ready_next < poller->ready_count;
}

/*
 * Bells that were rung, of those that are due. However often that is: what waits to be sent goes out, and all else gets a
 * look in now and then.
 */
static int ring(pvu_poller *poller, uint64_t time)
{
    int kind = bells_look(poller, time);

    if (kind == PVU_NONE)
        return kind;
    poller->served = true;
    if (++poller->rings % STREAK == 0 && !found(poller)) {
        poller->spinning = false; /* so that the session served last is asked for, too */
        (void)look(poller, 0);    /* what fails will fail again, and be told when there is no ring to tell */
    } else {
        (void)pvu_poller_submit(poller);
    }
    return kind;
}

static long preemptions(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : usage.ru_nivcsw;
}

/*
 * A client on the same processor answers only while this thread does not run: messages then come soon because it was
 * preempted, and it would better have slept. Told from one in eight of the last messages.
 */
static bool in_the_way(pvu_poller *poller)
{
    poller->penalty = poller->penalty > 1 ? poller->penalty / 2 : 1; /* it was worth it */
    if (poller->hits++ % HITS == 0)
        poller->preempted = preemptions();
    return poller->hits % HITS == 0 && preemptions() - poller->preempted > HITS / 8;
}

static void give_up(pvu_poller *poller, uint32_t penalty)
{
    poller->skip = penalty;
    poller->penalty = penalty < MAX_PENALTY ? 2 * penalty : MAX_PENALTY;
}

/*
 * Looks again and again for the next message of the session served last, and now and then for all else, until `until`.
 * Returns an event, PVU_NONE when something else was found or there is nothing, or a negative errno.
 */
static int look_often(pvu_poller *poller, uint64_t until)
{
    uint64_t time, limit = 0; /* of the time for the next message; told when the clock is looked at anyhow */
    uint32_t looks = 0;       /* since the last one */
    int status;

    for (;;) {
        pvu_session *hot = poller->hot;
        bool others = ++poller->attempts % LOOK == 0;

        if (poller->bells && (status = ring(poller, EVERY_BELL)) != PVU_NONE) {
            if (in_the_way(poller))
                give_up(poller, MAX_PENALTY);
            return status;
        }
        if (hot && !hot->receiving && !hot->blocked && session_look(hot, ++looks)) {
            int kind = serve(poller, hot);

            if (in_the_way(poller)) {
                give_up(poller, MAX_PENALTY);
                return kind;
            }
            if (kind != PVU_NONE || !poller->hot)
                return kind;
            limit = 0;
            looks = 0;
            others |= poller->hot->singles < SINGLES; /* it may have been many messages, and have taken long */
        }
        if (others || !hot || hot->receiving || hot->blocked) {
            if (!poller->ring || uring_pending(poller->ring)) {
                status = look(poller, 0);
                if (status < 0 || found(poller))
                    return status;
            }
            time = now();
            if (time >= until)
                return PVU_NONE;
            if (!limit)
                limit = time + poller->spin_ns;
            else if (time >= limit)
                break;
        }
    }
    give_up(poller, poller->penalty);
    return PVU_NONE;
}

/* The same, after what waits to be sent: replies go out at once as long as it lasts, and the ring does not receive. */
static int spin(pvu_poller *poller, uint64_t until)
{
    int status = 0;

    if (poller->ring)
        status = poller->hot ? uring_stop(poller->ring, poller->hot) : uring_submit(poller->ring);

    if (status < 0 || found(poller))
        return status;
    poller->spinning = true;
    status = look_often(poller, until);
    poller->spinning = false;
    return status;
}

/* Is it time to try? Only what was served lately is worth it. */
static bool worth_spinning(pvu_poller *poller)
{
    if (!poller->spin_ns || !poller->served || !(poller->hot || poller->bells))
        return false;
    poller->served = false;
    if (poller->skip) {
        poller->skip--;
        return false;
    }
    return true;
}

int pvu_poller_next(pvu_poller *poller, int64_t timeout)
{
    uint64_t begun = 0, end = UINT64_MAX, time, nap = 0;
    uint32_t waits = 0;
    bool napping;

    if (!*poller->origin)
        return -ECHILD;
    for (;;) {
        int kind = serve_found(poller);
        int64_t wait = timeout;

        if (kind != PVU_NONE || timeout < -1)
            return kind;
        if (!timeout && waits && (!poller->first || poller->ring)) {
            if (poller->first)
                uring_wake(poller->ring);
            return pvu_poller_submit(poller); /* one look: there can always be more, and Python has other work */
        }
        if (timeout > 0 || poller->bells || (timeout && waits % CLOCK == 0)) {
            time = now();
            if (poller->bells && (kind = ring(poller, time)) != PVU_NONE)
                return kind;
            if (!begun) {
                begun = time;
                if (timeout > 0)
                    end = begun + (uint64_t)timeout;
            } else if (time >= end || time - begun >= BUSY_NS) {
                return PVU_NONE;
            }
            if (timeout > 0)
                wait = (int64_t)(end - time);
            nap = bells_due(poller) - time;
        }
        if (poller->first) {
            wait = 0;
        } else if (wait && worth_spinning(poller)) {
            kind = spin(poller, end < begun + BUSY_NS ? end : begun + BUSY_NS);
            if (kind != PVU_NONE)
                return kind;
            continue;
        }
        napping = poller->bells && (wait < 0 || (uint64_t)wait > nap);
        kind = look(poller, napping ? (int64_t)nap : wait);
        waits++;
        if (kind < 0)
            return kind;
        if (!found(poller) && !(napping && now() >= bells_due(poller)))
            return PVU_NONE; /* time is up, or a signal came */
    }
}
