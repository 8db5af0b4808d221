/* What fuzzers read their input by. */
#include "fuzz.h"

uint64_t take(input *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes && from->size; i++, from->size--)
        value |= (uint64_t)*from->data++ << 8 * i;
    return value;
}
