/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* What each vCPU remembers of the pages that it accessed, and for how long. */
#include "tracer.h"

uint64_t all_drops;

/*
 * Counts up, and so does a vCPU's own counter: the sum says whether a page was looked up before the last of either.
 * One vCPU's TLBI reaches the others before its DSB ends, which drops again.
 */
void drop_all(void)
{
    __atomic_fetch_add(&all_drops, 1, __ATOMIC_SEQ_CST);
}

static const struct window *window_at(uint64_t physical)
{
    for (unsigned i = 0; i < window_count; i++)
        if (physical - windows[i].base < windows[i].size)
            return &windows[i];
    return NULL;
}

/* Says what all events of a page have in common. */
static void describe(struct vcpu *vcpu, struct page *page, const struct window *window, uint64_t address,
                     uint64_t physical)
{
    struct label label = label_of(vcpu, address, physical);
    uint64_t first = physical & ~(PAGE - 1);
    struct place place = { .offset = 0, .bar = EVENT_BAR_CONFIG };

    if (window->config) {
        page->config = true;
        place.peripheral = (uint16_t)((first - window->base) / PAGE);
    } else if (pci_resolve(first, &place) < PAGE) {
        /* The page holds several small BARs, or the end of one: what is known begins with this address. */
        uint64_t rest = pci_resolve(physical, &place);
        page->start = address;
        page->length = PAGE - address % PAGE < rest ? PAGE - address % PAGE : rest;
    }
    page->event = (struct event){
        .offset = place.offset,
        .vcpu = (uint16_t)vcpu->index,
        .peripheral = place.peripheral,
        .bar = place.bar,
        .flags = label.fwb ? EVENT_FWB : 0,
        .stage1 = label.stage1,
        .stage2 = label.stage2,
        .type = label.type,
        .known = label.known,
        .el = label.el,
    };
}

/* The page of an address that is accessed, or NULL: it is mapped to nothing. Its bytes end with the page or sooner. */
struct page *page_find(struct vcpu *vcpu, uint64_t address, const qemu_plugin_meminfo_t *info)
{
    struct page *page = &vcpu->pages[address / PAGE % PAGES];
    uint64_t now = stamp(vcpu), physical;

    const struct qemu_plugin_hwaddr *hardware = info ? qemu_plugin_get_hwaddr(*info, address) : NULL;

    if (hardware)
        physical = qemu_plugin_hwaddr_phys_addr(hardware);
    else if (!qemu_plugin_translate_vaddr(address, &physical))
        return NULL;
    const struct window *window = window_at(physical);
    *page = (struct page){ .start = address & ~(PAGE - 1), .length = PAGE, .stamp = now, .window = window != NULL };
    if (window)
        describe(vcpu, page, window, address, physical);
    return page;
}
