/*
 * io_uring: replies go to the kernel in the very call that waits, and it receives without being asked each time, into
 * pieces of memory that all sessions share: one call a round trip. It needs Linux 6.1, and leave to be used, which
 * containers often have not: then there is no ring, and epoll does its work.
 */
#include "poller.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <linux/time_types.h>
#endif

#if defined(IORING_SETUP_DEFER_TASKRUN) && defined(SYS_io_uring_setup)

enum {
    ENTRIES = 256,
    SEND_STEP = 16 << 10, /* what the kernel takes whole or not at all */
    CANCELS = 64,         /* calls until a receive that is cancelled must have ended */
    OFFERS = 4096,        /* a page for the list of pieces, which are behind it */
};

/* A piece: what recvmsg tells of it, descriptors that came beside it, and the bytes. */
typedef struct {
    struct io_uring_recvmsg_out told;
    _Alignas(struct cmsghdr) char control[RX_CONTROL];
    uint8_t data[RX_STEP];
} piece;

/* What a completion is of: in the low bits of a session's address. */
enum { OF_RECEIVE = 0, OF_SEND = 1, OF_EPOLL = 2, OF_CANCEL = 3, OF_MASK = 3 };

struct uring {
    int fd;
    int handle;        /* of `fd` in system calls: its index among the thread's registered rings */
    uint32_t flags;    /* of every call: is it one? */
    int eventfd;       /* tells another loop that there is work; -1 before one asked */
    const char *owner; /* the thread that enabled it, and may use it; NULL before */
    bool polling;      /* for `epoll` */
    bool epoll_ready;
    uint32_t tail;     /* behind the last entry that was made */
    pvu_session *sending;
    struct io_uring_buf_ring *offered; /* pieces that the kernel may receive into, */
    uint16_t offers;                   /* this many so far */
    piece *pieces;
    uint32_t *sq_head, *sq_tail, *sq_flags, *cq_head, *cq_tail;
    uint32_t sq_mask, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    char *rings;
    size_t rings_size, sqes_size;
};

/* Its address tells threads apart. One byte finds room where the program's own variables are, which is found faster. */
static _Thread_local char this_thread __attribute__((tls_model("initial-exec")));

static uint32_t load(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static void *map(int fd, size_t size, uint64_t offset)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)offset);

    return memory == MAP_FAILED ? NULL : memory;
}

static void offer(uring *ring, uint16_t number)
{
    ring->offered->bufs[ring->offers++ % RX_PIECES] = (struct io_uring_buf){
        .addr = (uintptr_t)&ring->pieces[number], .len = sizeof(piece), .bid = number
    };
    __atomic_store_n(&ring->offered->tail, ring->offers, __ATOMIC_RELEASE);
}

/* Shared, lest a fork moves what the kernel knows to other pages. */
static bool offer_pieces(uring *ring)
{
    struct io_uring_buf_reg list = { .ring_entries = RX_PIECES };
    char *memory = mmap(NULL, OFFERS + RX_PIECES * sizeof(piece), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0);

    if (memory == MAP_FAILED)
        return false;
    ring->offered = (struct io_uring_buf_ring *)(void *)memory;
    ring->pieces = (piece *)(void *)(memory + OFFERS);
    list.ring_addr = (uintptr_t)memory;
    if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_PBUF_RING, &list, 1) < 0)
        return false;
    for (uint16_t number = 0; number < RX_PIECES; number++)
        offer(ring, number);
    return true;
}

uring *uring_open(void)
{
    struct io_uring_params setup = {
        .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
        .cq_entries = 4 * ENTRIES,
    };
    uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;
    uring *ring = calloc(1, sizeof(*ring));
    size_t completions;

    if (!ring)
        return NULL;
    ring->eventfd = -1;
    ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &setup);
    if (ring->fd < 0) {
        free(ring);
        return NULL;
    }
    completions = setup.cq_off.cqes + setup.cq_entries * sizeof(struct io_uring_cqe);
    ring->rings_size = setup.sq_off.array + setup.sq_entries * sizeof(uint32_t);
    if (ring->rings_size < completions)
        ring->rings_size = completions;
    ring->sqes_size = setup.sq_entries * sizeof(struct io_uring_sqe);
    ring->rings = map(ring->fd, ring->rings_size, IORING_OFF_SQ_RING);
    ring->sqes = map(ring->fd, ring->sqes_size, IORING_OFF_SQES);
    if (!ring->rings || !ring->sqes || (setup.features & needed) != needed || !offer_pieces(ring)) {
        uring_close(ring);
        errno = EOPNOTSUPP;
        return NULL;
    }
    ring->sq_head = (uint32_t *)(void *)(ring->rings + setup.sq_off.head);
    ring->sq_tail = (uint32_t *)(void *)(ring->rings + setup.sq_off.tail);
    ring->sq_flags = (uint32_t *)(void *)(ring->rings + setup.sq_off.flags);
    ring->cq_head = (uint32_t *)(void *)(ring->rings + setup.cq_off.head);
    ring->cq_tail = (uint32_t *)(void *)(ring->rings + setup.cq_off.tail);
    ring->cqes = (struct io_uring_cqe *)(void *)(ring->rings + setup.cq_off.cqes);
    ring->sq_mask = setup.sq_entries - 1;
    ring->cq_mask = setup.cq_entries - 1;
    for (uint32_t i = 0; i < setup.sq_entries; i++)
        ((uint32_t *)(void *)(ring->rings + setup.sq_off.array))[i] = i;
    return ring;
}

