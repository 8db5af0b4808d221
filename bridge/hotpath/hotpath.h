/* The hot path's own structures. Names and rules of the messages: QEMU docs/interop/vfio-user.rst. */
#ifndef PVU_HOTPATH_H
#define PVU_HOTPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "api.h"

enum {
    PVU_REGIONS = 9,
    PVU_IRQS = 5,
    PVU_MAX_FDS = 16,               /* in one message: what VERSION offers */
    PVU_FDS_BESIDE = 253,           /* that can come beside one receive: the kernel's SCM_MAX_FD */
    PVU_MAX_TRANSFER = 1 << 20,     /* data bytes in one message: what VERSION offers */
    PVU_MAX_RINGS = 64,             /* doorbells handed over at once: as long as Python is with them, all else waits */
};

/* Messages. */

enum {
    CMD_DEVICE_GET_INFO = 4,
    CMD_DEVICE_GET_REGION_INFO = 5,
    CMD_DEVICE_GET_IRQ_INFO = 7,
    CMD_REGION_READ = 9,
    CMD_REGION_WRITE = 10,
    CMD_DMA_READ = 11,
    CMD_DMA_WRITE = 12,
    CMD_REGION_WRITE_MULTI = 15,
};

enum { F_COMMAND = 0, F_REPLY = 1, F_TYPE_MASK = 0xf, F_NO_REPLY = 0x10, F_ERROR = 0x20 };

typedef struct {
    uint16_t id;
    uint16_t command;
    uint32_t size; /* of the message, header included */
    uint32_t flags;
    uint32_t error;
} wire_header;

typedef struct {
    uint32_t argsz; /* the client's room for the body of the reply */
    uint32_t flags;
    uint32_t index; /* of a region or a kind of interrupts; the device itself has none */
} wire_info; /* how a request for a description begins */

typedef struct {
    uint64_t offset;
    uint32_t region;
    uint32_t count;
} wire_access; /* REGION_READ and REGION_WRITE, requests and replies */

typedef struct {
    uint64_t address;
    uint64_t count;
} wire_dma; /* DMA_READ and DMA_WRITE, requests and replies */

typedef struct {
    wire_access access;
    uint8_t data[8];
} wire_multi; /* one write in a REGION_WRITE_MULTI, after the u64 that counts them */

_Static_assert(sizeof(wire_header) == 16 && sizeof(wire_access) == 16 && sizeof(wire_multi) == 24, "as on the wire");
_Static_assert(sizeof(pvu_record) == 32 && sizeof(pvu_ring) == 16, "as Python unpacks them");

enum { PVU_MAX_MESSAGE = sizeof(wire_header) + sizeof(wire_access) + PVU_MAX_TRANSFER };

/* record.c */

void record_access(pvu_recorder *recorder, uint32_t region, bool write, uint64_t offset, const uint8_t *data,
                   uint64_t size);

/* region.c */

typedef struct {
    uint64_t offset;
    uint64_t length;
    uint32_t hook;
    uint8_t kind;
    uint8_t flags;
    uint8_t *masks;  /* registers: writable, w1c, rc, once, `length` bytes each */
    uint8_t *locked; /* write-once bits that were written, `length` bytes behind the masks */
    const int32_t *vectors; /* eventfds that writes signal, or NULL */
    uint32_t vector_count;
} region_span;

struct pvu_region {
    uint8_t *memory;
    uint8_t *counters[2]; /* in the memory: of reads and writes, or NULL */
    uint64_t size;
    uint32_t capacity;
    uint32_t count;
    region_span spans[]; /* ascending, without overlap */
};

/* The span at `offset`, or NULL; `end` gets where it, or the gap, ends. */
const region_span *region_find(const pvu_region *region, uint64_t offset, uint64_t *end);
void region_read(pvu_region *region, const region_span *span, uint64_t offset, uint8_t *data, uint64_t size);
void region_write(pvu_region *region, const region_span *span, uint64_t offset, const uint8_t *data, uint64_t size);
/* Signals what was written, if that is possible. */
bool region_signal(const pvu_region *region, const region_span *span);
/* An access is done: counts it, where that is asked for. */
void region_count(pvu_region *region, bool write);
/* What a register or doorbell of up to 8 bytes holds. */
uint64_t region_value(const pvu_region *region, const region_span *span);
void region_store(pvu_region *region, const region_span *span, uint64_t value);

typedef struct {
    uint8_t *bytes; /* `least` bytes for a client that has no room for more, then all `size` bytes; NULL for none */
    uint32_t least;
    uint32_t size;
    int fd; /* goes with all of it, or -1; the region's */
} description;

struct pvu_device {
    pvu_region *regions[PVU_REGIONS];
    pvu_recorder *recorder;
    description info, region_info[PVU_REGIONS], irq_info[PVU_IRQS];
    pvu_ring rings[PVU_MAX_RINGS];
    uint32_t ring_count;
};

/* descriptors.c: those that came from a client. */

struct statx;

