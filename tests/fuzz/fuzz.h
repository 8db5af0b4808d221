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

/* Messages, as on the wire. */

enum { HEADER = 16, ACCESS = 32, MULTI = 24, MAX_DATA = 1 << 20, MAX_MESSAGE = ACCESS + MAX_DATA };
enum { VERSION = 1, GET_INFO = 4, GET_REGION_INFO = 5, GET_IRQ_INFO = 7, REGION_READ = 9, REGION_WRITE = 10, DMA_READ = 11, DMA_WRITE = 12, REGION_WRITE_MULTI = 15 };
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
    int32_t vectors[VECTORS]; /* eventfds that a register signals, or -1 */
    uint64_t signals; /* that they must have had since the reset */
} device;

typedef struct {
    int kind; /* of the event */
    uint32_t region, hook, reserved;
    uint64_t offset, size, value;
} happening;

/* What must come of what a client sent. */
typedef struct {
    bool exact; /* all that was sent was whole messages: the model knows what comes of them */
    happening events[4096];
    size_t event_head, event_tail;
    uint8_t replies[6 << 20];
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
/* The message is at its end: expects what must come of it. */
void expect_message(model *model, device *device, bool negotiated, const uint8_t *message);
/* Python's answer to a message that is its own; its size, 0 for none. */
size_t answer_message(const uint8_t *message, uint8_t *answer);

/* world.c */

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
    uint8_t *out;      /* what the socket has not taken */
    size_t out_head, out_tail;
    uint8_t *in;
    size_t in_size;
} connection;

enum { CONNECTIONS = 2 };

extern pvu_poller *poller;
extern connection connections[CONNECTIONS];

void world_begin(void);
/* All that was sent must be served and answered; then nothing may be left behind. */
void world_end(void);
void connect_client(connection *connection, bool negotiated);
void hang_up(connection *connection);
/* As a client sends: what does not fit waits. `fds` descriptors go with the first byte. */
void transmit(connection *connection, const void *data, size_t size, unsigned fds);
/* Serves until there is nothing to do, or `events` were handled; how many were. */
unsigned pump(unsigned events);
/* Python answers at last. */
void settle(connection *connection);
/* A request of ours, of `size` data bytes for a DMA_WRITE. */
void ask(connection *connection, bool write, size_t size);
/* The client reads up to `limit` bytes; how many there were. */
size_t drain(connection *connection, size_t limit);
void quiesce(void);

/* maps.c: DMA maps over files that may shrink. */

void maps_begin(void);
void maps_end(void);
void maps_act(input *from);

#endif
