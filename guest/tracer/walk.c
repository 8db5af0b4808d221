/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/*
 * The type of an address by the guest's own translation tables: VMSAv8-64 stage 1 and stage 2 (Arm ARM DDI 0487, D8).
 * Whatever is not understood, or does not lead to the address that QEMU uses, is unknown.
 */
#include "tracer.h"

#include <string.h>

#define SCTLR_M (1ull << 0)
#define SCTLR_C (1ull << 2)
#define SCTLR_EE (1ull << 25)
#define TCR2_AIE (1ull << 4)
#define TCR2_D128 (1ull << 5)
#define HCR_VM (1ull << 0)
#define HCR_DC (1ull << 12)
#define HCR_CD (1ull << 32)
#define HCR_E2H (1ull << 34)
#define HCR_FWB (1ull << 46)
#define HCR_DCT (1ull << 57)
#define NON_CACHEABLE 0x44
#define WRITE_BACK 0xff
#define TAGGED 0xf0

static const char *const names[SYSTEM_REGISTERS] = {
    "cpsr",      "SCTLR_EL1", "TCR_EL1",   "TCR2_EL1",  "TTBR0_EL1", "TTBR1_EL1", "MAIR_EL1", "SCTLR_EL2",
    "TCR_EL2",   "TCR2_EL2",  "TTBR0_EL2", "TTBR1_EL2", "MAIR_EL2",  "HCR_EL2",   "VTCR_EL2", "VTTBR_EL2",
    "SPSR_EL1",  "SPSR_EL2",  "VBAR_EL2",
};

/* A table to walk, of either stage. */
struct tables {
    uint64_t base;
    unsigned bits;    /* of an input address */
    unsigned granule; /* log2 */
    int level;        /* to start with */
    bool lpa2;        /* 52-bit addresses with a granule of 4 or 16 KiB */
};

struct found {
    uint64_t address, descriptor;
    bool mapped;
};

/* As the calling vCPU, when it is initialised. */
void vcpu_registers(struct vcpu *vcpu)
{
    GArray *all = qemu_plugin_get_registers();

    vcpu->buffer = g_byte_array_new();
    for (unsigned i = 0; i < all->len; i++) {
        const qemu_plugin_reg_descriptor *one = &all->data[i];
        for (unsigned r = 0; r < SYSTEM_REGISTERS; r++)
            if (strcmp(one->name, names[r]) == 0)
                vcpu->system[r] = one->handle;
        if (one->name[0] == 'x' && one->name[1] >= '0' && one->name[1] <= '9') {
            unsigned number = (unsigned)(one->name[1] - '0');
            if (one->name[2])
                number = number * 10 + (unsigned)(one->name[2] - '0');
            if (number < 31)
                vcpu->x[number] = one->handle;
        } else if (strcmp(one->name, "sp") == 0) {
            vcpu->x[31] = one->handle;
        }
    }
    g_array_free(all, true);
    vcpu->aarch32 = vcpu->el1_aarch32 = !vcpu->x[0]; /* a CPU of Armv7 */
}

static uint64_t read_handle(struct vcpu *vcpu, struct qemu_plugin_register *handle)
{
    uint64_t value = 0;

    g_byte_array_set_size(vcpu->buffer, 0);
    if (handle && qemu_plugin_read_register(handle, vcpu->buffer) && vcpu->buffer->len <= sizeof value)
        memcpy(&value, vcpu->buffer->data, vcpu->buffer->len);
    return value;
}

/* A general register, or SP: 31. */
uint64_t read_x(struct vcpu *vcpu, unsigned number)
{
    return read_handle(vcpu, vcpu->x[number]);
}

/* 0 for a register that the CPU does not have. */
uint64_t read_system(struct vcpu *vcpu, enum system_register which)
{
    return read_handle(vcpu, vcpu->system[which]);
}

static bool fetch(struct vcpu *vcpu, uint64_t physical, uint64_t *descriptor)
{
    if (qemu_plugin_read_memory_hwaddr(physical, vcpu->buffer, 8) != 0 || vcpu->buffer->len != 8)
        return false;
    memcpy(descriptor, vcpu->buffer->data, 8);
    return true;
}

static uint64_t output(const struct tables *tables, uint64_t descriptor)
{
    uint64_t address = descriptor & 0x0000fffffffff000ull;

    if (tables->lpa2)
        return (descriptor & 0x0003fffffffff000ull) | (descriptor >> 8 & 3) << 50;
    if (tables->granule == 16)
        return (address & ~0xf000ull) | (descriptor >> 12 & 15) << 48;
    return address;
}

