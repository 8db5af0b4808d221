/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/*
 * The accesses that QEMU does not report: DC ZVA, tags, MOPS. They are worked out from the registers before the
 * instruction, and recorded when the next thing happens: only then is it known that it did not fault.
 */
#include "tracer.h"

#define BLOCK 64 /* DCZID_EL0.BS of every CPU of QEMU's that has the tracer's registers */
#define TAG_GRANULE 16
#define PRIMED 64 /* pages that are looked up before, for an exception changes what they mean */

static bool copies(uint32_t word)
{
    return (word >> 22 & 3) != 3;
}

/* The last of the three instructions of a SET or CPY: unless it faults, nothing is left after it. */
static bool ends(uint32_t word)
{
    return (copies(word) ? word >> 22 & 3 : word >> 14 & 3) == 2;
}

/* What is left of a SET* or CPY*: its size register counts up to 0 from below, or down from above. */
static struct extent left(uint64_t address, uint64_t size)
{
    if ((int64_t)size < 0)
        return (struct extent){ address + size, address };
    return (struct extent){ address, address + size };
}

static struct extent tag_extent(struct vcpu *vcpu, uint32_t word)
{
    unsigned opcode = word >> 22 & 3, mode = word >> 10 & 3;
    uint64_t address = read_x(vcpu, word >> 5 & 31), size = TAG_GRANULE;

    if (mode == 0 && opcode != 1) { /* STZGM, STGM, LDGM: the block that the address is in */
        size = opcode == 0 ? BLOCK : 256;
        address &= ~(size - 1);
    } else {
        if (mode != 1) /* not post-indexed: a signed offset of so many granules */
            address += (uint64_t)((int64_t)((uint64_t)word << 43) >> 55) * TAG_GRANULE;
        address &= ~(TAG_GRANULE - 1ull);
        if (mode && opcode >= 2)
            size = 2 * TAG_GRANULE;
    }
    return (struct extent){ address, address + size };
}

/* Looks up what is touched, while the registers and tables are those of the access. Is any of it recorded? */
static bool prime(struct vcpu *vcpu, struct extent extent)
{
    uint64_t low = extent.low & ~(PAGE - 1);
    bool found = false;

    for (unsigned i = 0; i < PRIMED && low + i * PAGE < extent.high; i++) {
        uint64_t address = i ? low + i * PAGE : extent.low;
        struct page *page = &vcpu->pages[address / PAGE % PAGES];
        if (!page_holds(vcpu, page, address, 1))
            page = page_find(vcpu, address, NULL);
        found |= page && page->window;
    }
    return found;
}

void hidden_begin(struct vcpu *vcpu, const struct site *site)
{
    struct hidden hidden = { .pending = true, .site = *site };
    uint32_t word = site->word;

    hidden_settle(vcpu);
    if (site->meaning.action == DO_ZERO) {
        uint64_t address = (word & 31) == 31 ? 0 : read_x(vcpu, word & 31);
        hidden.to.low = address & ~(BLOCK - 1ull);
        hidden.to.high = hidden.to.low + BLOCK;
    } else if (site->meaning.action == DO_TAG) {
        hidden.to = tag_extent(vcpu, word);
    } else {
        uint64_t size = read_x(vcpu, word >> 5 & 31);
        hidden.to = left(read_x(vcpu, word & 31), size);
        if (copies(word))
            hidden.from = left(read_x(vcpu, word >> 16 & 31), size);
        else if ((word >> 16 & 31) != 31)
            hidden.fill = (uint8_t)read_x(vcpu, word >> 16 & 31);
    }
    bool any = prime(vcpu, hidden.to);
    if (hidden.from.low != hidden.from.high)
        any |= prime(vcpu, hidden.from);
    if (any)
        vcpu->hidden = hidden;
}

static void emit_extent(struct vcpu *vcpu, const struct site *site, struct extent extent, uint8_t kind,
                        const uint8_t *fill)
{
    uint16_t flags = site->meaning.flags | (fill ? EVENT_REPEATED : EVENT_NO_DATA);

    record(vcpu, site, extent.low, fill, extent.high - extent.low, kind, flags, NULL);
}

static struct extent difference(struct extent before, struct extent after)
{
    if (after.low == after.high)
        return before;
    if (after.high == before.high)
        return (struct extent){ before.low, after.low };
    return (struct extent){ after.high, before.high };
}

/* What was done of it by now: all, or what the registers do not have any more. */
static void emit_mops(struct vcpu *vcpu, const struct hidden *hidden, bool all)
{
    uint32_t word = hidden->site.word;
    uint64_t size = all ? 0 : read_x(vcpu, word >> 5 & 31);
    struct extent to = difference(hidden->to, left(size ? read_x(vcpu, word & 31) : 0, size));

    if (copies(word)) {
        struct extent from = difference(hidden->from, left(size ? read_x(vcpu, word >> 16 & 31) : 0, size));
        emit_extent(vcpu, &hidden->site, from, EVENT_LOAD, NULL);
        emit_extent(vcpu, &hidden->site, to, EVENT_STORE, NULL);
    } else {
        emit_extent(vcpu, &hidden->site, to, EVENT_STORE, &hidden->fill);
    }
}

static void settle(struct vcpu *vcpu, bool faulted)
{
    static const uint8_t zero;
    const struct hidden *hidden = &vcpu->hidden;
    uint8_t action = hidden->site.meaning.action;

    if (!hidden->pending)
        return;
    vcpu->hidden.pending = false;
    vcpu->open = NULL;
    vcpu->elements = 0;
    if (action == DO_MOPS)
        emit_mops(vcpu, hidden, ends(hidden->site.word) && !faulted);
    else if (!faulted)
        emit_extent(vcpu, &hidden->site, hidden->to, hidden->site.meaning.kind, action == DO_ZERO ? &zero : NULL);
}

/* Another instruction is executed, or has been. */
void hidden_settle(struct vcpu *vcpu)
{
    settle(vcpu, false);
}

/*
 * An exception from the instruction at `from`, or an interrupt before it: which only MOPS can have begun already. Else it
 * is about to be executed once more, as in a loop.
 */
void hidden_interrupted(struct vcpu *vcpu, uint64_t from, bool exception)
{
    bool can_be_half = exception || vcpu->hidden.site.meaning.action == DO_MOPS;

    settle(vcpu, can_be_half && vcpu->hidden.site.pc == from);
}

/* The end, at which no register can be read: of what may have been done in part nobody can say how much. */
void hidden_give_up(struct vcpu *vcpu)
{
    if (vcpu->hidden.pending && vcpu->hidden.site.meaning.action == DO_MOPS) {
        vcpu->hidden.pending = false;
        ring_lose(vcpu);
    }
    settle(vcpu, false);
}
