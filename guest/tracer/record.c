/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* From an access to its events: one for each element of the instruction and each page, the barriers before it first. */
#include "tracer.h"

#include <string.h>

void tell_barriers(struct vcpu *vcpu)
{
    while (vcpu->told < vcpu->barriers) {
        const struct site *site = vcpu->barrier[vcpu->told++];
        uint64_t sequence;
        struct event *event = ring_begin(vcpu, &sequence);

        if (!event)
            continue;
        memset(&event->pc, 0, sizeof *event - offsetof(struct event, pc));
        event->pc = site->pc;
        event->instruction = site->word;
        event->vcpu = (uint16_t)vcpu->index;
        event->peripheral = EVENT_NO_PERIPHERAL;
        event->kind = site->meaning.kind;
        event->bar = EVENT_BAR_UNKNOWN;
        event->barrier = site->meaning.barrier;
        event->el = EVENT_NO_EL;
        ring_end(event, sequence);
    }
}

/* An access is about to be recorded: what comes behind it are others. */
void record_barriers(struct vcpu *vcpu)
{
    tell_barriers(vcpu);
    vcpu->barriers = vcpu->told = 0;
}

static void emit_part(struct vcpu *vcpu, const struct page *page, const struct site *site, uint64_t address,
                      const uint8_t *data, uint64_t size, uint8_t kind, uint16_t flags)
{
    uint64_t sequence;

    if (vcpu->barriers)
        record_barriers(vcpu);
    struct event *event = ring_begin(vcpu, &sequence);
    if (!event)
        return;
    memcpy(&event->pc, &page->event.pc, sizeof *event - offsetof(struct event, pc));
    event->pc = site->pc;
    event->offset += address - page->start;
    event->size = (uint32_t)size;
    event->instruction = site->word;
    event->kind = kind;
    event->element = vcpu->elements++;
    event->flags |= flags;
    if (data)
        memcpy(event->data, data, flags & EVENT_REPEATED ? 1 : size);
    ring_end(event, sequence);
}

/* One element, which may lie in several pages, each with a type of its own, or none that is recorded. */
static void element(struct vcpu *vcpu, const struct site *site, uint64_t address, const uint8_t *data, uint64_t size,
                    uint8_t kind, uint16_t flags, const qemu_plugin_meminfo_t *info)
{
    for (uint64_t done = 0, part; done < size; done += part) {
        uint64_t at = address + done;
        struct page *page = &vcpu->pages[at / PAGE % PAGES];

        if (!page_holds(vcpu, page, at, 1))
            page = page_find(vcpu, at, done ? NULL : info);
        part = page ? page->length - (at - page->start) : PAGE - at % PAGE;
        if (part > size - done)
            part = size - done;
        const uint8_t *rest = data && !(flags & EVENT_REPEATED) ? data + done : data;
        if (page && page->window)
            emit_part(vcpu, page, site, at, rest, part, kind, (uint16_t)(flags | (part < size ? EVENT_PART : 0)));
    }
}

/* An access of `size` bytes, 16 at most unless `data` is one byte that is repeated, or NULL: not known. */
void record(struct vcpu *vcpu, const struct site *site, uint64_t address, const uint8_t *data, uint64_t size,
            uint8_t kind, uint16_t flags, const qemu_plugin_meminfo_t *info)
{
    uint64_t each = site->meaning.element && site->meaning.element < size ? site->meaning.element : size;

    for (uint64_t done = 0; done < size; done += each)
        element(vcpu, site, address + done, data ? data + done : NULL, each, kind, flags, done ? NULL : info);
}
