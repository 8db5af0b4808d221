/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* What QEMU calls after each load and store: most are of ordinary memory, and must cost little. */
#include "tracer.h"

#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)

/* Numbers of elements go on when this is another access of one execution of an instruction, as of ST1. */
static void continues(struct vcpu *vcpu, const struct site *site, unsigned size)
{
    if (vcpu->open != site) {
        vcpu->elements = 0;
        vcpu->done = 0;
    }
    vcpu->done = (uint8_t)(vcpu->done + size);
    vcpu->open = vcpu->done < site->meaning.total ? site : NULL;
}

/* The bytes, and zeros behind them. */
static unsigned value_of(qemu_plugin_meminfo_t info, uint64_t data[2])
{
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    unsigned size = 1u << value.type;

    data[0] = size < 8 ? value.data.u64 & ((1ull << 8 * size) - 1) : value.data.u64;
    data[1] = size < 16 ? 0 : value.data.u128.high;
    return size;
}

__attribute__((noinline)) static void accessed(struct vcpu *vcpu, qemu_plugin_meminfo_t info, uint64_t address, const struct site *site)
{
    uint64_t data[2];
    unsigned size = value_of(info, data);
    uint8_t kind = site->meaning.kind;

    if (vcpu->hidden.pending)
        hidden_settle(vcpu);
    if (!kind)
        kind = qemu_plugin_mem_is_store(info) ? EVENT_STORE : EVENT_LOAD;
    continues(vcpu, site, size);
    const uint8_t *known = site->meaning.flags & EVENT_NO_DATA ? NULL : (const uint8_t *)data;
    record(vcpu, site, address, known, size, kind, site->meaning.flags, &info);

    const struct page *page = &vcpu->pages[address / PAGE % PAGES];
    if (page_holds(vcpu, page, address, 1) && page->config)
        pci_access((uint64_t)page->event.peripheral * PAGE + address % PAGE, size, data[0], kind != EVENT_LOAD);
}

_Static_assert(offsetof(struct event, kind) == offsetof(struct event, vcpu) + 4 &&
                   offsetof(struct event, flags) == offsetof(struct event, vcpu) + 8, "common");

/* One event of a simple instruction. Its kind and flags are put into what all events of the page have in common. */
static void record_one(struct vcpu *vcpu, qemu_plugin_meminfo_t info, uint64_t address, const struct page *page,
                       const struct site *site)
{
    uint64_t sequence;
    struct event *event = ring_begin(vcpu, &sequence);

    if (!event)
        return;
    event->pc = site->pc;
    event->offset = page->event.offset + (address - page->start);
    event->instruction = site->word;
    uint64_t common[2], data[2];
    memcpy(common, &page->event.vcpu, sizeof common);
    common[0] |= (uint64_t)site->meaning.kind << 32;
    common[1] |= site->meaning.flags;
    memcpy(&event->vcpu, common, sizeof common);
    event->size = value_of(info, data);
    memcpy(event->data, data, sizeof data);
    ring_end(event, sequence);
}

/* What is rare is apart, so that the rest needs few registers. */
__attribute__((noinline)) static void on_other_access(struct vcpu *vcpu, qemu_plugin_meminfo_t info, uint64_t address,
                                                      const struct site *site)
{
    struct page *page = &vcpu->pages[address / PAGE % PAGES];

    if (!page_holds(vcpu, page, address, 1))
        page = page_find(vcpu, address, &info);
    if (!page)
        return;
    /* What begins in ordinary memory may end in a window. */
    if (page->window || !page_holds(vcpu, page, address, 1ull << qemu_plugin_mem_size_shift(info)))
        accessed(vcpu, info, address, site);
}

void on_access(unsigned index, qemu_plugin_meminfo_t info, uint64_t address, void *userdata)
{
    struct vcpu *vcpu = &vcpus[index];
    struct page *page = &vcpu->pages[address / PAGE % PAGES];
    const struct site *site = userdata;

    if (likely(page_holds(vcpu, page, address, 16))) {
        if (!page->window)
            return;
        if (likely(site->simple && !page->config && !vcpu->hidden.pending && !vcpu->open)) {
            if (vcpu->barriers)
                record_barriers(vcpu);
            record_one(vcpu, info, address, page, site);
            return;
        }
    }
    on_other_access(vcpu, info, address, site);
}
