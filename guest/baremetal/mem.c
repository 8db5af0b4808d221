/* The two functions that a freestanding compiler may call for what looks like plain C. */
#include <stddef.h>

void *memset(void *to, int value, size_t length);
void *memcpy(void *restrict to, const void *restrict from, size_t length);

void *memset(void *to, int value, size_t length)
{
    for (char *c = to; length--; c++)
        *c = (char)value;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t length)
{
    const char *f = from;

    for (char *t = to; length--; t++, f++)
        *t = *f;
    return to;
}
