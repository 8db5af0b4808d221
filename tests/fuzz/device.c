/* A device with a span of every kind, and a model of what accesses to it must do, byte by byte. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    uint32_t region, offset, length;
    int kind, flags;
    uint32_t hook;
    uint8_t writable, w1c, rc, once; /* of every byte */
} plan;

enum { BIG = MAX_DATA + 0x1000, READS = PVU_HOOK_READ, WRITES = PVU_HOOK_WRITE };

static const plan plans[] = {
    { 0, 0x000, 16, PVU_SPAN_REGISTERS, 0, 0, 0xf7, 0, 0, 0 },
    { 0, 0x010, 4, PVU_SPAN_REGISTERS, 0, 0, 0, 0xff, 0, 0 },
    { 0, 0x014, 4, PVU_SPAN_REGISTERS, PVU_RECORD, 0, 0x0f, 0, 0xf0, 0 },
    { 0, 0x018, 8, PVU_SPAN_REGISTERS, 0, 0, 0x0f, 0, 0, 0xf0 },
    { 0, 0x020, 4, PVU_SPAN_REGISTERS, READS, 1, 0xff, 0, 0, 0 },
    { 0, 0x024, 4, PVU_SPAN_REGISTERS, WRITES, 2, 0xff, 0, 0, 0 },
    { 0, 0x028, 8, PVU_SPAN_REGISTERS, READS | WRITES | PVU_RECORD, 3, 0xff, 0, 0xff, 0 },
    { 0, 0x030, 16, PVU_SPAN_REGISTERS, READS | WRITES, 4, 0xff, 0, 0, 0 },
    { 0, 0x040, 4, PVU_SPAN_DOORBELL, 0, 5, 0, 0, 0, 0 },
    { 0, 0x048, 8, PVU_SPAN_DOORBELL, PVU_RECORD, 6, 0, 0, 0, 0 },
    { 0, 0x050, 4, PVU_SPAN_REGISTERS, READS | WRITES, HOOK_REFUSED, 0xff, 0, 0, 0 },
    { 0, 0x058, 4, PVU_SPAN_REGISTERS, WRITES | PVU_RECORD, HOOK_SIGNAL, 0x07, 0, 0, 0 },
    { 0, 0x100, 0x100, PVU_SPAN_MEMORY, PVU_RECORD, 0, 0, 0, 0, 0 },
    { 0, 0xffc, 4, PVU_SPAN_DOORBELL, 0, 8, 0, 0, 0, 0 },
    { 2, 0, BIG, PVU_SPAN_REGISTERS, 0, 0, 0, 0, 0, 0 },
    { 6, 0, 0x4000, PVU_SPAN_MEMORY, 0, 0, 0, 0, 0, 0 },
    { 7, 0, 0x100, PVU_SPAN_REGISTERS, WRITES, 9, 0x3f, 0x40, 0, 0 },
};
enum { PLANS = sizeof(plans) / sizeof(plans[0]) };

static const uint64_t sizes[REGIONS] = { [0] = 0x1000, [2] = BIG, [6] = 0x5000, [7] = 0x100 };

static uint8_t *filled(uint64_t size)
{
    uint8_t *memory = malloc(size);

    CHECK(memory);
    for (uint64_t i = 0; i < size; i++)
        memory[i] = (uint8_t)(i ^ i >> 8 ^ i >> 16);
    return memory;
}

device *device_new(void)
{
    device *made = calloc(1, sizeof(*made));

    CHECK(made);
    for (uint32_t n = 0; n < REGIONS; n++) {
        if (!sizes[n])
            continue;
        made->sizes[n] = sizes[n];
        made->memory[n] = filled(sizes[n]);
        made->shadow[n] = filled(sizes[n]);
        made->locked[n] = calloc(1, sizes[n]);
        made->regions[n] = pvu_region_new(made->memory[n], sizes[n], PLANS);
        CHECK(made->locked[n] && made->regions[n]);
    }
    for (size_t i = 0; i < PLANS; i++) {
        const plan *each = &plans[i];
        uint8_t *masks = malloc(4 * (size_t)each->length);
        const uint8_t values[4] = { each->writable, each->w1c, each->rc, each->once };

        CHECK(masks);
        for (size_t kind = 0; kind < 4; kind++)
            memset(masks + kind * each->length, values[kind], each->length);
        CHECK(pvu_region_add(made->regions[each->region], each->offset, each->length, each->kind, each->flags,
                             each->hook, masks) == 0);
        free(masks);
    }
    made->vectors = malloc(VECTORS * sizeof(*made->vectors));
    CHECK(made->vectors);
    for (size_t i = 0; i < VECTORS; i++)
        made->vectors[i] = i == 1 ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(pvu_region_signal(made->regions[0], 0x058, made->vectors, VECTORS) == 0);
    return made;
}

