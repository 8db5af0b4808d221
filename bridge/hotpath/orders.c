/* All orders of arrival that a relation over at most 64 effects permits, one after the other; api.h says what they are. */
#include "hotpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_LEVELS (2 * PVU_ORDERS_EFFECTS + 1)

/* One choice: of the block that arrives next, or of the passive effects that have arrived before it. */
struct level {
    uint64_t done; /* before this choice */
    uint64_t block;
    bool passive;
    bool begun;
};

struct pvu_orders {
    uint64_t before[PVU_ORDERS_EFFECTS];
    uint64_t not_after[PVU_ORDERS_EFFECTS];
    uint64_t gather[PVU_ORDERS_EFFECTS];
    uint64_t all, passive;
    uint32_t count, depth;
    bool begun, finished;
    struct level levels[MOST_LEVELS];
    /* For PVU_INVARIANT_FINAL. */
    uint32_t image_size;
    pvu_effect_data data[PVU_ORDERS_EFFECTS];
    uint8_t expected[PVU_ORDERS_IMAGE];
};

static uint64_t highest(uint64_t mask)
{
    return 1ull << (63 - __builtin_clzll(mask));
}

/* Can the effect arrive in one block with `rest`, when `done` has arrived? */
static bool can_join(const pvu_orders *orders, uint32_t effect, uint64_t done, uint64_t rest, bool passive)
{
    if (orders->not_after[effect] & ~(done | rest))
        return false;
    return passive || !((orders->before[effect] & ~done) | (rest & ~orders->gather[effect]));
}

/*
 * The set after `set`, 0 being the one before the first and the one after the last. Sets grow by higher effects only, and
 * what an effect must not be after is lower: so each set on the way to a legal one is legal.
 */
static uint64_t next_set(const pvu_orders *orders, const struct level *level)
{
    uint64_t rest = level->block;
    uint64_t candidates = orders->all & ~level->done & (level->passive ? orders->passive : ~0ull);
    uint64_t above = rest ? ~(highest(rest) | (highest(rest) - 1)) : ~0ull;

    for (;;) {
        for (uint64_t left = candidates & above; left; left &= left - 1)
            if (can_join(orders, (uint32_t)__builtin_ctzll(left), level->done, rest, level->passive))
                return rest | (left & -left);
        if (!rest)
            return 0;
        above = ~(highest(rest) | (highest(rest) - 1));
        rest ^= highest(rest);
    }
}

/* Moves a level to its next choice; false: it has none left. */
static bool choose(const pvu_orders *orders, struct level *level)
{
    uint64_t remaining = orders->all & ~level->done;
    bool first = !level->begun;

    level->begun = true;
    if (!level->passive) {
        do
            level->block = next_set(orders, level);
        while (level->block && !(level->block & ~orders->passive));
        return level->block != 0;
    }
    if (!(remaining & ~orders->passive)) { /* nobody is left to see in which order they come */
        level->block = remaining;
        return first;
    }
    if (first)
        return true;
    level->block = next_set(orders, level);
    return level->block != 0;
}

/* Moves to the next behaviour; false: that was all. */
static bool advance(pvu_orders *orders)
{
    if (orders->finished)
        return false;
    if (!orders->begun) {
        orders->begun = true;
        orders->levels[0] = (struct level){.passive = orders->passive != 0};
        if (!orders->all) /* one behaviour, in which nothing arrives */
            return orders->finished = true;
    }
    for (;;) {
        struct level *level = &orders->levels[orders->depth];

        if (!choose(orders, level)) {
            if (!orders->depth) {
                orders->finished = true;
                return false;
            }
            orders->depth--;
            continue;
        }
        uint64_t done = level->done | level->block;

        if (done == orders->all)
            return true;
        orders->depth++;
        level[1] = (struct level){.done = done, .passive = orders->passive && !level->passive};
    }
}

/* The behaviour's blocks, 0 after the last; returns how many. */
static uint32_t write_blocks(const pvu_orders *orders, uint64_t *blocks)
{
    uint32_t count = 0;

    memset(blocks, 0, orders->count * sizeof *blocks);
    for (uint32_t depth = 0; orders->all && depth <= orders->depth; depth++) {
        const struct level *level = &orders->levels[depth];

        if (level->passive)
            for (uint64_t left = level->block; left; left &= left - 1)
                blocks[count++] = left & -left;
        else
            blocks[count++] = level->block;
    }
    return count;
}

