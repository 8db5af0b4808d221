/* Transfers: requests of ours, DMA_READ and DMA_WRITE, for memory that the client did not let us map. */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ERRNO = 4095 };

struct pvu_transfer {
    pvu_session *session;       /* NULL when that is gone */
    pvu_transfer *next;         /* of the session's */
    pvu_transfer *next_waiting; /* of those that have more to ask for */
    uint64_t key;
    int access;
    uint32_t chunk;
    uint32_t in_flight;
    uint8_t *at; /* in the buffer, of what is asked for next: it is `done` bytes into the first segment */
    uint64_t done;
    size_t count; /* segments left */
    const pvu_segment *segment;
    pvu_segment segments[];
};

static void wait_turn(pvu_transfer *transfer)
{
    pvu_transfer **last = &transfer->session->waiting;

    while (*last)
        last = &(*last)->next_waiting;
    transfer->next_waiting = NULL;
    *last = transfer;
}

static void leave(pvu_transfer *transfer)
{
    pvu_session *session = transfer->session;

    for (pvu_transfer **link = &session->waiting; *link; link = &(*link)->next_waiting)
        if (*link == transfer) {
            *link = transfer->next_waiting;
            break;
        }
    /* Replies that still come are nobody's. */
    for (int i = 0; i < ASKED; i++)
        if (session->asked[i].transfer == transfer)
            session->asked[i].transfer = NULL;
}

transfer_request *transfer_of(pvu_session *session, const wire_header *reply)
{
    for (int i = 0; i < ASKED; i++)
        if (session->asked[i].transfer && session->asked[i].header.id == reply->id)
            return &session->asked[i];
    return NULL;
}

static transfer_request *slot(pvu_session *session)
{
    for (int i = 0; i < ASKED; i++)
        if (!session->asked[i].transfer)
            return &session->asked[i];
    return NULL;
}

/* Past what was asked for, and segments without bytes. */
static void step(pvu_transfer *transfer, uint64_t size)
{
    transfer->at += size;
    transfer->done += size;
    while (transfer->count && transfer->done == transfer->segment->length) {
        transfer->segment++;
        transfer->count--;
        transfer->done = 0;
    }
}

/* Asks for the next chunk of a transfer. False when there is no room for it. */
static bool ask(pvu_session *session, pvu_transfer *transfer, transfer_request *request)
{
    uint64_t left = transfer->segment->length - transfer->done;
    uint32_t count = left < transfer->chunk ? (uint32_t)left : transfer->chunk;
    bool write = transfer->access == PVU_DMA_WRITE;
    struct {
        wire_header header;
        wire_dma body;
    } message = {
        .header.command = write ? CMD_DMA_WRITE : CMD_DMA_READ,
        .header.size = (uint32_t)sizeof(message) + (write ? count : 0),
        .body = { .address = transfer->segment->address + transfer->done, .count = count },
    };
    uint8_t *room;

    do
        message.header.id = session->next_id++;
    while (transfer_of(session, &message.header));
    if (write) {
        if (!session_send_data(session, &message, sizeof(message), transfer->at, count, TX_SIZE - TX_FOR_PYTHON))
            return false;
    } else {
        room = session_append(session, sizeof(message), TX_SIZE - TX_FOR_PYTHON);
        if (!room)
            return false;
        memcpy(room, &message, sizeof(message)); /* requests go out together */
    }
    *request = (transfer_request){ transfer, message.header, message.body, transfer->at };
    transfer->in_flight++;
    step(transfer, count);
    return true;
}

void transfer_ask(pvu_session *session)
{
    transfer_request *request;

    session->starved = false;
    while (session->waiting && !session->over && (request = slot(session))) {
        pvu_transfer *transfer = session->waiting;

        if (!ask(session, transfer, request)) {
            size_t before = session->tx_tail - session->tx_head;

            session->starved = true;
            if (!session_flush(session) || session->tx_tail - session->tx_head == before)
                return;
            session->starved = false;
            continue;
        }
        session->waiting = transfer->next_waiting;
        if (transfer->count)
            wait_turn(transfer); /* one chunk of each in turn */
    }
}

static uint32_t check(const transfer_request *request, const wire_header *reply, const uint8_t *body)
{
    size_t size = sizeof(*reply) + sizeof(request->body);

    if (reply->command != request->header.command)
        return EBADMSG;
    if (reply->flags & F_ERROR)
        return reply->error && reply->error <= MAX_ERRNO ? reply->error : EIO;
    if (reply->size < size || memcmp(body, &request->body, sizeof(request->body)) != 0)
        return EBADMSG;
    return reply->command == CMD_DMA_READ && reply->size != size + request->body.count ? EBADMSG : 0;
}

int transfer_reply(pvu_session *session, transfer_request *request, const wire_header *reply, const uint8_t *body,
                   pvu_event *event)
{
    pvu_transfer *transfer = request->transfer;
    uint32_t error = check(request, reply, body);

    if (!error && reply->command == CMD_DMA_READ)
        memcpy(request->at, body + sizeof(request->body), request->body.count);
    request->transfer = NULL;
    transfer->in_flight--;
    if (!error && (transfer->in_flight || transfer->count))
        return PVU_NONE;
    leave(transfer);
    event->token = session->token;
    event->hook = error;
    event->offset = request->body.address;
    event->size = request->body.count;
    event->value = transfer->key;
    return PVU_TRANSFERRED;
}

void transfer_end_all(pvu_session *session)
{
    for (; session->transfers; session->transfers = session->transfers->next)
        session->transfers->session = NULL;
}

pvu_transfer *pvu_transfer_new(pvu_session *session, uint64_t key, const pvu_segment *segments, size_t count,
                               uint8_t *buffer, int access, uint32_t chunk)
{
    pvu_transfer *transfer = calloc(1, sizeof(*transfer) + count * sizeof(*segments));

    if (!transfer)
        return NULL;
    memcpy(transfer->segments, segments, count * sizeof(*segments));
    transfer->session = session;
    transfer->key = key;
    transfer->access = access;
    transfer->chunk = chunk;
    transfer->at = buffer;
    transfer->segment = transfer->segments;
    transfer->count = count;
    transfer->next = session->transfers;
    session->transfers = transfer;
    step(transfer, 0);
    wait_turn(transfer);
    transfer_ask(session);
    session_send(session);
    return transfer;
}

void pvu_transfer_free(pvu_transfer *transfer)
{
    if (transfer->session) {
        pvu_transfer **link = &transfer->session->transfers;

        leave(transfer);
        while (*link != transfer)
            link = &(*link)->next;
        *link = transfer->next;
    }
    free(transfer);
}
