/*
 * The fuzzers' common parts. A world is what surrounds the hot path: a poller, and connections to devices of which a
 * model says what every access must do. Python's side is played by `pump`, the client's by `transmit` and `drain`.
 */
#ifndef PVU_FUZZ_H
#define PVU_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "api.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of an input. */
typedef struct {
    const uint8_t *data;
    size_t size;
} input;

/* The next `bytes` (1 to 8) as a little-endian number; zeros follow the end. */
uint64_t take(input *from, unsigned bytes);
/* The next record of an input that is a list of them. */
input take_record(input *from);
/* Bytes of one record; records.c inserts, removes, swaps and repeats whole ones. */
extern const size_t record_size;
/* libFuzzer's, or the driver's: changes some bytes. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_size, const uint8_t *other, size_t other_size,
                                 uint8_t *out, size_t max_size, unsigned seed);

/* Messages, as on the wire. */

enum { HEADER = 16, ACCESS = 32, MULTI = 24, MAX_DATA = 1 << 20, MAX_MESSAGE = ACCESS + MAX_DATA };
enum {
    VERSION = 1,
    GET_INFO = 4,
    GET_REGION_INFO = 5,
    GET_IRQ_INFO = 7,
    REGION_READ = 9,
    REGION_WRITE = 10,
    DMA_READ = 11,
    DMA_WRITE = 12,
    REGION_WRITE_MULTI = 15,
};
enum { REPLY = 1, TYPE = 0xf, NO_REPLY = 0x10, ERROR = 0x20 };

typedef struct {
    uint16_t id, command;
    uint32_t size, flags, error;
} wire;

typedef struct {
    uint64_t offset;
    uint32_t region, count;
} wire_place;

/* device.c: a device with a span of every kind, and the model of it. */

enum { REGIONS = 9, IRQS = 5, HOOK_REFUSED = 7, HOOK_SIGNAL = 10, VECTORS = 3 };

typedef struct {
    pvu_region *regions[REGIONS];
    uint8_t *memory[REGIONS], *shadow[REGIONS], *locked[REGIONS];
    uint64_t sizes[REGIONS];
    int32_t *vectors; /* VECTORS of them: eventfds that a register signals, or -1 */
    uint64_t signals; /* that they must have had since the reset */
} device;

typedef struct {
    int kind; /* of the event */
    uint32_t region, hook, fds;
    uint64_t offset, size, value;
} happening;

enum { MAX_EVENTS = 8192, EVENTS_OF_ONE = 4096, MAX_REPLIES = 4 << 20 };

/* What must come of what a client sent. */
typedef struct {
    bool exact; /* all that was sent was whole messages: the model knows what comes of them */
    happening events[MAX_EVENTS];
    size_t event_head, event_tail;
    uint8_t replies[MAX_REPLIES];
    size_t reply_head, reply_tail;
} model;

device *device_new(void);
void device_reset(device *device);
/* Has the hot path's device describe itself. */
void device_describe(pvu_device *native);
/* Takes the signals that there were. */
uint64_t device_signals(device *device);
/* What Python's handlers do: the errno for an access of a hook, and the value that a read hook gives. */
int hook_status(uint32_t hook, uint64_t value);
uint64_t hook_value(uint32_t hook);
/* Can the model take what comes of one more message? */
bool has_room(const model *model);
/* A message is about to be whole, `fds` descriptors came with it: expects what must come of it. */
void expect_message(model *model, device *device, bool negotiated, const uint8_t *message, uint32_t fds);
/* Does a descriptor go with a reply? */
bool goes_with_fd(const wire *reply);
/* Python's answer to a message that is its own; its size, 0 for none. */
size_t answer_message(const uint8_t *message, uint8_t *answer);

/* world.c: the poller, and Python's side. */

typedef struct {
    pvu_session *session; /* NULL: it was told that the client left */
    device *device;
    pvu_device *native;
    pvu_recorder *recorder;
    model model;
    int client; /* or -1 */
    bool negotiated;
    bool late;         /* Python answers when it likes */
    int owed;          /* the event that it owes an answer to */
    happening question;
    uint8_t *message;  /* of PVU_MESSAGE */
    bool whole;        /* nothing of a message is left unsent */
    bool left;         /* the client hung up or will send no more */
    uint16_t asked, seen; /* requests of ours that were sent, and those that the client saw */
    uint64_t heard;    /* hash of all events; */
    uint64_t said;     /* of all replies, */
    uint64_t said_size; /* and their bytes */
    uint8_t *out;      /* what is yet to be sent */
    size_t out_head, out_tail;
    uint8_t *in;
    size_t in_size;
    bool in_fd;        /* a descriptor came with the message that is not all there */
} connection;

enum { CONNECTIONS = 2, OUT_SIZE = 4 << 20, IN_SIZE = MAX_MESSAGE + (64 << 10), FILES = 4 };
enum { EPOLL = 0, IO_URING = 1 };

extern pvu_poller *poller;
extern connection connections[CONNECTIONS];
/* What is sent as descriptors: these files in turn. */
extern int sent_files[FILES];

/* With a ring only where it can be had. */
void world_begin(int engine);
/* All that was sent must be served and answered; then nothing may be left behind. */
void world_end(void);
void connect_client(connection *connection, bool negotiated);
void hang_up(connection *connection);
/* Serves, looking for `timeout` as pvu_poller_next does, until `events` were handled or there are none; how many. */
unsigned pump(unsigned events, int64_t timeout);
/* Python answers at last. */
void settle(connection *connection);
/* A request of ours, of `size` data bytes for a DMA_WRITE. */
void ask(connection *connection, bool write, size_t size);
/* Has the poller watch another descriptor, or no longer; makes that readable. */
void watch(bool wanted);
void ring_watched(void);
void quiesce(void);
uint64_t hash(uint64_t before, const void *data, size_t size);

/* client.c: the client's side. */

/* As a client sends: what does not fit waits. How many of `fds` descriptors went with the first byte. */
unsigned transmit(connection *connection, const void *data, size_t size, unsigned fds);
void transmit_rest(connection *connection);
/* The client reads up to `limit` bytes, and checks all messages; how many bytes there were. */
size_t drain(connection *connection, size_t limit);

/* transfers.c */

void transfers_reset(void);
void transfer_begin(connection *connection, input *from);
void transfer_cancel(connection *connection, size_t which);
/* PVU_TRANSFERRED. */
void transfer_ended(connection *connection, const pvu_event *event);
/* Frees what is left before a session is freed, or all after it. */
void transfers_end(connection *connection, bool before);
bool transfers_done(const connection *connection);
/* The client got a request; false when it is of no transfer. */
bool transfer_asked(connection *connection, const uint8_t *message);
/* The client answers one of the requests that it got; false when there is none, or no way. */
bool transfer_answer(connection *connection, size_t which, uint64_t how);

#endif
