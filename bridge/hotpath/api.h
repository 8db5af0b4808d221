/*
 * What Python sees of the hot path. Read by cffi as it is: declarations only, no preprocessor.
 *
 * One thread calls all of it for objects that belong together (the event loop's); every call releases the GIL.
 * A function that can fail returns a negative errno, or NULL for want of memory.
 */

/* Transactions, in the order of arrival. An access of more than 8 bytes is recorded in pieces of 8. */

typedef struct pvu_recorder pvu_recorder;

typedef struct {
    uint64_t sequence; /* counts the device's transactions, from 0 */
    uint64_t offset;   /* in the region */
    uint32_t size;     /* 1 to 8 */
    uint8_t region;
    uint8_t write;
    uint16_t reserved;
    uint8_t data[8]; /* as written, or as answered */
} pvu_record;

pvu_recorder *pvu_recorder_new(size_t capacity);
void pvu_recorder_free(pvu_recorder *recorder);
/* The oldest records that lie in one piece; `first` is valid until the next access is served. */
size_t pvu_recorder_peek(const pvu_recorder *recorder, const pvu_record **first);
void pvu_recorder_take(pvu_recorder *recorder, size_t count);
/* How many were overwritten before they were taken. */
uint64_t pvu_recorder_dropped(const pvu_recorder *recorder);

/* Regions: memory, and spans that say how parts of it are accessed. The rest reads 0 and ignores writes. */

typedef struct pvu_region pvu_region;

enum {
    PVU_SPAN_MEMORY = 0,    /* bytes: what is written is read */
    PVU_SPAN_REGISTERS = 1, /* bits, each by its rule */
    PVU_SPAN_DOORBELL = 2,  /* bytes, and each write is handed to Python */
};

enum {
    PVU_HOOK_READ = 1,  /* Python says what a read finds, before it is answered */
    PVU_HOOK_WRITE = 2, /* Python acts on a write, before it is answered */
    PVU_RECORD = 4,     /* into the recorder */
};

/* `memory` must outlive the region; `spans` is how many can be added. */
pvu_region *pvu_region_new(uint8_t *memory, uint64_t size, uint32_t spans);
void pvu_region_free(pvu_region *region);
/*
 * Adds a span behind all others. `masks`, for registers, is four times `length` bytes: the bits that are writable,
 * cleared by writing 1, cleared by reading, and writable once.
 */
int pvu_region_add(pvu_region *region, uint64_t offset, uint64_t length, int kind, int flags, uint32_t hook,
                   const uint8_t *masks);
/* Has the hot path count all accesses to the region, in 4 bytes of its memory each: reads, and writes. */
int pvu_region_count(pvu_region *region, uint64_t reads_at, uint64_t writes_at);
/*
 * A write of v to the span at `offset` signals eventfd `vectors[v]`; only where there is none, -1, is it Python's.
 * `vectors` must outlive the region.
 */
int pvu_region_signal(pvu_region *region, uint64_t offset, const int32_t *vectors, uint32_t count);
/*
 * Until it is stopped, a thread copies each new value of the 4 bytes at `from`, which a client stores in a mapped page,
 * to the 4 bytes at `to`. NULL and errno when it cannot. The region must outlive it.
 */
typedef struct pvu_echo pvu_echo;
pvu_echo *pvu_echo_start(pvu_region *region, uint64_t from, uint64_t to);
void pvu_echo_stop(pvu_echo *echo);
/* Makes write-once bits writable again. */
void pvu_region_unlock(pvu_region *region);
/* Does an access by the rules of the spans, without their hooks. -EINVAL: it is not all in the region. */
int pvu_region_apply(pvu_region *region, uint64_t offset, uint8_t *data, uint64_t size, bool write);

/* Adds 1 to a client's eventfd, unless its counter is full; never waits, whatever the client does to it. */
int pvu_signal(int fd);

/* Guest memory that the client gave: DMA_MAP and DMA_UNMAP, which wait until no thread copies; any may. */

typedef struct pvu_dma pvu_dma;

