/* Regions: which span has an offset, and what its rules make of an access. */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pvu_region *pvu_region_new(uint8_t *memory, uint64_t size, uint32_t spans)
{
    pvu_region *region = calloc(1, sizeof(*region) + spans * sizeof(region->spans[0]));

    if (region) {
        region->memory = memory;
        region->size = size;
        region->capacity = spans;
    }
    return region;
}

void pvu_region_free(pvu_region *region)
{
    for (uint32_t i = 0; i < region->count; i++)
        free(region->spans[i].masks);
    free(region);
}

int pvu_region_add(pvu_region *region, uint64_t offset, uint64_t length, int kind, int flags, uint32_t hook,
                   const uint8_t *masks)
{
    region_span *span = &region->spans[region->count];
    uint64_t end = 0;

    if (region->count == region->capacity)
        return -ENOSPC;
    if (region->count)
        end = span[-1].offset + span[-1].length;
    if (offset < end || offset >= region->size || !length || length > region->size - offset)
        return -EINVAL;
    if (kind == PVU_SPAN_DOORBELL && length > 8)
        return -EINVAL;
    *span = (region_span){
        .offset = offset,
        .length = length,
        .hook = hook,
        .kind = (uint8_t)kind,
        .flags = (uint8_t)flags,
    };
    if (kind == PVU_SPAN_REGISTERS) {
        span->masks = calloc(5, length);
        if (!span->masks)
            return -ENOMEM;
        memcpy(span->masks, masks, 4 * length);
        span->locked = span->masks + 4 * length;
    }
    region->count++;
    return 0;
}

int pvu_region_count(pvu_region *region, uint64_t reads_at, uint64_t writes_at)
{
    if (region->size < 4 || reads_at > region->size - 4 || writes_at > region->size - 4)
        return -EINVAL;
    region->counters[0] = region->memory + reads_at;
    region->counters[1] = region->memory + writes_at;
    return 0;
}

int pvu_region_signal(pvu_region *region, uint64_t offset, const int32_t *vectors, uint32_t count)
{
    for (uint32_t i = 0; i < region->count; i++) {
        region_span *span = &region->spans[i];

        if (span->offset == offset && span->flags & PVU_HOOK_WRITE) {
            span->vectors = vectors;
            span->vector_count = count;
            return 0;
        }
    }
    return -ENOENT;
}

bool region_signal(const pvu_region *region, const region_span *span)
{
    uint64_t vector, one = 1;

    if (!span->vectors)
        return false;
    vector = region_value(region, span);
    if (vector >= span->vector_count || span->vectors[vector] < 0)
        return false;
    /* A counter that is full has signals that the client has yet to see. */
    return write(span->vectors[vector], &one, sizeof(one)) == (ssize_t)sizeof(one) || errno == EAGAIN;
}

void region_count(pvu_region *region, bool write)
{
    uint8_t *counter = region->counters[write];
    uint32_t count;

    if (counter) {
        memcpy(&count, counter, sizeof(count));
        count++;
        memcpy(counter, &count, sizeof(count));
    }
}

void pvu_region_unlock(pvu_region *region)
{
    for (uint32_t i = 0; i < region->count; i++)
        if (region->spans[i].locked)
            memset(region->spans[i].locked, 0, region->spans[i].length);
}

const region_span *region_find(const pvu_region *region, uint64_t offset, uint64_t *end)
{
    uint32_t low = 0, high = region->count;

    /* The first span that ends behind the offset. */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const region_span *span = &region->spans[middle];

        if (span->offset + span->length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == region->count) {
        *end = region->size;
        return NULL;
    }
    if (region->spans[low].offset > offset) {
        *end = region->spans[low].offset;
        return NULL;
    }
    *end = region->spans[low].offset + region->spans[low].length;
    return &region->spans[low];
}

/*
 * The memory may be shared with the client, which reads and writes it meanwhile: of constant size, a copy of 1, 2, 4 or
 * 8 bytes is one load and one store, so that neither side sees half of it.
 */
static void copy(uint8_t *to, const uint8_t *from, uint64_t size)
{
    switch (size) {
    case 1:
        *to = *from;
        break;
    case 2:
        memcpy(to, from, 2);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    default:
        memcpy(to, from, size);
    }
}

void region_read(pvu_region *region, const region_span *span, uint64_t offset, uint8_t *data, uint64_t size)
{
    uint8_t *memory = region->memory + span->offset + offset;

    copy(data, memory, size);
    if (span->kind == PVU_SPAN_REGISTERS) {
        const uint8_t *rc = span->masks + 2 * span->length + offset;

        for (uint64_t i = 0; i < size; i++)
            if (rc[i])
                memory[i] &= (uint8_t)~rc[i];
    }
}

void region_write(pvu_region *region, const region_span *span, uint64_t offset, const uint8_t *data, uint64_t size)
{
    uint8_t *memory = region->memory + span->offset + offset;

    if (span->kind == PVU_SPAN_REGISTERS) {
        const uint8_t *writable = span->masks + offset;
        const uint8_t *w1c = writable + span->length;
        const uint8_t *once = w1c + 2 * span->length;
        uint8_t *locked = span->locked + offset;

        if (size == 4) { /* the usual one, at once */
            uint32_t old, new, open, clear, first, closed;

            memcpy(&old, memory, 4);
            memcpy(&new, data, 4);
            memcpy(&open, writable, 4);
            memcpy(&clear, w1c, 4);
            memcpy(&first, once, 4);
            memcpy(&closed, locked, 4);
            open |= first & ~closed;
            closed |= first;
            new = ((old & ~open) | (new & open)) & ~(new & clear);
            memcpy(memory, &new, 4);
            memcpy(locked, &closed, 4);
            return;
        }
        for (uint64_t i = 0; i < size; i++) {
            uint8_t open = (uint8_t)(writable[i] | (once[i] & ~locked[i]));

            memory[i] = (uint8_t)(((memory[i] & ~open) | (data[i] & open)) & ~(data[i] & w1c[i]));
            locked[i] |= once[i];
        }
    } else {
        copy(memory, data, size);
    }
}

uint64_t region_value(const pvu_region *region, const region_span *span)
{
    uint64_t value = 0;

    for (uint64_t i = 0; i < span->length && i < 8; i++)
        value |= (uint64_t)region->memory[span->offset + i] << 8 * i;
    return value;
}

void region_store(pvu_region *region, const region_span *span, uint64_t value)
{
    for (uint64_t i = 0; i < span->length && i < 8; i++)
        region->memory[span->offset + i] = (uint8_t)(value >> 8 * i);
}

int pvu_region_apply(pvu_region *region, uint64_t offset, uint8_t *data, uint64_t size, bool write)
{
    if (offset > region->size || size > region->size - offset)
        return -EINVAL;
    while (size) {
        uint64_t end, length;
        const region_span *span = region_find(region, offset, &end);

        length = size < end - offset ? size : end - offset;
        if (span && write)
            region_write(region, span, offset - span->offset, data, length);
        else if (span)
            region_read(region, span, offset - span->offset, data, length);
        else if (!write)
            memset(data, 0, length);
        offset += length;
        data += length;
        size -= length;
    }
    return 0;
}