static struct found walk_stage2(struct vcpu *vcpu, uint64_t address);

/* Walks tables that lie at physical addresses, or at those that stage 2 translates. */
static struct found walk(struct vcpu *vcpu, const struct tables *tables, uint64_t input, bool through_stage2)
{
    struct found found = { .mapped = false };
    unsigned stride = tables->granule - 3;
    uint64_t table = tables->base;

    for (int level = tables->level; level <= 3; level++) {
        unsigned shift = tables->granule + (unsigned)(3 - level) * stride;
        unsigned width = level == tables->level ? tables->bits - shift : stride;
        uint64_t at = table + ((input >> shift & ((1ull << width) - 1)) << 3);
        uint64_t below = (1ull << shift) - 1;

        if (through_stage2) {
            struct found second = walk_stage2(vcpu, at);
            if (!second.mapped)
                return found;
            at = second.address;
        }
        if (!fetch(vcpu, at, &found.descriptor) || !(found.descriptor & 1))
            return found;
        bool leaf = level == 3 || !(found.descriptor & 2);
        if (leaf) {
            found.mapped = level != 3 || found.descriptor & 2;
            found.address = (output(tables, found.descriptor) & ~below) | (input & below);
            return found;
        }
        table = output(tables, found.descriptor) & ~((1ull << tables->granule) - 1);
    }
    return found;
}

/* The base of the first table: aligned to its size, at least 64 bytes; bits [5:2] are address bits [51:48]. */
static bool start_of(struct tables *tables, uint64_t ttbr)
{
    unsigned shift = tables->granule + (unsigned)(3 - tables->level) * (tables->granule - 3);

    if (tables->level > 3 || tables->bits <= shift || tables->bits > 52)
        return false;
    bool wide = tables->lpa2 || (tables->granule == 16 && tables->bits > 48);
    unsigned low = tables->bits - shift + 3 < 6 ? 6 : tables->bits - shift + 3;
    tables->base = (ttbr & 0x0000ffffffffffc0ull) >> low << low;
    if (wide)
        tables->base |= (ttbr >> 2 & 15) << 48;
    return true;
}

static struct found walk_stage2(struct vcpu *vcpu, uint64_t address)
{
    static const uint8_t granules[4] = { 12, 16, 14, 0 };
    static const int8_t start4[4] = { 2, 1, 0, 3 }, start16[4] = { 3, 2, 1, 0 }, start64[4] = { 3, 2, 1, 4 };
    uint64_t vtcr = read_system(vcpu, VTCR_EL2);
    unsigned sl0 = vtcr >> 6 & 3;
    struct tables tables = { .granule = granules[vtcr >> 14 & 3], .bits = 64 - (unsigned)(vtcr & 63) };

    tables.lpa2 = vtcr >> 32 & 1 && tables.granule != 16;
    if (tables.granule == 12)
        tables.level = vtcr >> 33 & 1 && sl0 == 0 ? -1 : start4[sl0];
    else
        tables.level = tables.granule == 14 ? start16[sl0] : start64[sl0];
    if (!tables.granule || !start_of(&tables, read_system(vcpu, VTTBR_EL2)) || address >> tables.bits)
        return (struct found){ .mapped = false };
    return walk(vcpu, &tables, address, false);
}

/* The tables of stage 1 for an address; two_ranges: TTBR1 has the upper ones. */
static bool tables_of(uint64_t tcr, uint64_t ttbr0, uint64_t ttbr1, uint64_t address, bool two_ranges,
                      struct tables *tables)
{
    static const uint8_t granules0[4] = { 12, 16, 14, 0 }, granules1[4] = { 0, 14, 12, 16 };
    bool upper = two_ranges && address >> 55 & 1;

    tables->bits = 64 - (unsigned)((upper ? tcr >> 16 : tcr) & 63);
    tables->granule = upper ? granules1[tcr >> 30 & 3] : granules0[tcr >> 14 & 3];
    if (!tables->granule || tables->bits <= tables->granule)
        return false;
    tables->lpa2 = (two_ranges ? tcr >> 59 : tcr >> 32) & 1 && tables->granule != 16;
    unsigned stride = tables->granule - 3u;
    tables->level = 4 - (int)((tables->bits - tables->granule + stride - 1) / stride);
    return start_of(tables, upper ? ttbr1 : ttbr0);
}