typedef struct {
    uint64_t address;
    uint64_t length;
} pvu_segment;

enum { PVU_DMA_READ = 1, PVU_DMA_WRITE = 2 };

pvu_dma *pvu_dma_new(size_t max_maps);
void pvu_dma_free(pvu_dma *dma);
/*
 * Maps; `fd` is -1 for memory that can only be reached by message, and stays the caller's. -EOPNOTSUPP for one that is
 * neither memory nor on a disk.
 */
int pvu_dma_map(pvu_dma *dma, uint64_t address, uint64_t size, uint32_t flags, int fd, uint64_t offset);
/* Drops all maps in the range, which must not cut one in two. */
int pvu_dma_unmap(pvu_dma *dma, uint64_t address, uint64_t size);
void pvu_dma_unmap_all(pvu_dma *dma);
size_t pvu_dma_maps(pvu_dma *dma);
/* May all of a range be accessed so (0), only by message (-ENXIO), not so (-EACCES), or not at all (-EFAULT)? */
int pvu_dma_check(pvu_dma *dma, uint64_t address, uint64_t length, int access);
/*
 * Copies between the segments, one after another, and `length` bytes at `buffer`, which theirs must add up to
 * (-EINVAL): out of guest memory for PVU_DMA_READ, into it for PVU_DMA_WRITE. Nothing is copied unless all can be, but
 * for memory that the client took away behind its map (-EFAULT). `failed` gets a segment at fault. After -ENXIO all of
 * them can be accessed so by message.
 */
int pvu_dma_copy(pvu_dma *dma, const pvu_segment *segments, size_t count, uint8_t *buffer, uint64_t length, int access,
                 size_t *failed);

/* A device: its regions by index, none, one or all of which record. */

typedef struct pvu_device pvu_device;

typedef struct {
    uint32_t hook;
    uint32_t region;
    uint64_t value;
} pvu_ring; /* a write to a doorbell, and what the doorbell holds after it */

/* `recorder` and the regions must outlive the device. */
pvu_device *pvu_device_new(pvu_recorder *recorder);
void pvu_device_free(pvu_device *device);
int pvu_device_set_region(pvu_device *device, uint32_t index, pvu_region *region);
/*
 * How `command`, DEVICE_GET_INFO, DEVICE_GET_REGION_INFO or DEVICE_GET_IRQ_INFO, is answered about `index`, 0 for the
 * device: with the `size` bytes at `full`, and `fd` beside them unless -1, when that is not more than the request's
 * argsz; otherwise with the `least` bytes at `brief`, which argsz, and the body of the request, must not fall short of.
 * What is not described is answered with EINVAL. `fd` must outlive the device.
 */
int pvu_device_describe(pvu_device *device, uint32_t command, uint32_t index, const uint8_t *brief, uint32_t least,
                        const uint8_t *full, uint32_t size, int fd);

/* Waiting: one poller serves all sessions of an event loop, and watches that loop's other descriptors. */

typedef struct pvu_poller pvu_poller;
typedef struct pvu_session pvu_session;

enum {
    PVU_NONE = 0,  /* time is up, or a signal came */
    PVU_READY,     /* descriptor `token` is ready: `events` */
    PVU_READ,      /* a read of a span with PVU_HOOK_READ */
    PVU_WRITE,     /* a write to a span with PVU_HOOK_WRITE, already applied */
    PVU_MESSAGE,   /* a message that is Python's: `data`, `size` bytes, and `fds`, which are the receiver's to drop;
                      the last is -1 when there were more, or the process could not have them */
    PVU_DOORBELLS, /* `size` entries pvu_ring at `data`; nothing to finish */
    PVU_TRANSFERRED, /* transfer `value` ended: `hook` is 0, or an errno for `size` bytes at `offset`; nothing to finish */
    PVU_CLOSED,    /* the session is over: `value` is 0 or an errno; nothing to finish */
    PVU_RUNG,      /* of the bells `token`: `size` entries pvu_ring at `data`, their hooks numbers of bells; nothing to finish */
};

