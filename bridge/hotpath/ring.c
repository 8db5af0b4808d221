/* The reader of a ring of labelled events. Its memory is shared with another process: nothing in it is believed. */
#include "hotpath.h"

#include <string.h>

#include "event.h"

size_t pvu_ring_take(void *shared, uint64_t capacity, uint64_t *taken, uint8_t *to, size_t most)
{
    struct ring *ring = shared;
    size_t count = 0;

    for (; count < most; count++) {
        const struct event *event = &ring->events[*taken & (capacity - 1)];
        uint64_t number = *taken + 1;

        /* Numbers count from 1: this one is there when its writer has put its number in. */
        if (__atomic_load_n(&event->sequence, __ATOMIC_ACQUIRE) != number)
            break;
        memcpy(to + count * sizeof *event, event, sizeof *event);
        memcpy(to + count * sizeof *event, &number, sizeof number); /* by now it could be another */
        *taken = number;
    }
    __atomic_store_n(&ring->tail, *taken, __ATOMIC_RELEASE);
    return count;
}

uint64_t pvu_ring_dropped(const void *shared)
{
    const struct ring *ring = shared;

    return __atomic_load_n(&ring->dropped, __ATOMIC_RELAXED);
}
