/*
 * Fuzzes the reader of the ring of labelled events. Its writer is another process and may do anything to the memory, at
 * any time: what is taken must be the bytes that were there, have the numbers that come next, and lie where it belongs.
 */
#include "fuzz.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "event.h"

enum { MAX_ACTS = 200, MOST = 40 };
enum { TAKES = 64, TRIES = 10000 };

const size_t record_size = 16;

static struct ring *ring;
static uint8_t *shadow; /* what the memory must be */
static uint64_t capacity, taken;

static size_t ring_size(void)
{
    return sizeof(*ring) + capacity * sizeof(struct event);
}

/* How many events there are to take, `most` at most. */
static size_t expected_count(size_t most)
{
    struct event event;
    size_t count = 0;

    for (; count < most; count++) {
        memcpy(&event, shadow + sizeof(*ring) + (taken + count) % capacity * sizeof(event), sizeof(event));
        if (event.sequence != taken + count + 1)
            break;
    }
    return count;
}

static void take_events(size_t most)
{
    size_t count = expected_count(most);
    uint8_t *to = malloc(most * sizeof(struct event)); /* no byte longer */

    CHECK(to || !most);
    CHECK(pvu_ring_take(ring, capacity, &taken, to, most) == count);
    for (size_t i = 0; i < count; i++)
        CHECK(memcmp(to + i * sizeof(struct event),
                     shadow + sizeof(*ring) + (taken - count + i) % capacity * sizeof(struct event),
                     sizeof(struct event)) == 0);
    free(to);
    memcpy(shadow + offsetof(struct ring, tail), &taken, sizeof(taken));
}

static void write_at(uint64_t at, const void *bytes, size_t size)
{
    memcpy((uint8_t *)ring + at, bytes, size);
    memcpy(shadow + at, bytes, size);
}

/* An event as it is there: its number last. */
static void put(uint64_t sequence, input *from)
{
    struct event event = { .sequence = sequence, .pc = take(from, 8) };

    write_at(sizeof(*ring) + (sequence - 1) % capacity * sizeof(event), &event, sizeof(event));
}

/* Another thread changes what is taken. */
static atomic_bool stopping;

static void *scribble(void *none)
{
    for (uint64_t n = 0; !atomic_load_explicit(&stopping, memory_order_relaxed); n++) {
        struct event *event = &ring->events[n % capacity];
        uint64_t next = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED) + 1 + n % 3;

        __atomic_store_n(&event->sequence, next, __ATOMIC_RELEASE);
        __atomic_store_n(&event->sequence, ~next, __ATOMIC_RELEASE);
        __atomic_store_n(&ring->head, n, __ATOMIC_RELAXED);
    }
    return none;
}

static void take_from_under_a_writer(void)
{
    struct event events[MOST];
    pthread_t writer;
    size_t found = 0;

    atomic_store(&stopping, false);
    CHECK(pthread_create(&writer, NULL, scribble, NULL) == 0);
    for (int i = 0; i < TRIES && found < TAKES; i++) {
        uint64_t before = taken;
        size_t count = pvu_ring_take(ring, capacity, &taken, (uint8_t *)events, MOST);

        CHECK(count <= MOST && taken == before + count);
        for (size_t n = 0; n < count; n++)
            CHECK(events[n].sequence == before + n + 1);
        found += count;
    }
    atomic_store(&stopping, true);
    pthread_join(writer, NULL);
    memcpy(shadow, ring, ring_size());
}

static void act(input *from)
{
    uint64_t what = take(from, 1), place, value;

    switch (what % 8) {
    case 0: /* the events that come next, some at once */
        for (uint64_t first = taken + what / 8 % 4; what >= 8; what -= 8)
            put(++first, from);
        break;
    case 1: /* a number that may be any near the next */
        value = taken + take(from, 1) - 32;
        place = take(from, 1) % capacity;
        write_at(sizeof(*ring) + place * sizeof(struct event), &value, sizeof(value));
        break;
    case 2: /* anything anywhere */
        place = take(from, 4) % ring_size();
        value = take(from, 8);
        write_at(place, &value, ring_size() - place < 8 ? ring_size() - place : 8);
        break;
    case 3:
        if (what == 0xfb)
            take_from_under_a_writer();
        break;
    case 4:
        memcpy(&value, shadow + offsetof(struct ring, dropped), sizeof(value));
        CHECK(pvu_ring_dropped(ring) == value);
        break;
    default:
        take_events(take(from, 1) % (MOST + 1));
    }
    CHECK(memcmp(ring, shadow, ring_size()) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input from = { data, size }, first = take_record(&from);
    uint64_t begin = take(&first, 1);

    capacity = (uint64_t)1 << begin % 6;
    taken = begin & 0x80 ? take(&first, 6) : 0;
    ring = calloc(1, ring_size());
    shadow = calloc(1, ring_size());
    CHECK(ring && shadow);
    for (int i = 0; i < MAX_ACTS && from.size; i++) {
        input record = take_record(&from);

        act(&record);
    }
    free(ring);
    free(shadow);
    return 0;
}