typedef struct {
    uint32_t token; /* of the session, or the descriptor */
    uint32_t region;
    uint32_t hook;
    uint32_t events;
    uint64_t offset; /* in the span */
    uint64_t size;   /* of the access, in bytes */
    uint64_t value;  /* as written, when `size` is at most 8 */
    uint64_t data;   /* address of the bytes written, the message, or the doorbells; valid until the session goes on */
    uint32_t fd_count;
    int32_t fds[16];
} pvu_event;

/* The environment's PYVFIO_USER_ENGINE, "epoll" or "io_uring", says what it waits with; NULL and errno on failure. */
pvu_poller *pvu_poller_new(void);
void pvu_poller_free(pvu_poller *poller);
/* What it waits with. */
const char *pvu_poller_engine(const pvu_poller *poller);
/* For how many microseconds it may look for the next message before it sleeps, where that was worth it lately. */
void pvu_poller_spin(pvu_poller *poller, uint32_t budget);
/* To wait for elsewhere: readable when pvu_poller_next has work. */
int pvu_poller_fd(pvu_poller *poller);
pvu_event *pvu_poller_event(pvu_poller *poller);
/* Watches a descriptor that is not a session: `events` as in epoll, 0 to stop. */
int pvu_poller_watch(pvu_poller *poller, int fd, uint32_t events, int known);
/*
 * Serves sessions for up to `timeout` nanoseconds (-1: no limit), until there is something for Python. With -2 it does
 * not look for more than was found ready before: a descriptor that Python has not read yet would be told again.
 */
int pvu_poller_next(pvu_poller *poller, int64_t timeout);
/* Sends what would be sent with the next pvu_poller_next: for those who do something else first. */
int pvu_poller_submit(pvu_poller *poller);

/* Sessions: one client each. After PVU_READ, PVU_WRITE or PVU_MESSAGE nothing more is served until pvu_finish. */

/*
 * Closes a descriptor that came from a client. To close one can take as long as the client likes (SO_LINGER, FUSE): then
 * a thread does it, that there is as long as it has to. -1 is nothing to close.
 */
void pvu_drop(int fd);
/* Closes a client's socket, at once for the client; the same for what it sent and nobody received. */
void pvu_hang_up(int socket);
/* The next client of a listening UNIX socket, and the user who connected (SO_PEERCRED); or a negative errno. */
int pvu_accept(int listener, uint32_t *uid);
/* Takes over `fd`, a stream socket, whatever comes of it. A device has one session at a time. */
pvu_session *pvu_session_new(pvu_poller *poller, pvu_device *device, int fd, uint32_t token);
/* Sends what it can at once, then closes. */
void pvu_session_free(pvu_session *session);
/* From now on accesses and requests for descriptions are served; before, every message is Python's. */
void pvu_session_negotiated(pvu_session *session);
/* Has the peer hung up, be there still messages of it or not? */
int pvu_session_peer_left(const pvu_session *session);
/* Sends a message, whole; -ENOBUFS when the client does not read. */
int pvu_session_send(pvu_session *session, const uint8_t *message, size_t size);
/* Python is done with the event, and the session goes on: `status` is 0 or the errno to answer an access with. */
void pvu_session_finish(pvu_session *session, int status);
/* The same for PVU_READ: the register holds `value` now. */
void pvu_session_finish_read(pvu_session *session, uint64_t value);

/* Doorbells in pages that clients map: they ring without a message, when the value there is another one. */

typedef struct pvu_bells pvu_bells;

/*
 * At `count` offsets, multiples of `width`, which is 1, 2, 4 or 8 bytes. NULL and errno: EINVAL when there are no such
 * places, or none at all. The region must outlive them. They are taken to hold 0 at first.
 */
pvu_bells *pvu_bells_new(pvu_region *region, const uint64_t *offsets, uint32_t count, uint32_t width);
/* The poller may be gone before them. */
void pvu_bells_free(pvu_bells *bells);
/*
 * Has a poller look at them all, every `interval` nanoseconds and while it spins, which it does after a ring too; no
 * other one does any more. What one look finds is one PVU_RUNG; rings of one bell between two looks are one, the last.
 */
