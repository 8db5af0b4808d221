/*
 * Doorbells in pages that are shared with clients. A ring is a store that no message tells of, so the poller looks: at
 * intervals, and without a pause while it spins. What it finds in one look goes to Python together.
 */
#include "poller.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_INTERVAL (UINT64_C(1) << 62) /* ns: what is added to the time does not overflow */

typedef struct {
    void *at;
    uint64_t seen;
} bell;

struct pvu_bells {
    pvu_poller *poller; /* that looks, or NULL */
    pvu_bells *next;    /* of the poller's */
    uint64_t interval;  /* ns between two looks, */
    uint64_t due;       /* and the time of the next */
    uint32_t token;
    uint32_t width;
    uint32_t count;
    uint32_t first;  /* that the next look begins with */
    pvu_ring rings[PVU_MAX_RINGS]; /* found by the last look */
    bell bells[];
};

static bool is_width(uint32_t width)
{
    return width == 1 || width == 2 || width == 4 || width == 8;
}

pvu_bells *pvu_bells_new(pvu_region *region, const uint64_t *offsets, uint32_t count, uint32_t width)
{
    pvu_bells *bells;

    for (uint32_t i = 0; is_width(width) && i < count; i++)
        if (offsets[i] % width || region->size < width || offsets[i] > region->size - width)
            width = 0;
    if (!is_width(width) || !count) {
        errno = EINVAL;
        return NULL;
    }
    bells = calloc(1, sizeof(*bells) + count * sizeof(bells->bells[0]));
    if (!bells)
        return NULL;
    bells->width = width;
    bells->count = count;
    for (uint32_t i = 0; i < count; i++)
        bells->bells[i].at = region->memory + offsets[i];
    return bells;
}

void pvu_bells_free(pvu_bells *bells)
{
    pvu_bells_unwatch(bells);
    free(bells);
}

/* Behind the others: all get their turn, however often one of them is rung. */
static void append(pvu_poller *poller, pvu_bells *bells)
{
    pvu_bells **last = &poller->bells;

    while (*last)
        last = &(*last)->next;
    bells->next = NULL;
    *last = bells;
}

static void take_out(pvu_bells *bells)
{
    pvu_bells **link = &bells->poller->bells;

    while (*link != bells)
        link = &(*link)->next;
    *link = bells->next;
}

void pvu_bells_watch(pvu_bells *bells, pvu_poller *poller, uint32_t token, uint64_t interval)
{
    pvu_bells_unwatch(bells);
    bells->poller = poller;
    bells->token = token;
    bells->interval = !interval ? 1 : interval < MAX_INTERVAL ? interval : MAX_INTERVAL;
    bells->due = 0;
    append(poller, bells);
}

void pvu_bells_unwatch(pvu_bells *bells)
{
    if (bells->poller)
        take_out(bells);
    bells->poller = NULL;
}

void bells_leave(pvu_poller *poller)
{
    while (poller->bells)
        pvu_bells_unwatch(poller->bells);
}

/* In one piece, and before anything that the client stored earlier. */
static uint64_t load(const void *at, uint32_t width)
{
    switch (width) {
    case 1:
        return __atomic_load_n((const uint8_t *)at, __ATOMIC_ACQUIRE);
    case 2:
        return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
    case 4:
        return __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
    default:
        return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
    }
}

static void store(void *at, uint32_t width, uint64_t value)
{
    switch (width) {
    case 1:
        __atomic_store_n((uint8_t *)at, (uint8_t)value, __ATOMIC_RELEASE);
        break;
    case 2:
        __atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_RELEASE);
        break;
    case 4:
        __atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_RELEASE);
        break;
    default:
        __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELEASE);
    }
}

void pvu_bells_reset(pvu_bells *bells)
{
    for (uint32_t i = 0; i < bells->count; i++) {
        store(bells->bells[i].at, bells->width, 0);
        bells->bells[i].seen = 0;
    }
}

/* How many were rung, of up to PVU_MAX_RINGS: the next look begins behind them. */
static uint32_t look(pvu_bells *bells)
{
    uint32_t count = 0, i = bells->first;

    for (uint32_t looked = 0; looked < bells->count && count < PVU_MAX_RINGS; looked++) {
        uint64_t value = load(bells->bells[i].at, bells->width);

        if (value != bells->bells[i].seen) {
            bells->bells[i].seen = value;
            bells->rings[count++] = (pvu_ring){ .hook = i, .value = value };
        }
        if (++i == bells->count)
            i = 0;
    }
    bells->first = count < PVU_MAX_RINGS ? 0 : i;
    return count;
}

int bells_look(pvu_poller *poller, uint64_t time)
{
    for (pvu_bells *bells = poller->bells; bells; bells = bells->next) {
        uint32_t count;

        if (time < bells->due)
            continue;
        count = look(bells);
        if (time != EVERY_BELL && count < PVU_MAX_RINGS)
            bells->due = time + bells->interval;
        if (!count)
            continue;
        take_out(bells);
        append(poller, bells);
        poller->event.token = bells->token;
        poller->event.data = (uint64_t)(uintptr_t)bells->rings;
        poller->event.size = count;
        return PVU_RUNG;
    }
    return PVU_NONE;
}

uint64_t bells_due(const pvu_poller *poller)
{
    uint64_t due = UINT64_MAX;

    for (const pvu_bells *bells = poller->bells; bells; bells = bells->next)
        if (bells->due < due)
            due = bells->due;
    return due;
}