void uring_close(uring *ring)
{
    if (ring->rings)
        munmap(ring->rings, ring->rings_size);
    if (ring->sqes)
        munmap(ring->sqes, ring->sqes_size);
    if (ring->offered)
        munmap(ring->offered, OFFERS + RX_PIECES * sizeof(piece));
    if (ring->eventfd >= 0)
        close(ring->eventfd);
    close(ring->fd);
    free(ring);
}

/* Not the ring's own: with IORING_SETUP_DEFER_TASKRUN it is not readable before the work is done. */
int uring_fd(uring *ring)
{
    if (ring->eventfd < 0) {
        /* At first readable: there may be work already. */
        ring->eventfd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
        if (ring->eventfd < 0 ||
            syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_EVENTFD, &ring->eventfd, 1) < 0)
            return -errno;
    }
    return ring->eventfd;
}

void uring_wake(uring *ring)
{
    uint64_t one = 1;

    if (ring->eventfd >= 0)
        (void)!write(ring->eventfd, &one, sizeof(one)); /* a counter that is full is readable */
}

bool uring_pending(const uring *ring)
{
    return !ring->polling || load(ring->cq_tail) != *ring->cq_head ||
           load(ring->sq_flags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static struct io_uring_sqe *entry(uring *ring, uint8_t opcode, int fd, uint64_t data);

/* Has the kernel receive no more. It does not always listen: then this is to be tried again. */
static void cancel(uring *ring, pvu_session *session)
{
    struct io_uring_sqe *sqe = entry(ring, IORING_OP_ASYNC_CANCEL, -1, (uintptr_t)session | OF_CANCEL);

    if (sqe)
        sqe->addr = (uintptr_t)session | OF_RECEIVE;
    session->cancelled = sqe;
}

static void received(uring *ring, pvu_session *session, const struct io_uring_cqe *cqe)
{
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t number = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        piece *got = &ring->pieces[number];
        struct msghdr message = {
            .msg_control = got->control, .msg_controllen = got->told.controllen, .msg_flags = (int)got->told.flags
        };

        session_received(session, got->told.payloadlen, got->data, &message);
        offer(ring, number);
    } else {
        session_received(session, cqe->res, NULL, NULL);
    }
    session->receiving = cqe->flags & IORING_CQE_F_MORE;
    if (!session->receiving)
        session->cancelled = false;
    else if (!session->cancelled && (session->over || !session_roomy(session)))
        cancel(ring, session);
    poller_enqueue(session->poller, session);
}

/* Completions: that of a send comes only when not all was sent. */
static void reap(uring *ring)
{
    uint32_t head = *ring->cq_head, tail = load(ring->cq_tail);

    for (; head != tail; head++) {
        const struct io_uring_cqe *cqe = &ring->cqes[head & ring->cq_mask];
        pvu_session *session = (void *)(uintptr_t)(cqe->user_data & ~(uint64_t)OF_MASK);

        switch (cqe->user_data & OF_MASK) {
        case OF_RECEIVE:
            received(ring, session, cqe);
            break;
        case OF_SEND:
            session->tx_result = cqe->res;
            break;
        case OF_EPOLL:
            ring->polling = false;
            ring->epoll_ready = true;
            break;
        case OF_CANCEL:
            session->cancelled = session->receiving && cqe->res >= 0;
            break;
        }
    }
    __atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
}

/* Sends never wait, so they are over when the kernel has taken their entries. */
static void settle(uring *ring)
{
    while (ring->sending) {
        pvu_session *session = ring->sending;
        size_t size = session->tx_queued;

        ring->sending = session->next_sending;
        session->tx_queued = 0;
        session_sent(session, size, session->tx_result);
        poller_update(session->poller, session);
    }
}

/* For this thread and no other. A descriptor that is registered needs no looking up. */
static int enable(uring *ring)
{
    struct io_uring_rsrc_update own = { .offset = UINT32_MAX, .data = (uint32_t)ring->fd };

    if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
        return -errno;
    ring->owner = &this_thread;
    ring->handle = ring->fd;
    if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_RING_FDS, &own, 1) == 1) {
        ring->handle = (int)own.offset;
        ring->flags = IORING_ENTER_REGISTERED_RING;
    }
    return 0;
}

