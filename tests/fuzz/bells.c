/*
 * Fuzzes doorbells in shared memory: the client stores what and where it likes, and each look tells of those whose value
 * is another one than the last that was told, in their order, a limited number at a time; and nothing else changes.
 */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

enum { SIZE = 1024, GROUPS = 3, MAX_ACTS = 100, MOST = 64, TOKEN = 7 };

const size_t record_size = 12;

static _Alignas(uint64_t) uint8_t memory[SIZE], shadow[SIZE];
static struct {
    pvu_bells *bells; /* or NULL */
    bool watched;
    uint32_t width, count, first;
    uint64_t offsets[SIZE], seen[SIZE];
} groups[GROUPS];
static pvu_poller *watching;

static uint64_t value_at(uint64_t offset, uint32_t width)
{
    uint64_t value = 0;

    memcpy(&value, shadow + offset, width);
    return value;
}

static void make(input *from, size_t which, pvu_region *region)
{
    uint32_t width = (uint32_t)take(from, 1) % 9, count = (uint32_t)take(from, 1);
    uint64_t start = take(from, 2), stride = take(from, 1);
    bool good = count && (width == 1 || width == 2 || width == 4 || width == 8);

    if (groups[which].bells)
        return;
    if (start >= 0xff00)
        start -= 0x10000; /* the end of all offsets */
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = groups[which].offsets[i] = start + i * stride;

        good = good && offset % width == 0 && offset < SIZE && SIZE - offset >= width;
    }
    errno = 0;
    groups[which].bells = pvu_bells_new(region, groups[which].offsets, count, width);
    CHECK((groups[which].bells != NULL) == good && (good || errno == EINVAL));
    groups[which].width = width;
    groups[which].count = count;
    groups[which].first = 0;
    groups[which].watched = false;
    memset(groups[which].seen, 0, sizeof(groups[which].seen));
}

static void drop(size_t which)
{
    if (groups[which].bells)
        pvu_bells_free(groups[which].bells);
    groups[which].bells = NULL;
}

static void reset(size_t which)
{
    pvu_bells_reset(groups[which].bells);
    for (uint32_t i = 0; i < groups[which].count; i++) {
        memset(shadow + groups[which].offsets[i], 0, groups[which].width);
        groups[which].seen[i] = 0;
    }
}

/* What a look that begins with bell `first` must tell; where the next begins. */
static uint32_t expect(size_t which, uint32_t first, pvu_ring *rings, size_t *count)
{
    uint32_t i = first;

    *count = 0;
    for (uint32_t looked = 0; looked < groups[which].count && *count < MOST; looked++) {
        uint64_t value = value_at(groups[which].offsets[i], groups[which].width);

        if (value != groups[which].seen[i])
            rings[(*count)++] = (pvu_ring){ .hook = i, .value = value };
        i = i + 1 == groups[which].count ? 0 : i + 1;
    }
    return *count < MOST ? 0 : i;
}

/* One event: the rings of one group that has any. A look that found none may have come between, and begun anew. */
static void check_rings(const pvu_event *event)
{
    const pvu_ring *rings = (const pvu_ring *)(uintptr_t)event->data;
    size_t which = event->token - TOKEN, count;
    pvu_ring expected[MOST];
    uint32_t next;

    CHECK(which < GROUPS && groups[which].bells && groups[which].watched);
    next = expect(which, groups[which].first, expected, &count);
    if (rings[0].hook != expected[0].hook)
        next = expect(which, 0, expected, &count);
    CHECK(count && event->size == count && memcmp(rings, expected, count * sizeof(expected[0])) == 0);
    for (size_t i = 0; i < count; i++)
        groups[which].seen[rings[i].hook] = rings[i].value;
    groups[which].first = next;
}

static bool any_ring(void)
{
    for (size_t which = 0; which < GROUPS; which++)
        for (uint32_t i = 0; groups[which].bells && groups[which].watched && i < groups[which].count; i++)
            if (value_at(groups[which].offsets[i], groups[which].width) != groups[which].seen[i])
                return true;
    return false;
}

static void act(input *from, pvu_region *region)
{
    uint64_t what = take(from, 1), value, at;
    size_t which = what / 8 % GROUPS;
    int kind;

    switch (what % 8) {
    case 0:
        make(from, which, region);
        break;
    case 1:
        drop(which);
        break;
    case 2:
        if (groups[which].bells)
            reset(which);
        break;
    case 3:
        if (groups[which].bells && (groups[which].watched = what < 0x80))
            pvu_bells_watch(groups[which].bells, watching, (uint32_t)(TOKEN + which), 0);
        else if (groups[which].bells)
            pvu_bells_unwatch(groups[which].bells);
        break;
    case 4:
    case 5:
        at = take(from, 2) % (SIZE - 8);
        value = take(from, 8);
        memcpy(memory + at, &value, 8);
        memcpy(shadow + at, &value, 8);
        break;
    default:
        /* An interval of a nanosecond: all are due whenever it looks. */
        while ((kind = pvu_poller_next(watching, 0)) != PVU_NONE) {
            CHECK(kind == PVU_RUNG);
            check_rings(pvu_poller_event(watching));
        }
        CHECK(!any_ring());
    }
    CHECK(memcmp(memory, shadow, SIZE) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = { data, size };
    pvu_region *region = pvu_region_new(memory, SIZE, 0);

    watching = pvu_poller_new();
    CHECK(region && watching);
    memset(memory, 0, SIZE);
    memset(shadow, 0, SIZE);
    for (int i = 0; i < MAX_ACTS && from.size; i++) {
        input record = take_record(&from);

        act(&record, region);
    }
    if (size / record_size % 2)
        pvu_poller_free(watching);
    for (size_t which = 0; which < GROUPS; which++)
        drop(which);
    if (size / record_size % 2 == 0)
        pvu_poller_free(watching);
    pvu_region_free(region);
    return 0;
}
