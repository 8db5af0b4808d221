/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/*
 * Where BARs are, as the guest programs them through configuration space: it sizes a BAR by writing ones and reading
 * back, and places it by writing an address (PCI Express Base Specification 5.0, 7.5.1.2.1).
 */
#include "tracer.h"

#include <pthread.h>

#define FUNCTIONS 256
#define BARS 7 /* the last is the expansion ROM's */
#define COMMAND 0x04
#define COMMAND_MEMORY 2u
#define ROM_ENABLE 1u

struct function {
    uint16_t address; /* bus, device, function */
    uint16_t command;
    uint32_t value[BARS], mask[BARS]; /* as programmed; as read after writing ones, 0: not yet */
    bool sizing[BARS];
};

static struct function functions[FUNCTIONS];
static unsigned function_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct function *function_at(uint16_t address)
{
    for (unsigned i = 0; i < function_count; i++)
        if (functions[i].address == address)
            return &functions[i];
    if (function_count == FUNCTIONS)
        return NULL;
    functions[function_count].address = address;
    return &functions[function_count++];
}

static int bar_at(uint64_t offset)
{
    if (offset >= 0x10 && offset < 0x28 && offset % 4 == 0)
        return (int)(offset - 0x10) / 4;
    return offset == 0x30 ? BARS - 1 : -1;
}

static bool bar_access(struct function *function, unsigned bar, uint32_t value, bool write)
{
    uint32_t ones = bar == BARS - 1 ? 0xfffff800u : 0xfffffff0u;

    if (write && (value & ones) == ones) {
        function->sizing[bar] = true;
        return true;
    }
    if (!write && function->sizing[bar]) {
        function->mask[bar] = value;
        return true;
    }
    bool same = function->value[bar] == value && !function->sizing[bar];
    function->value[bar] = value;
    function->sizing[bar] = false;
    return !same;
}

/* An access of 1 to 8 bytes to configuration space, at an offset in the ECAM; of the value they count. Reads tell what writes made before tracing began. */
void pci_access(uint64_t offset, unsigned size, uint64_t value, bool write)
{
    uint64_t at = offset % PAGE;
    int bar = size == 4 ? bar_at(at) : -1;
    bool changed = false;

    if (bar < 0 && at != COMMAND)
        return;
    pthread_mutex_lock(&lock);
    struct function *function = function_at((uint16_t)(offset / PAGE));
    if (function && bar >= 0) {
        changed = bar_access(function, (unsigned)bar, (uint32_t)value, write);
    } else if (function && size >= 2) {
        changed = function->command != (uint16_t)value;
        function->command = (uint16_t)value;
    }
    pthread_mutex_unlock(&lock);
    if (changed)
        drop_all();
}

struct range {
    uint64_t base, size;
    uint8_t bar;
    bool wide; /* it takes the next register, too */
};

/* The range of a BAR; size 0: it is none, or not known yet. */
static struct range range_of(const struct function *function, unsigned bar)
{
    struct range range = { .bar = (uint8_t)bar };
    uint32_t mask = function->mask[bar], low = bar == BARS - 1 ? 0x7ffu : 0xfu;

    if (!mask || function->sizing[bar] || (bar < BARS - 1 && mask & 1))
        return range;
    if (bar == BARS - 1) {
        if (function->value[bar] & ROM_ENABLE)
            range.size = ~(0xffffffff00000000ull | (mask & ~low)) + 1;
        range.base = function->value[bar] & ~low;
        return range;
    }
    range.wide = (mask >> 1 & 3) == 2 && bar < BARS - 2;
    uint64_t high = range.wide && function->mask[bar + 1] ? function->mask[bar + 1] : 0xffffffffu;
    range.base = function->value[bar] & ~low;
    if (range.wide) {
        if (function->sizing[bar + 1])
            return range;
        range.base |= (uint64_t)function->value[bar + 1] << 32;
    }
    range.size = ~(high << 32 | (mask & ~low)) + 1;
    return range;
}

static uint64_t resolve(const struct function *function, uint64_t physical, struct place *place, uint64_t *rest)
{
    for (unsigned bar = 0; bar < BARS; bar++) {
        struct range range = range_of(function, bar);
        uint64_t in = physical - range.base;

        if (range.size && in < range.size) {
            *place = (struct place){ .offset = in, .bar = range.bar, .peripheral = function->address };
            return range.size - in;
        }
        if (range.size && range.base - physical < *rest)
            *rest = range.base - physical;
        bar += range.wide;
    }
    return 0;
}

/* Where a physical address leads, and for how many bytes from there on. */
uint64_t pci_resolve(uint64_t physical, struct place *place)
{
    uint64_t rest = PAGE, found = 0;

    *place = (struct place){ .offset = physical, .bar = EVENT_BAR_UNKNOWN, .peripheral = EVENT_NO_PERIPHERAL };
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < function_count && !found; i++)
        if (functions[i].command & COMMAND_MEMORY)
            found = resolve(&functions[i], physical, place, &rest);
    pthread_mutex_unlock(&lock);
    return found ? found : rest;
}