static int enter(uring *ring, uint32_t wanted, const struct __kernel_timespec *limit)
{
    struct io_uring_getevents_arg more = { .ts = (uintptr_t)limit };
    int status = ring->owner ? 0 : enable(ring);
    uint32_t flags = ring->flags | IORING_ENTER_GETEVENTS | (limit ? IORING_ENTER_EXT_ARG : 0);
    long taken;

    if (status < 0)
        return status;
    if (ring->owner != &this_thread)
        return -EEXIST;
    __atomic_store_n(ring->sq_tail, ring->tail, __ATOMIC_RELEASE);
    taken = syscall(SYS_io_uring_enter, ring->handle, ring->tail - load(ring->sq_head), wanted, flags,
                    limit ? &more : NULL, limit ? sizeof(more) : 0);
    if (taken < 0 && errno != EINTR && errno != ETIME && errno != EAGAIN && errno != EBUSY)
        return -errno;
    reap(ring);
    if (load(ring->sq_head) == ring->tail)
        settle(ring);
    return 0;
}

int uring_submit(uring *ring)
{
    while (load(ring->sq_head) != ring->tail) {
        int status = enter(ring, 0, NULL);

        if (status < 0)
            return status;
    }
    return 0;
}

static struct io_uring_sqe *entry(uring *ring, uint8_t opcode, int fd, uint64_t data)
{
    struct io_uring_sqe *sqe;

    if (ring->tail - load(ring->sq_head) > ring->sq_mask && uring_submit(ring) < 0)
        return NULL;
    sqe = &ring->sqes[ring->tail++ & ring->sq_mask];
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->user_data = data;
    return sqe;
}

bool uring_send(uring *ring, pvu_session *session)
{
    size_t size = session->tx_tail - session->tx_head;
    struct io_uring_sqe *sqe;

    if (session->tx_queued || session->tx_fd >= 0 || session->interest || size > SEND_STEP)
        return false;
    sqe = entry(ring, IORING_OP_SEND, session->fd, (uintptr_t)session | OF_SEND);
    if (!sqe)
        return false;
    sqe->addr = (uintptr_t)(session->tx + session->tx_head);
    sqe->len = (uint32_t)size;
    sqe->msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    session->tx_queued = size;
    session->tx_result = (int)size;
    session->next_sending = ring->sending;
    ring->sending = session;
    return true;
}

void uring_receive(uring *ring, pvu_session *session)
{
    static const struct msghdr form = { .msg_controllen = RX_CONTROL };
    struct io_uring_sqe *sqe = entry(ring, IORING_OP_RECVMSG, session->fd, (uintptr_t)session | OF_RECEIVE);

    if (!sqe)
        return; /* the ring is of no use: pvu_poller_next says so */
    sqe->addr = (uintptr_t)&form;
    sqe->len = 1;
    sqe->msg_flags = MSG_CMSG_CLOEXEC;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
    session->receiving = true;
}

int uring_stop(uring *ring, pvu_session *session)
{
    int status = uring_submit(ring);

    for (int i = 0; session->receiving && status == 0 && i < CANCELS; i++) {
        if (!session->cancelled)
            cancel(ring, session);
        status = enter(ring, 1, NULL);
    }
    return status;
}

int uring_wait(uring *ring, pvu_poller *poller, int64_t timeout)
{
    struct __kernel_timespec limit = { .tv_sec = timeout / 1000000000, .tv_nsec = timeout % 1000000000 };
    struct io_uring_sqe *sqe;
    uint64_t count;
    int status;

    if (ring->eventfd >= 0 && read(ring->eventfd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return -errno;
    if (!ring->polling) {
        sqe = entry(ring, IORING_OP_POLL_ADD, poller->epoll, OF_EPOLL);
        if (!sqe)
            return -EIO;
        sqe->poll32_events = POLLIN;
        ring->polling = true;
    }
    status = enter(ring, timeout != 0, timeout > 0 ? &limit : NULL);
    if (status < 0 || !ring->epoll_ready)
        return status;
    ring->epoll_ready = false;
    return epoll_look(poller, 0);
}

bool uring_forget(uring *ring, pvu_session *session)
{
    return uring_stop(ring, session) == 0 && !session->receiving && !session->tx_queued;
}

#else

uring *uring_open(void)
{
    errno = ENOSYS;
    return NULL;
}

/* Never called: there is no ring. */
void uring_close(uring *ring) { (void)ring; }
int uring_fd(uring *ring) { (void)ring; return -1; }
void uring_wake(uring *ring) { (void)ring; }
bool uring_send(uring *ring, pvu_session *session) { (void)ring; (void)session; return false; }
void uring_receive(uring *ring, pvu_session *session) { (void)ring; (void)session; }
int uring_submit(uring *ring) { (void)ring; return 0; }
int uring_wait(uring *ring, pvu_poller *poller, int64_t timeout) { (void)ring; (void)poller; (void)timeout; return 0; }
bool uring_pending(const uring *ring) { (void)ring; return false; }
int uring_stop(uring *ring, pvu_session *session) { (void)ring; (void)session; return 0; }
bool uring_forget(uring *ring, pvu_session *session) { (void)ring; (void)session; return true; }

#endif
