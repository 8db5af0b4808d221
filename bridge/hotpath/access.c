/* Region accesses: the messages REGION_READ, REGION_WRITE and REGION_WRITE_MULTI. */
#include "hotpath.h"

#include <errno.h>
#include <string.h>

int access_doorbells(pvu_session *session, pvu_event *event)
{
    pvu_device *device = session->device;

    event->token = session->token;
    event->data = (uint64_t)(uintptr_t)device->rings;
    event->size = device->ring_count;
    device->ring_count = 0;
    return PVU_DOORBELLS;
}

static int hook_event(pvu_session *session, pvu_event *event, int kind, uint32_t region, const region_span *span,
                      uint64_t offset, const uint8_t *data, uint64_t size)
{
    session->hook_region = session->device->regions[region];
    session->hook_span = span;
    event->token = session->token;
    event->region = region;
    event->hook = span->hook;
    event->offset = offset;
    event->size = size;
    event->value = 0;
    event->data = (uint64_t)(uintptr_t)data;
    if (data && size <= 8)
        memcpy(&event->value, data, size); /* little-endian host, as vfio-user over PCI has it */
    session->owed = true;
    return kind;
}

static void ring(pvu_device *device, uint32_t index, const region_span *span)
{
    device->rings[device->ring_count++] = (pvu_ring){
        .hook = span->hook,
        .region = index,
        .value = region_value(device->regions[index], span),
    };
}

/*
 * Does an access, span by span, from where it stopped. `data` is what to write, or where what was read goes. Returns
 * PVU_NONE when all is done or the access failed (state.status), otherwise an event for Python.
 */
static int access_do(pvu_session *session, const wire_access *access, bool write, uint8_t *data, pvu_event *event)
{
    access_state *state = &session->access;
    pvu_device *device = session->device;
    pvu_region *region = device->regions[access->region];

    while (!state->status && state->done < access->count) {
        uint64_t at = access->offset + state->done, end;
        uint8_t *piece = data + state->done;
        const region_span *span = region_find(region, at, &end);
        uint32_t size = access->count - state->done;
        uint64_t offset;
        bool hooked;

        if (size > end - at)
            size = (uint32_t)(end - at);
        if (!span) {
            if (!write)
                memset(piece, 0, size);
            state->done += size;
            continue;
        }
        offset = at - span->offset;
        hooked = span->flags & (write ? PVU_HOOK_WRITE : PVU_HOOK_READ);
        if (device->ring_count && (hooked || device->ring_count == PVU_MAX_RINGS))
            return access_doorbells(session, event);
        if (write) {
            region_write(region, span, offset, piece, size);
            if (span->kind == PVU_SPAN_DOORBELL)
                ring(device, access->region, span);
        } else {
            if (hooked && !state->asked) {
                state->asked = true;
                return hook_event(session, event, PVU_READ, access->region, span, offset, NULL, size);
            }
            state->asked = false;
            region_read(region, span, offset, piece, size);
        }
        if (span->flags & PVU_RECORD && device->recorder)
            record_access(device->recorder, access->region, write, at, piece, size);
        state->done += size;
        if (write && hooked && !region_signal(region, span))
            return hook_event(session, event, PVU_WRITE, access->region, span, offset, piece, size);
    }
    if (!state->status)
        region_count(region, write);
    return PVU_NONE;
}

static bool valid(const pvu_device *device, const wire_access *access, uint32_t limit)
{
    const pvu_region *region;

    if (access->region >= PVU_REGIONS || !access->count || access->count > limit)
        return false;
    region = device->regions[access->region];
    return region && access->offset < region->size && access->count <= region->size - access->offset;
}

/* Ends a message, of whose reply `size` bytes are made. */
static int finish(pvu_session *session, const wire_header *header, size_t size)
{
    int status = session->access.status;

    session->access = (access_state){ 0 };
    session_reply(session, header, size, status);
    return ACCESS_DONE;
}

static int access_one(pvu_session *session, const wire_header *header, uint8_t *body, pvu_event *event)
{
    access_state *state = &session->access;
    bool write = header->command == CMD_REGION_WRITE;
    size_t length = header->size - sizeof(*header);
    size_t fixed = sizeof(*header) + sizeof(wire_access);
    wire_access access = { 0 };
    uint8_t *reply;
    int stopped;

    if (length >= sizeof(access))
        memcpy(&access, body, sizeof(access));
    if (!state->begun) {
        bool good = length >= sizeof(access) && valid(session->device, &access, PVU_MAX_TRANSFER);

        if (!good || length - sizeof(access) != (write ? access.count : 0))
            state->status = EINVAL;
        if (!write && !state->status && session->device->ring_count)
            return access_doorbells(session, event);
        if (!session_reserve(session, fixed + (write || state->status ? 0 : access.count)))
            return ACCESS_BLOCKED;
        state->begun = true;
    }
    reply = session->tx + session->tx_tail;
    if (!state->status) {
        stopped = access_do(session, &access, write, write ? body + sizeof(access) : reply + fixed, event);
        if (stopped)
            return stopped;
    }
    memcpy(reply + sizeof(*header), &access, sizeof(access));
    return finish(session, header, fixed + (write ? 0 : access.count));
}

/* Each write stands for itself: one that cannot be is left out, and the others are done. */
static int access_multi(pvu_session *session, const wire_header *header, uint8_t *body, pvu_event *event)
{
    access_state *state = &session->access;
    size_t length = header->size - sizeof(*header);
    uint64_t count = 0;
    wire_multi item;

    if (length >= sizeof(count))
        memcpy(&count, body, sizeof(count));
    if (!state->begun) {
        if (!session_reserve(session, sizeof(*header) + sizeof(count)))
            return ACCESS_BLOCKED;
        state->begun = true;
    }
    if (length < sizeof(count) || (length - sizeof(count)) % sizeof(item) ||
        (length - sizeof(count)) / sizeof(item) != count) {
        state->status = EINVAL;
        return finish(session, header, 0);
    }
    for (; state->item < count; state->item++) {
        uint8_t *at = body + sizeof(count) + state->item * sizeof(item);
        int stopped = PVU_NONE;

        memcpy(&item, at, sizeof(item));
        if (valid(session->device, &item.access, sizeof(item.data)))
            stopped = access_do(session, &item.access, true, at + offsetof(wire_multi, data), event);
        else
            state->status = EINVAL;
        if (stopped)
            return stopped;
        if (!state->failed)
            state->failed = state->status;
        state->status = 0;
        state->done = 0;
    }
    state->status = state->failed;
    memcpy(session->tx + session->tx_tail + sizeof(*header), &count, sizeof(count));
    return finish(session, header, sizeof(*header) + sizeof(count));
}

int access_message(pvu_session *session, const wire_header *header, uint8_t *body, pvu_event *event)
{
    return header->command == CMD_REGION_WRITE_MULTI ? access_multi(session, header, body, event)
                                                     : access_one(session, header, body, event);
}