/* Room for all that can come: what there is no room for the kernel closes, which can block (see pvu_drop). */
enum { RX_CONTROL = CMSG_SPACE(PVU_FDS_BESIDE * sizeof(int)) };

/* Takes those that came beside a receive with RX_CONTROL bytes of room; how many. */
int descriptors_beside(struct msghdr *message, int fds[static PVU_FDS_BESIDE]);
/* Is it a file, memory or on a disk, whose pages are there without anybody's help? 0 or a negative errno. */
int descriptor_file(int fd, struct statx *file);

/* session.c: a client's socket, what came in, what goes out. */

enum {
    BUFFERS_KEPT = 64 << 10,    /* bytes of either buffer that stay in memory for the next session */
    RX_STEP = 68 << 10,         /* bytes in one receive, unless one message needs more: 64 KiB of data and a header */
    RX_PIECES = 16,             /* receives the kernel can have done of its own accord; with 4, many clients ran out */
    RX_SIZE = PVU_MAX_TRANSFER + (4 << 10) + (1 + RX_PIECES) * RX_STEP, /* whole pages: a message, and more */
    RX_SMALL = 4 << 10,         /* unread bytes that are moved to the front, which is in the cache */
    TX_SIZE = 2 << 20,
    TX_FOR_PYTHON = 512 << 10,  /* room that replies to region accesses leave */
    TX_STEP = 16 << 10,         /* bytes in one send, unless one message has more */
    SINGLES = 32,               /* messages in a row that came soon, alone, and were answered at once: so will the next */
    SOON = 10,                  /* looks in which a client that polls comes with its next message, */
    SLEPT = 24,                 /* and more than one that polls ever needs */
    RX_FDS = (1 + RX_PIECES) * PVU_MAX_FDS,
    RX_OVERLOOKED = 64,         /* messages, perhaps sent in two pieces each, of which the kernel may miss the last */
};

/* An access under way: it may stop at any span for Python's sake, and go on after it. */
typedef struct {
    bool begun;       /* this message was checked, and its access is under way */
    bool asked;       /* Python has told what the read at `done` finds */
    uint64_t item;    /* REGION_WRITE_MULTI: the write that is next */
    uint32_t done;    /* bytes of the access that are done */
    int status;       /* the errno with which it ended early */
    int failed;       /* REGION_WRITE_MULTI: the errno of the first write that did */
} access_state;

enum { ASKED = 4 }; /* requests of ours at a time: as many messages wait for a client that is slow to read */

typedef struct {
    pvu_transfer *transfer; /* NULL: there is none */
    wire_header header;
    wire_dma body;
    uint8_t *at; /* its bytes in the transfer's buffer */
} transfer_request;

struct pvu_session {
    pvu_poller *poller;
    pvu_device *device;
    int fd;
    uint32_t token;
    uint32_t interest; /* epoll events that are asked for */
    bool receiving;    /* the kernel receives of its own accord, */
    bool cancelled;    /* but was told to stop */
    bool negotiated;
    bool owed;         /* Python owes an answer */
    bool blocked;      /* no room for a reply: the client must read first */
    bool queued;       /* in the poller's list of those with work at hand */
    bool over;         /* the socket is of no more use; */
    bool told;         /* and PVU_CLOSED said so */
    bool grown;        /* more than BUFFERS_KEPT bytes of a buffer were used */
    uint32_t singles;  /* of SINGLES, so many were */
    uint32_t unlooked; /* messages since the last receive of our own */
    int error;         /* errno that ended it, 0 for the peer's leaving */
    pvu_session *next;
    int deferred;      /* what came up when Python had just finished, told at the next opportunity: */
    pvu_event event;
    access_state access;
    pvu_region *hook_region; /* of the read that Python answers */
    const region_span *hook_span;

    uint8_t *rx; /* RX_SIZE bytes; unread ones from head to tail */
    size_t rx_head, rx_tail;
    size_t peeked; /* bytes of them that are still to be taken from the socket */
    struct {
        int fd;     /* -1: some could not be taken */
        size_t end; /* index in rx behind the last byte that it came with */
    } rx_fds[RX_FDS];
    size_t rx_fd_count;

    uint8_t *tx; /* TX_SIZE bytes; whole messages from head to tail, but for the first `rest` bytes */
    size_t tx_head, tx_tail;
    size_t tx_rest;     /* bytes left of a message that is partly sent */
    size_t tx_reserved; /* bytes behind the tail: the reply that is being made */
    int tx_fd;          /* of the device; goes with the byte at tx_fd_at, or -1 */
    size_t tx_fd_at;
    size_t tx_queued;   /* bytes from the head that are the kernel's to send: they stay where they are */
    int tx_result;      /* what came of it */
    pvu_session *next_sending;

    pvu_transfer *transfers; /* all there are, and those that have more to ask for, in the order of their turns */
    pvu_transfer *waiting;
    transfer_request asked[ASKED];
    uint16_t next_id; /* of a request of ours */
    bool starved;     /* no room for it: the client must read first */
};