void pvu_bells_watch(pvu_bells *bells, pvu_poller *poller, uint32_t token, uint64_t interval);
void pvu_bells_unwatch(pvu_bells *bells);
/* They hold 0, and nothing was rung. */
void pvu_bells_reset(pvu_bells *bells);

/* Transfers: copies by DMA_READ and DMA_WRITE messages, several of which are under way at a time. */

typedef struct pvu_transfer pvu_transfer;

/*
 * Begins to copy between the segments, one after another, and `buffer`, which must be as long as they are, at least a
 * byte, and outlive the transfer: out of the client's memory for PVU_DMA_READ, into it for PVU_DMA_WRITE, with up to
 * `chunk` bytes in a message. PVU_TRANSFERRED tells its end by its `key`: at its first failure, or when all is copied.
 */
pvu_transfer *pvu_transfer_new(pvu_session *session, uint64_t key, const pvu_segment *segments, size_t count,
                               uint8_t *buffer, int access, uint32_t chunk);
/* Ends it, if that is still to be done: the buffer is left alone from now on. The session may be gone before it. */
void pvu_transfer_free(pvu_transfer *transfer);

/* The ring of labelled events that QEMU's plugin writes: see event.h. */

/*
 * Copies up to `most` events of 64 bytes from a ring of `capacity` events to `to`, the oldest first, and makes their room
 * free. `*taken` is how many were taken before, by this reader, who is the only one.
 */
size_t pvu_ring_take(void *ring, uint64_t capacity, uint64_t *taken, uint8_t *to, size_t most);
/* How many events found no room. */
uint64_t pvu_ring_dropped(const void *ring);

/*
 * Orders of arrival (bridge/interconnect). Effects have numbers, and are bits in masks. A behaviour is its blocks in the
 * order of their arrival, each a mask: `count` of them, 0 after the last.
 */

enum { PVU_ORDERS_EFFECTS = 64, PVU_ORDERS_IMAGE = 4096 };

typedef struct pvu_orders pvu_orders;

enum {
    PVU_INVARIANT_BEFORE = 0,   /* all of `first` that arrive have, in blocks before any of `second` */
    PVU_INVARIANT_TOGETHER = 1, /* one block has all of `first` */
    PVU_INVARIANT_NEVER = 2,    /* none of `first` arrives */
    PVU_INVARIANT_FINAL = 3,    /* the image is in the end as expected */
};

typedef struct {
    uint32_t kind;
    uint32_t reserved;
    uint64_t first, second;
} pvu_invariant;

typedef struct {
    uint32_t at, size; /* in the image; of an effect that writes nothing there, 0 */
    uint8_t bytes[64];
} pvu_effect_data;

/*
 * Rows of masks, by effect: which others arrive before it, which not after it (those before included), which may be in
 * a block with it. What is before an effect, or not after it, has a lower number; else, and for more than
 * PVU_ORDERS_EFFECTS effects, NULL. `absent` ones never arrive. In which order and blocks `passive` ones arrive is told
 * apart only by which of them have arrived before each block that has another one.
 */
pvu_orders *pvu_orders_new(uint32_t count, const uint64_t *before, const uint64_t *not_after, const uint64_t *gather,
                           uint64_t absent, uint64_t passive);
void pvu_orders_free(pvu_orders *orders);
/* The next behaviours, at most `most`; how many, 0 at the end. */
size_t pvu_orders_next(pvu_orders *orders, uint64_t *blocks, size_t most);
/* For PVU_INVARIANT_FINAL: each effect's data, and the image, `size` bytes that are zeros at first, in the end. */
int pvu_orders_expect(pvu_orders *orders, const pvu_effect_data *data, const uint8_t *expected, uint32_t size);
/* Checks the next behaviours, at most `most`; how many. `broken` counts, by invariant; `witnesses` has the first of each. */
uint64_t pvu_orders_check(pvu_orders *orders, const pvu_invariant *invariants, uint32_t count, uint64_t most,
                          uint64_t *broken, uint64_t *witnesses);
