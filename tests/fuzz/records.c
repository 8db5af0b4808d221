/* Inputs that are lists of records, and their mutations: records come, go and change places, or one changes inside. */
#include "fuzz.h"

#include <string.h>

input take_record(input *from)
{
    input record = { from->data, from->size < record_size ? from->size : record_size };

    from->data += record.size;
    from->size -= record.size;
    return record;
}

/* Mutations */

static uint64_t state;

static size_t random_number(size_t below)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return (size_t)((state >> 33) % below);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size_t count = size / record_size, most = max_size / record_size, at, from, length;

    state = seed;
    if (!count || !most || random_number(16) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    if (count > most)
        count = most;
    at = random_number(count) * record_size;
    from = random_number(count) * record_size;
    switch (random_number(8)) {
    case 0: /* goes, with some that follow */
        length = record_size * (1 + random_number(count - at / record_size < 4 ? count - at / record_size : 4));
        memmove(data + at, data + at + length, count * record_size - at - length);
        count -= length / record_size;
        break;
    case 1: { /* two change places */
        uint8_t other[64];

        memcpy(other, data + at, record_size);
        memcpy(data + at, data + from, record_size);
        memcpy(data + from, other, record_size);
        break;
    }
    case 2: /* one is repeated in another place, and perhaps changed */
    case 3:
        if (count == most)
            break;
        memmove(data + at + record_size, data + at, count * record_size - at);
        count++;
        memmove(data + at, data + (from >= at ? from + record_size : from), record_size);
        if (random_number(2))
            LLVMFuzzerMutate(data + at, record_size, record_size);
        break;
    default:
        LLVMFuzzerMutate(data + at, record_size, record_size);
    }
    return count * record_size;
}

/* The beginning of one, the end of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_size, const uint8_t *other, size_t other_size,
                                 uint8_t *out, size_t max_size, unsigned seed)
{
    size_t keep, skip, rest;

    state = seed;
    keep = random_number(one_size / record_size + 1) * record_size;
    skip = random_number(other_size / record_size + 1) * record_size;
    keep = keep < max_size ? keep : max_size;
    rest = other_size - skip < max_size - keep ? other_size - skip : max_size - keep;
    memcpy(out, one, keep);
    memcpy(out + keep, other + skip, rest);
    return keep + rest;
}