/* All but region 2, which nothing can change. */
void device_reset(device *device)
{
    for (uint32_t n = 0; n < REGIONS; n++) {
        if (!sizes[n] || n == 2)
            continue;
        memset(device->memory[n], 0x5a, sizes[n]);
        memset(device->shadow[n], 0x5a, sizes[n]);
        memset(device->locked[n], 0, sizes[n]);
        pvu_region_unlock(device->regions[n]);
    }
    memset(device->memory[0] + 0x058, 0, 4); /* no bit of it but the writable ones */
    memset(device->shadow[0] + 0x058, 0, 4);
    (void)device_signals(device);
    device->signals = 0;
}

uint64_t device_signals(device *device)
{
    uint64_t count, all = 0;

    for (size_t i = 0; i < VECTORS; i++)
        if (device->vectors[i] >= 0 && read(device->vectors[i], &count, sizeof(count)) == sizeof(count))
            all += count << 32 * (i != 0);
    return all;
}

int hook_status(uint32_t hook, uint64_t value)
{
    return hook == HOOK_REFUSED || (value & 0xff) == 0xee ? EIO : 0;
}

uint64_t hook_value(uint32_t hook)
{
    return 0x0123456789abcdef * (hook + 1);
}

static void expect_event(model *model, happening event)
{
    CHECK(model->event_tail < MAX_EVENTS);
    model->events[model->event_tail++] = event;
}

bool has_room(const model *model)
{
    return model->reply_tail + MAX_MESSAGE <= MAX_REPLIES && model->event_tail + EVENTS_OF_ONE <= MAX_EVENTS;
}

static const plan *plan_at(uint32_t region, uint64_t offset, uint64_t *end)
{
    *end = sizes[region];
    for (size_t i = 0; i < PLANS; i++) {
        const plan *each = &plans[i];

        if (each->region != region || each->offset + each->length <= offset)
            continue;
        *end = each->offset > offset ? each->offset : each->offset + each->length;
        return each->offset > offset ? NULL : each;
    }
    return NULL;
}

static uint64_t number(const uint8_t *bytes, uint64_t size)
{
    uint64_t value = 0;

    if (size <= 8)
        memcpy(&value, bytes, size);
    return value;
}

static void write_byte(const plan *plan, uint8_t *byte, uint8_t *locked, uint8_t data)
{
    uint8_t open = (uint8_t)(plan->writable | (plan->once & ~*locked));

    if (plan->kind != PVU_SPAN_REGISTERS) {
        *byte = data;
        return;
    }
    *byte = (uint8_t)(((*byte & ~open) | (data & open)) & ~(data & plan->w1c));
    *locked |= plan->once;
}

/* Does the hot path signal what was written, without Python? */
static bool signalled(device *device, uint64_t vector)
{
    if (vector >= VECTORS || device->vectors[vector] < 0)
        return false;
    device->signals += 1ull << 32 * (vector != 0);
    return true;
}

/* An access that is within its region; its errno. */
static int expect_access(model *model, device *device, wire_place place, bool write, const uint8_t *data, uint8_t *found)
{
    uint8_t *shadow = device->shadow[place.region];
    uint64_t at = place.offset, stop = place.offset + place.count, end;

    for (; at < stop; at = end) {
        const plan *span = plan_at(place.region, at, &end);
        happening event = { .region = place.region };
        uint64_t size;

        end = end < stop ? end : stop;
        size = end - at;
        if (!span) {
            if (!write)
                memset(found + (at - place.offset), 0, size);
            continue;
        }
        event.hook = span->hook;
        event.offset = at - span->offset;
        event.size = size;
        if (write) {
            const uint8_t *piece = data + (at - place.offset);

            for (uint64_t i = 0; i < size; i++)
                write_byte(span, &shadow[at + i], &device->locked[place.region][at + i], piece[i]);
            event.value = number(piece, size);
            if (span->kind == PVU_SPAN_DOORBELL) {
                event.value = number(shadow + span->offset, span->length);
                event.kind = PVU_DOORBELLS;
                event.offset = event.size = 0;
                expect_event(model, event);
            } else if (span->hook == HOOK_SIGNAL && signalled(device, number(shadow + span->offset, span->length))) {
                continue;
            } else if (span->flags & WRITES) {
                event.kind = PVU_WRITE;
                expect_event(model, event);
                if (hook_status(span->hook, event.value))
                    return hook_status(span->hook, event.value);
            }
        } else {
            if (span->flags & READS) {
                event.kind = PVU_READ;
                expect_event(model, event);
                if (hook_status(span->hook, 0))
                    return hook_status(span->hook, 0);
                for (uint32_t i = 0; span->length <= 8 && i < span->length; i++)
                    shadow[span->offset + i] = (uint8_t)(hook_value(span->hook) >> 8 * i);
            }
            memcpy(found + (at - place.offset), shadow + at, size);
            for (uint64_t i = 0; span->rc && i < size; i++)
                shadow[at + i] &= (uint8_t)~span->rc;
        }
    }
    return 0;
}

static bool within(wire_place place, uint32_t limit)
{
    return place.region < REGIONS && place.count && place.count <= limit && place.offset < sizes[place.region] &&
           place.count <= sizes[place.region] - place.offset;
}