/* One receive. True when there was something: bytes, or the end. */
bool session_receive(pvu_session *session);
/*
 * The same for a client that may be polling, after so many looks for its message. Of one that does, a message is looked
 * at, and taken only when it has been answered, while the client is at work: to free what came is a good part of a
 * receive. It is also what may keep a client awake that sleeps. session_serve must follow.
 */
bool session_look(pvu_session *session, uint32_t looks);
/* The same of what the kernel received: a negative errno, or that many bytes and what came beside them. */
bool session_received(pvu_session *session, ssize_t got, const uint8_t *data, struct msghdr *beside);
/* Is there room for all that the kernel could receive before it is stopped? */
bool session_roomy(pvu_session *session);
/* Serves what was received, as far as it goes: a PVU_ event, or PVU_NONE. */
int session_serve(pvu_session *session, pvu_event *event);
/* Ends a session, for an errno or, with 0, because the peer left. */
void session_end(pvu_session *session, int error);

/* send.c */

/* Sends what the socket takes. False when the session is over. */
bool session_flush(pvu_session *session);
/* The same, not later than with the next system call of the poller. */
void session_send(pvu_session *session);
/* Of `size` bytes that were to be sent, `sent` were, or a negative errno is why not. */
void session_sent(pvu_session *session, size_t size, ssize_t sent);
/* Room for a reply of `size` bytes behind the tail, or NULL. */
uint8_t *session_reserve(pvu_session *session, size_t size);
/*
 * Ends the reply that was reserved for `request`: it is `size` bytes, a header included that is made here; after an
 * error, nothing but the header. It is sent unless none is wanted.
 */
void session_reply(pvu_session *session, const wire_header *request, size_t size, int error);

/* Room for a message of `size` bytes before the reply that is being made, or NULL if more than `limit` would wait. */
uint8_t *session_append(pvu_session *session, size_t size, size_t limit);

/* Sends a message of two parts, at once where none waits: false when there is no room for it, as session_append. */
bool session_send_data(pvu_session *session, const void *head, size_t head_size, const void *data, size_t size,
                       size_t limit);

/* transfer.c */

/* Asks for what transfers wait for, as far as may be asked at a time. */
void transfer_ask(pvu_session *session);
/* The request that a message from the client answers, or NULL. */
transfer_request *transfer_of(pvu_session *session, const wire_header *reply);
/* Takes the answer: PVU_TRANSFERRED or PVU_NONE. */
int transfer_reply(pvu_session *session, transfer_request *request, const wire_header *reply, const uint8_t *body,
                   pvu_event *event);
/* The session goes. */
void transfer_end_all(pvu_session *session);

/* describe.c: answers the DEVICE_GET_ messages. */

bool describe_answers(uint32_t command);
/* ACCESS_DONE or ACCESS_BLOCKED. */
int describe_message(pvu_session *session, const wire_header *header, const uint8_t *body);
void describe_free(pvu_device *device);

/* access.c: answers REGION_READ, REGION_WRITE and REGION_WRITE_MULTI. */

enum {
    ACCESS_DONE = 0,     /* the message is dealt with; otherwise an event, or: */
    ACCESS_BLOCKED = -1, /* no room for the reply */
};

int access_message(pvu_session *session, const wire_header *header, uint8_t *body, pvu_event *event);
/* Hands the doorbells to Python, which must have heard of them before the session goes on: PVU_DOORBELLS. */
int access_doorbells(pvu_session *session, pvu_event *event);

/* guard.c: guest memory can vanish under an access. */

/* Does work that touches such memory, and tells whether all of it was there; else the work ended where it was not. */
bool guard_run(void (*work)(void *), void *context);
/* Installs the handler that this takes; before each map, for others install theirs. */
int guard_install(void);

/* buffers.c: RX_SIZE bytes, then TX_SIZE bytes. */

/* NULL for want of memory. */
uint8_t *buffers_take(pvu_poller *poller);
/* `grown`: more than BUFFERS_KEPT bytes of either may have been used. */
void buffers_give(pvu_poller *poller, uint8_t *buffers, bool grown);
void buffers_free(pvu_poller *poller);

/* poller.c */

void poller_enqueue(pvu_poller *poller, pvu_session *session);
/* The same, but everything else has its turn first, timers too. */
void poller_put_off(pvu_poller *poller, pvu_session *session);
/* Has the poller tell when the socket takes what waits to be sent, or brings what can be received. */
void poller_update(pvu_poller *poller, pvu_session *session);
/* Sends all that waits with the next system call: false if that must be done otherwise. */
bool poller_send(pvu_poller *poller, pvu_session *session);
/* All that there was is served: the poller may receive. */
void poller_receive(pvu_poller *poller, pvu_session *session);
/* What was left to poller_send is sent now. */
void poller_settle(pvu_poller *poller, pvu_session *session);
void poller_remove(pvu_poller *poller, pvu_session *session);
/* The same for good. False when the kernel still receives into the session's buffers. */
bool poller_forget(pvu_poller *poller, pvu_session *session);
/* Is this a child that was forked off? It must leave the sockets and the kernel's queues to its parent. */
bool poller_forked(const pvu_poller *poller);

#endif