pvu_orders *pvu_orders_new(uint32_t count, const uint64_t *before, const uint64_t *not_after, const uint64_t *gather,
                           uint64_t absent, uint64_t passive)
{
    pvu_orders *orders;

    if (count > PVU_ORDERS_EFFECTS)
        return NULL;
    for (uint32_t effect = 0; effect < count; effect++)
        if ((before[effect] | not_after[effect]) & ~((1ull << effect) - 1))
            return NULL; /* what is earlier has a lower number: `next_set` rests on it */
    orders = calloc(1, sizeof *orders);
    if (!orders)
        return NULL;
    orders->count = count;
    orders->all = (count == PVU_ORDERS_EFFECTS ? ~0ull : (1ull << count) - 1) & ~absent;
    orders->passive = passive & orders->all;
    memcpy(orders->before, before, count * sizeof *before);
    memcpy(orders->not_after, not_after, count * sizeof *not_after);
    memcpy(orders->gather, gather, count * sizeof *gather);
    return orders;
}

void pvu_orders_free(pvu_orders *orders)
{
    free(orders);
}

size_t pvu_orders_next(pvu_orders *orders, uint64_t *blocks, size_t most)
{
    size_t found = 0;

    for (; found < most && advance(orders); found++)
        write_blocks(orders, blocks + found * orders->count);
    return found;
}

int pvu_orders_expect(pvu_orders *orders, const pvu_effect_data *data, const uint8_t *expected, uint32_t size)
{
    if (size > PVU_ORDERS_IMAGE)
        return -EINVAL;
    for (uint32_t effect = 0; effect < orders->count; effect++)
        if (data[effect].size > sizeof data->bytes || data[effect].at > size || data[effect].size > size - data[effect].at)
            return -EINVAL;
    memcpy(orders->data, data, orders->count * sizeof *data);
    memcpy(orders->expected, expected, size);
    orders->image_size = size;
    return 0;
}

/* Bytes as they are in the end; what one block has twice is as the later store has it. */
static bool final_holds(const pvu_orders *orders, const uint64_t *blocks, uint32_t count)
{
    uint8_t image[PVU_ORDERS_IMAGE] = {0};

    for (uint32_t block = 0; block < count; block++)
        for (uint64_t left = blocks[block]; left; left &= left - 1) {
            const pvu_effect_data *data = &orders->data[__builtin_ctzll(left)];

            memcpy(image + data->at, data->bytes, data->size);
        }
    return !memcmp(image, orders->expected, orders->image_size);
}

static bool holds(const pvu_orders *orders, const pvu_invariant *invariant, const uint64_t *blocks, uint32_t count)
{
    uint64_t arrived = 0;

    if (invariant->kind == PVU_INVARIANT_FINAL)
        return final_holds(orders, blocks, count);
    for (uint32_t block = 0; block < count; block++) {
        if (invariant->kind == PVU_INVARIANT_BEFORE && blocks[block] & invariant->second &&
            invariant->first & orders->all & ~arrived)
            return false;
        if (invariant->kind == PVU_INVARIANT_TOGETHER && !(invariant->first & ~blocks[block]))
            return true;
        arrived |= blocks[block];
    }
    if (invariant->kind == PVU_INVARIANT_NEVER)
        return !(arrived & invariant->first);
    return invariant->kind == PVU_INVARIANT_BEFORE;
}

uint64_t pvu_orders_check(pvu_orders *orders, const pvu_invariant *invariants, uint32_t count, uint64_t most,
                          uint64_t *broken, uint64_t *witnesses)
{
    uint64_t blocks[PVU_ORDERS_EFFECTS];
    uint64_t checked = 0;

    for (; checked < most && advance(orders); checked++) {
        uint32_t length = write_blocks(orders, blocks);

        for (uint32_t which = 0; which < count; which++)
            if (!holds(orders, &invariants[which], blocks, length) && !broken[which]++)
                memcpy(witnesses + (size_t)which * orders->count, blocks, orders->count * sizeof *blocks);
    }
    return checked;
}