static int expect_multi(model *model, device *device, const uint8_t *body, uint64_t size)
{
    int failed = 0;

    for (uint64_t at = 8; at < size; at += MULTI) {
        wire_place place;
        int status = EINVAL;

        memcpy(&place, body + at, sizeof(place));
        if (within(place, 8))
            status = expect_access(model, device, place, true, body + at + sizeof(place), NULL);
        if (!failed)
            failed = status;
    }
    return failed;
}

/* Region 2 has more to say, and a file, for who has room for it; of region 8 and interrupts 4 nothing is said. */
static uint32_t describe(uint32_t command, uint32_t index, bool all, uint8_t *bytes)
{
    uint32_t least = command == GET_REGION_INFO ? 32 : 16;
    uint32_t size = least + (all && command == GET_REGION_INFO && index == 2 ? 64 : 0);

    if ((command == GET_REGION_INFO && index >= REGIONS - 1) || (command == GET_IRQ_INFO && index >= IRQS - 1))
        return 0;
    memset(bytes, (int)(command * 16 + index + (size > least)), size);
    return size;
}

void device_describe(pvu_device *native)
{
    static const uint32_t counts[] = { [GET_INFO] = 1, [GET_REGION_INFO] = REGIONS, [GET_IRQ_INFO] = IRQS };
    uint8_t brief[96], full[96];

    for (uint32_t command = GET_INFO; command <= GET_IRQ_INFO; command++)
        for (uint32_t index = 0; index < counts[command]; index++) {
            uint32_t least = describe(command, index, false, brief), size = describe(command, index, true, full);

            if (least)
                CHECK(pvu_device_describe(native, command, index, brief, least, full, size,
                                          size > least ? 0 : -1) == 0);
        }
}

static uint32_t expect_description(uint32_t command, const uint8_t *body, uint64_t length, uint8_t *reply)
{
    uint32_t request[3] = { 0 }, least = command == GET_REGION_INFO ? 32 : 16, size;
    uint8_t all[96];

    if (length < least)
        return 0;
    memcpy(request, body, sizeof(request));
    if (request[0] < least)
        return 0;
    if (command == GET_INFO)
        request[2] = 0;
    size = describe(command, request[2], true, all);
    return describe(command, request[2], request[0] >= size, reply);
}

bool goes_with_fd(const wire *reply)
{
    return reply->command == GET_REGION_INFO && reply->size == HEADER + 96;
}

size_t answer_message(const uint8_t *message, uint8_t *answer)
{
    wire header;

    memcpy(&header, message, sizeof(header));
    if (header.flags & NO_REPLY || (header.flags & TYPE) == REPLY)
        return 0;
    header.flags = REPLY | ERROR;
    header.error = ENOTSUP;
    header.size = HEADER;
    memcpy(answer, &header, sizeof(header));
    return HEADER;
}

void expect_message(model *model, device *device, bool negotiated, const uint8_t *message, uint32_t fds)
{
    uint8_t *reply = model->replies + model->reply_tail;
    const uint8_t *body = message + HEADER;
    wire header, answer;
    wire_place place = { 0 };
    uint64_t count = 0, length;
    bool multi, write, describes;
    int status = EINVAL;

    if (!model->exact)
        return;
    CHECK(has_room(model));
    memcpy(&header, message, sizeof(header));
    length = header.size - HEADER;
    multi = header.command == REGION_WRITE_MULTI;
    write = header.command == REGION_WRITE;
    describes = header.command == GET_INFO || header.command == GET_REGION_INFO || header.command == GET_IRQ_INFO;
    if (!negotiated || (header.flags & TYPE) == REPLY ||
        !(multi || write || describes || header.command == REGION_READ)) {
        expect_event(model, (happening){ .kind = PVU_MESSAGE, .fds = fds, .size = header.size });
        model->reply_tail += answer_message(message, reply);
        return;
    }
    answer = (wire){ .id = header.id, .command = header.command, .flags = REPLY };
    if (multi) {
        if (length >= sizeof(count))
            memcpy(&count, body, sizeof(count));
        if (length >= 8 && (length - 8) % MULTI == 0 && (length - 8) / MULTI == count)
            status = expect_multi(model, device, body, length);
        answer.size = HEADER + 8;
        memcpy(reply + HEADER, &count, sizeof(count));
    } else if (describes) {
        answer.size = HEADER + expect_description(header.command, body, length, reply + HEADER);
        status = answer.size > HEADER ? 0 : EINVAL;
    } else {
        if (length >= sizeof(place))
            memcpy(&place, body, sizeof(place));
        if (length >= sizeof(place) && within(place, MAX_DATA) && length - sizeof(place) == (write ? place.count : 0))
            status = expect_access(model, device, place, write, body + sizeof(place), reply + ACCESS);
        answer.size = ACCESS + (write || status ? 0 : place.count);
        memcpy(reply + HEADER, &place, sizeof(place));
    }
    if (status) {
        answer.size = HEADER;
        answer.flags |= ERROR;
        answer.error = (uint32_t)status;
    }
    memcpy(reply, &answer, sizeof(answer));
    if (!(header.flags & NO_REPLY))
        model->reply_tail += answer.size;
}
