/* Transfers: Python copies by message, and clients answer the requests, in any order, rightly or not, or never. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

enum { COPIES = 6, SEGMENTS = 3, PENDING = 1024, MOST = 40000, REQUESTS = 64 };

typedef struct copy {
    connection *on; /* NULL: none */
    pvu_transfer *running;
    uint64_t key;
    uint8_t *buffer;
    size_t count;
    pvu_segment segments[SEGMENTS];
    bool reading;
    uint32_t error; /* that it must end with */
} copy;

typedef struct {
    wire header;
    uint64_t address, count;
} request;

static copy copies[COPIES];
static uint64_t next_key;
static request pending[CONNECTIONS][PENDING];
static size_t pending_count[CONNECTIONS];

static uint8_t byte_at(uint64_t address)
{
    return (uint8_t)(address ^ address >> 8 ^ 0x35);
}

/* A copy's addresses have its key. */
static copy *copy_of(const connection *connection, uint64_t key)
{
    for (size_t i = 0; i < COPIES; i++)
        if (copies[i].on == connection && copies[i].key == key)
            return &copies[i];
    return NULL;
}

static void end(copy *copy)
{
    pvu_transfer_free(copy->running);
    free(copy->buffer);
    copy->on = NULL;
}

void transfers_reset(void)
{
    next_key = 0;
}

void transfer_begin(connection *connection, input *from)
{
    copy *copy = copies;
    uint64_t total = 0, at = 0;
    uint32_t chunk;

    while (copy < copies + COPIES && copy->on)
        copy++;
    if (copy == copies + COPIES || !connection->session)
        return;
    *copy = (struct copy){ .on = connection, .key = next_key++, .count = 1 + take(from, 1) % SEGMENTS };
    copy->reading = take(from, 1) & 1;
    chunk = 1 + (uint32_t)take(from, 2);
    for (size_t i = 0; i < copy->count; i++) {
        copy->segments[i].address = (copy->key + 1) << 32 | i << 24;
        copy->segments[i].length = take(from, 2) % MOST + (i == 0);
        total += copy->segments[i].length;
    }
    if (chunk < total / REQUESTS + 1)
        chunk = (uint32_t)(total / REQUESTS + 1);
    copy->buffer = malloc(total);
    CHECK(copy->buffer);
    for (size_t i = 0; i < copy->count; i++)
        for (uint64_t n = 0; n < copy->segments[i].length; n++)
            copy->buffer[at++] = copy->reading ? 0 : byte_at(copy->segments[i].address + n);
    copy->running = pvu_transfer_new(connection->session, copy->key, copy->segments, copy->count, copy->buffer,
                                     copy->reading ? PVU_DMA_READ : PVU_DMA_WRITE, chunk);
    CHECK(copy->running);
}

/* Python no longer wants it. */
void transfer_cancel(connection *connection, size_t which)
{
    quiesce();
    if (copies[which % COPIES].on == connection)
        end(&copies[which % COPIES]);
}

void transfer_ended(connection *connection, const pvu_event *event)
{
    copy *copy = copy_of(connection, event->value);
    uint64_t at = 0;

    CHECK(copy && (event->hook == copy->error || !connection->model.exact));
    for (size_t i = 0; !event->hook && i < copy->count; i++)
        for (uint64_t n = 0; n < copy->segments[i].length; n++)
            CHECK(copy->buffer[at++] == byte_at(copy->segments[i].address + n) || !connection->model.exact);
    end(copy);
}

void transfers_end(connection *connection, bool before)
{
    for (size_t i = 0; i < COPIES; i++)
        if (copies[i].on == connection && (!before || copies[i].key & 1))
            end(&copies[i]);
    pending_count[connection - connections] = 0;
}

bool transfers_done(const connection *connection)
{
    for (size_t i = 0; i < COPIES; i++)
        if (copies[i].on == connection)
            return false;
    return true;
}

bool transfer_asked(connection *connection, const uint8_t *message)
{
    size_t which = (size_t)(connection - connections);
    request asked;
    copy *copy;

    memcpy(&asked.header, message, sizeof(asked.header));
    memcpy(&asked.address, message + HEADER, sizeof(asked.address));
    memcpy(&asked.count, message + HEADER + 8, sizeof(asked.count));
    if (asked.address == 0xd1d1d1d1d1d1d1d1)
        return false;
    copy = copy_of(connection, (asked.address >> 32) - 1);
    CHECK(asked.count && asked.address >> 32 && asked.address >> 32 <= next_key);
    CHECK(!copy || asked.header.command == (copy->reading ? DMA_READ : DMA_WRITE));
    CHECK(asked.header.size == ACCESS + (asked.header.command == DMA_WRITE ? asked.count : 0));
    for (uint64_t i = 0; asked.header.command == DMA_WRITE && i < asked.count; i++)
        CHECK(message[ACCESS + i] == byte_at(asked.address + i));
    CHECK(pending_count[which] < PENDING);
    pending[which][pending_count[which]++] = asked;
    return true;
}

/* Some change for the worse; what the copy must end with, or 0 when it is none. */
static uint32_t spoil(wire *header, request *asked, uint64_t how)
{
    switch (how) {
    case 0xf0:
    case 0xf1:
    case 0xf2: {
        const uint32_t errors[] = { EACCES, 0, 5000 };

        header->flags |= ERROR;
        header->error = errors[how - 0xf0];
        header->size = HEADER;
        return how == 0xf0 ? EACCES : EIO;
    }
    case 0xf3:
        header->command = header->command == DMA_READ ? DMA_WRITE : DMA_READ;
        return EBADMSG;
    case 0xf4:
        asked->address++;
        return EBADMSG;
    case 0xf5:
        asked->count--;
        return EBADMSG;
    case 0xf6:
        header->size = HEADER + 8;
        return EBADMSG;
    case 0xf7:
    case 0xf8:
        if (header->command != DMA_READ)
            return 0;
        header->size += how == 0xf7 ? 1 : UINT32_MAX;
        return EBADMSG;
    default:
        return 0;
    }
}

bool transfer_answer(connection *connection, size_t which, uint64_t how)
{
    static uint8_t message[ACCESS + (1 << 17)];
    size_t *count = &pending_count[connection - connections];
    request *all = pending[connection - connections], asked;
    wire header;
    copy *copy;
    uint32_t error;

    if (!*count || connection->client < 0 || connection->left || !connection->whole || !has_room(&connection->model))
        return false;
    asked = all[which % *count];
    memmove(&all[which % *count], &all[which % *count + 1], (*count - which % *count - 1) * sizeof(*all));
    --*count;
    copy = copy_of(connection, (asked.address >> 32) - 1);
    header = asked.header;
    header.flags = REPLY;
    header.size = ACCESS + (header.command == DMA_READ ? (uint32_t)asked.count : 0);
    for (uint64_t i = 0; header.command == DMA_READ && i < asked.count; i++)
        message[ACCESS + i] = byte_at(asked.address + i);
    error = spoil(&header, &asked, how);
    memcpy(message, &header, sizeof(header));
    memcpy(message + HEADER, &asked.address, sizeof(asked.address));
    memcpy(message + HEADER + 8, &asked.count, sizeof(asked.count));
    /* A reply that nobody waits for any more is Python's. */
    if (!copy || copy->error)
        expect_message(&connection->model, connection->device, connection->negotiated, message, 0);
    else
        copy->error = error;
    transmit(connection, message, header.size, 0);
    return true;
}
