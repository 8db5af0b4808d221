/*
 * Fuzzes the pollers of shared memory: threads that copy one word to another whenever it changes, here perhaps one
 * behind the other. The client stores words, and what comes of each must come of it, and nothing else change.
 */
#include "fuzz.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

enum { SIZE = 64, WORDS = SIZE / 4, ECHOES = 3, SECONDS = 20 };

const size_t record_size = 8;

static _Alignas(uint64_t) uint8_t memory[SIZE];
static uint32_t expected[WORDS];
static struct {
    pvu_echo *running;
    uint32_t from, to, seen;
} echoes[ECHOES];

static uint32_t word(size_t index)
{
    return __atomic_load_n((const uint32_t *)(const void *)memory + index, __ATOMIC_ACQUIRE);
}

/* What comes of a store: one that repeats what was seen is none. */
static void expect(void)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < ECHOES; i++) {
            if (!echoes[i].running || expected[echoes[i].from] == echoes[i].seen)
                continue;
            echoes[i].seen = expected[echoes[i].from];
            expected[echoes[i].to] = echoes[i].seen;
            changed = true;
        }
    }
}

static void await(void)
{
    time_t end = time(NULL) + SECONDS;

    for (size_t i = 0; i < WORDS; i++)
        while (word(i) != expected[i]) {
            CHECK(time(NULL) < end);
            sched_yield();
        }
}

static void start(input *from, pvu_region *region, uint64_t size, size_t which)
{
    uint64_t source = take(from, 1), target = take(from, 1);
    bool good;

    if (source >= 0xf0)
        source = 0 - (source & 0xf);
    if (target >= 0xf0)
        target = 0 - (target & 0xf);
    good = source % 4 == 0 && target % 4 == 0 && source < size && target < size && size - source >= 4 &&
           size - target >= 4;
    if (echoes[which].running)
        return;
    errno = 0;
    echoes[which].running = pvu_echo_start(region, source, target);
    CHECK((echoes[which].running != NULL) == good && (good || errno == EINVAL));
    if (!good)
        return;
    echoes[which].from = (uint32_t)source / 4;
    echoes[which].to = (uint32_t)target / 4;
    echoes[which].seen = expected[source / 4];
}

static void stop(size_t which)
{
    if (echoes[which].running)
        pvu_echo_stop(echoes[which].running);
    echoes[which].running = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = { data, size }, first = take_record(&from);
    uint64_t bytes = take(&first, 1) % (SIZE + 1);
    pvu_region *region = pvu_region_new(memory, bytes, 0);

    CHECK(region);
    memset(memory, 0, sizeof(memory));
    memset(expected, 0, sizeof(expected));
    for (int i = 0; i < 16 && from.size; i++) {
        input record = take_record(&from);
        uint64_t what = take(&record, 1);

        if (what % 8 == 0) {
            stop(what / 8 % ECHOES);
        } else if (what % 8 < 3) {
            start(&record, region, bytes, what / 8 % ECHOES);
        } else {
            uint64_t at = take(&record, 1) % WORDS;

            expected[at] = (uint32_t)take(&record, 4);
            __atomic_store_n((uint32_t *)(void *)memory + at, expected[at], __ATOMIC_RELEASE);
            expect();
            await();
        }
    }
    for (size_t i = 0; i < ECHOES; i++)
        stop(i);
    for (size_t i = 0; i < WORDS; i++)
        CHECK(word(i) == expected[i]);
    pvu_region_free(region);
    return 0;
}
