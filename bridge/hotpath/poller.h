/* What the parts of the poller share: poller.c serves sessions in turn; epoll.c and uring.c are what it waits with. */
#ifndef PVU_POLLER_H
#define PVU_POLLER_H

#include <sys/epoll.h>

#include "hotpath.h"

enum { POLLER_BATCH = 64 }; /* descriptors taken from epoll at once */

typedef struct uring uring;

struct pvu_poller {
    int epoll;    /* other descriptors, and sessions: without a ring all, with it those that wait to send */
    uring *ring;  /* or NULL */
    char *origin; /* 1 here, 0 in a child that was forked off, which must leave what it shares alone */
    pvu_event event;
    pvu_session *first, **last; /* sessions with work at hand */
    struct epoll_event ready[POLLER_BATCH];
    int ready_next, ready_count;
    int streak;
    uint8_t *buffers; /* of a session that ended, or NULL */
    pvu_bells *bells; /* that it looks at, in the order of their turns */
    uint32_t rings;   /* looks that found something */

    /* Spinning: instead of sleeping, for a while, when the last attempts showed that it is worth it. */
    uint64_t spin_ns;
    pvu_session *hot; /* the session served last */
    bool spinning;    /* it is received from again and again; the ring has neither its receive nor its replies */
    bool served;      /* since the last wait */
    uint32_t attempts;
    uint32_t hits;    /* messages that came meanwhile */
    long preempted;   /* involuntary switches of the thread, when the last HITS of them began */
    uint32_t skip;    /* waits until the next attempt */
    uint32_t penalty; /* what `skip` becomes when an attempt fails */
};

/* bells.c */

#define EVERY_BELL UINT64_MAX

/* Looks at those that are due at `time`, or at all with EVERY_BELL: PVU_RUNG or PVU_NONE. */
int bells_look(pvu_poller *poller, uint64_t time);
/* When the next look is due; UINT64_MAX without bells. */
uint64_t bells_due(const pvu_poller *poller);
/* The poller goes. */
void bells_leave(pvu_poller *poller);

/* epoll.c */

int epoll_open(pvu_poller *poller);
/* Fills `ready`; 0 or a negative errno. `timeout` is in ns, -1 for no limit. */
int epoll_look(pvu_poller *poller, int64_t timeout);
/* Has `epoll` tell of `events` on a session's socket. */
void epoll_interest(pvu_poller *poller, pvu_session *session, uint32_t events);
/* Nothing that was found ready for this is told any more. */
void epoll_forget(pvu_poller *poller, uint64_t data);

/* uring.c */

/* NULL when there is no io_uring to be had; errno says why. */
uring *uring_open(void);
void uring_close(uring *ring);
/* Readable when there is something; -1 or a negative errno when that cannot be had. */
int uring_fd(uring *ring);
/* Makes that readable, for there is more to do. */
void uring_wake(uring *ring);
/* Sends all that waits in `tx` with the next system call: false if that must be done otherwise. */
bool uring_send(uring *ring, pvu_session *session);
/* Receives into the session, which is enqueued when there is something, until it is stopped. */
void uring_receive(uring *ring, pvu_session *session);
/* Does at once what is to be sent and received; 0 or a negative errno. */
int uring_submit(uring *ring);
/* The same, then waits as epoll_look does, for sessions and for `epoll`. */
int uring_wait(uring *ring, pvu_poller *poller, int64_t timeout);
/* Is there something to find without waiting? */
bool uring_pending(const uring *ring);
/* Receives no more, as far as that can be had; 0 or a negative errno. */
int uring_stop(uring *ring, pvu_session *session);
/* The kernel leaves the session alone from now on. False if that cannot be had. */
bool uring_forget(uring *ring, pvu_session *session);

#endif
