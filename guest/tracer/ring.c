/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* The ring's writer: vCPUs take numbers, and write what has one. Without room an event is counted and left out. */
#include "tracer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct ring *ring;

static bool usable(const struct ring *found, uint64_t size)
{
    uint64_t capacity = found->capacity;

    return found->magic == RING_MAGIC && found->version == RING_VERSION && found->event_size == sizeof(struct event) &&
           capacity && (capacity & (capacity - 1)) == 0 &&
           capacity == (size - sizeof(struct ring)) / sizeof(struct event);
}

bool ring_open(const char *path)
{
    struct stat status;
    struct ring *found = MAP_FAILED;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size > (off_t)sizeof(struct ring))
        /* Populated: a page fault costs as much as sixty events. */
        found = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (fd >= 0)
        close(fd);
    if (found == MAP_FAILED || !usable(found, (uint64_t)status.st_size)) {
        fprintf(stderr, "pyvfio-user tracer: ring must be a file that was laid out for version %u, not %s\n",
                RING_VERSION, path);
        return false;
    }
    ring = found;
    return true;
}

/* A number that may be written, or 0: there is no room. */
static uint64_t number(struct vcpu *vcpu)
{
    uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);

    do {
        if (head >= vcpu->limit) {
            vcpu->limit = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) + ring->capacity;
            if (head >= vcpu->limit)
                return 0;
        }
        if (vcpu_count == 1) {
            __atomic_store_n(&ring->head, head + 1, __ATOMIC_RELAXED);
            break;
        }
    } while (!__atomic_compare_exchange_n(&ring->head, &head, head + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return head + 1;
}

static struct event *slot(struct vcpu *vcpu, uint64_t *sequence)
{
    *sequence = number(vcpu);
    if (!*sequence)
        return NULL;
    __builtin_prefetch(&ring->events[(*sequence + AHEAD) & (ring->capacity - 1)], 1);
    return &ring->events[(*sequence - 1) & (ring->capacity - 1)];
}

static void say_lost(struct vcpu *vcpu)
{
    uint64_t sequence;
    struct event *event = slot(vcpu, &sequence);
    uint32_t count = vcpu->lost < UINT32_MAX ? (uint32_t)vcpu->lost : UINT32_MAX;

    if (!event)
        return;
    memset(&event->pc, 0, sizeof *event - offsetof(struct event, pc));
    event->kind = EVENT_LOST;
    event->size = count;
    event->vcpu = (uint16_t)vcpu->index;
    event->bar = EVENT_BAR_UNKNOWN;
    event->peripheral = EVENT_NO_PERIPHERAL;
    event->el = EVENT_NO_EL;
    ring_end(event, sequence);
    vcpu->lost -= count;
}

/* An event is left out. */
void ring_lose(struct vcpu *vcpu)
{
    vcpu->lost++;
    __atomic_fetch_add(&ring->dropped, 1, __ATOMIC_RELAXED);
}

/* When another vCPU was quicker, or it is not known that there is room. */
struct event *ring_begin_slowly(struct vcpu *vcpu, uint64_t *sequence)
{
    struct event *event = NULL;

    if (vcpu->lost)
        say_lost(vcpu);
    if (!vcpu->lost)
        event = slot(vcpu, sequence);
    if (!event)
        ring_lose(vcpu);
    return event;
}