struct regime {
    uint64_t sctlr, tcr, tcr2, ttbr0, ttbr1, mair;
    bool two_ranges, stage2, off, write_back;
};

static struct regime regime_of(struct vcpu *vcpu, unsigned el, uint64_t hcr)
{
    bool host = hcr & HCR_E2H && hcr & HCR_TGE;

    if (el == 2 || (el == 0 && host))
        return (struct regime){
            .sctlr = read_system(vcpu, SCTLR_EL2),
            .tcr = read_system(vcpu, TCR_EL2),
            .tcr2 = read_system(vcpu, TCR2_EL2),
            .ttbr0 = read_system(vcpu, TTBR0_EL2),
            .ttbr1 = read_system(vcpu, TTBR1_EL2),
            .mair = read_system(vcpu, MAIR_EL2),
            .two_ranges = (hcr & HCR_E2H) != 0,
        };
    return (struct regime){
        .sctlr = read_system(vcpu, SCTLR_EL1),
        .tcr = read_system(vcpu, TCR_EL1),
        .tcr2 = read_system(vcpu, TCR2_EL1),
        .ttbr0 = read_system(vcpu, TTBR0_EL1),
        .ttbr1 = read_system(vcpu, TTBR1_EL1),
        .mair = read_system(vcpu, MAIR_EL1),
        .two_ranges = true,
        .stage2 = (hcr & (HCR_VM | HCR_DC)) != 0 && !(hcr & HCR_TGE),
        .off = (hcr & (HCR_DC | HCR_TGE)) != 0,
        .write_back = (hcr & HCR_DC) != 0 && !(hcr & HCR_TGE),
    };
}

/* Stage 1: its byte, and the address after it. False: unknown. */
static bool stage1(struct vcpu *vcpu, const struct regime *regime, uint64_t hcr, uint64_t address, uint8_t *type,
                   uint64_t *intermediate)
{
    struct tables tables = { .base = 0 };

    if (regime->off || !(regime->sctlr & SCTLR_M)) {
        *type = regime->write_back ? (hcr & HCR_DCT ? TAGGED : WRITE_BACK) : 0;
        *intermediate = address & 0x000fffffffffffffull;
        return true;
    }
    if (regime->sctlr & SCTLR_EE || regime->tcr2 & (TCR2_AIE | TCR2_D128))
        return false;
    if (!tables_of(regime->tcr, regime->ttbr0, regime->ttbr1, address, regime->two_ranges, &tables))
        return false;
    struct found found = walk(vcpu, &tables, address, regime->stage2);
    if (!found.mapped)
        return false;
    *type = (uint8_t)(regime->mair >> 8 * (found.descriptor >> 2 & 7));
    if (!(regime->sctlr & SCTLR_C) && *type >= 0x10)
        *type = NON_CACHEABLE;
    *intermediate = found.address;
    return true;
}

struct label label_of(struct vcpu *vcpu, uint64_t address, uint64_t physical)
{
    unsigned el = vcpu->aarch32 ? 0 : read_system(vcpu, CPSR) >> 2 & 3;
    uint64_t hcr = read_system(vcpu, HCR_EL2), intermediate;
    struct regime regime = regime_of(vcpu, el, hcr);
    struct label label = { .el = (uint8_t)el, .stage2 = EVENT_NO_STAGE2 };
    uint8_t type;

    if (vcpu->el1_aarch32) { /* its tables are of another form */
        label.el = EVENT_NO_EL;
        return label;
    }
    if (el == 3 || !stage1(vcpu, &regime, hcr, address, &type, &intermediate))
        return label;
    if (regime.stage2) {
        struct found second = walk_stage2(vcpu, intermediate);
        if (!second.mapped)
            return label;
        label.stage2 = second.descriptor >> 2 & 15;
        label.fwb = (hcr & HCR_FWB) != 0;
        intermediate = second.address;
    }
    if ((intermediate ^ physical) / PAGE)
        return label;
    label.stage1 = type;
    label.known = EVENT_S1_KNOWN | EVENT_S2_KNOWN;
    label.type = ring->types[regime.stage2 && hcr & HCR_CD][label.fwb][label.stage2][type];
    if (label.type != RING_UNKNOWN_TYPE)
        label.known |= EVENT_TYPE_KNOWN;
    return label;
}
