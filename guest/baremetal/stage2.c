/* The guest as its own hypervisor: EL2's stage 1, and stage 2 as INSTALL says. Granule and sizes as in mmu.c. */
#include "guest.h"
#include "mmu.h"

#define POOL 64

#define LEAF 3ull /* at level 3 */
#define S2_MEMATTR(n) ((uint64_t)(n) << 2)
#define S2_READ_WRITE (3ull << 6)
#define S2_XN (1ull << 54)

#define HCR_VM (1ull << 0)
#define HCR_IMO (1ull << 4)
#define HCR_RW (1ull << 31)
#define HCR_APK (1ull << 40)
#define HCR_API (1ull << 41)
#define HCR_FWB (1ull << 46)
#define HCR_ATA (1ull << 56)
#define SCTLR_EL2_RES1 0x30c50830ull

/* By number: some assemblers know the names only with the feature named, and each names it differently. */
#define TTBR0_EL2 S3_4_C2_C0_0
#define VTTBR_EL2 S3_4_C2_C1_0

static table host_l1, host_l2, s2_l1, s2_l2;
static table pool[POOL];
static unsigned pool_used;

extern char vectors_el1[];
static SHARED uint8_t stack_el1[4096], stack_el0[4096];

void tlbi_host(void)
{
    __asm__ volatile("dsb ish; tlbi alle2; dsb ish; isb" ::: "memory");
}

static void tlbi_all(void)
{
    __asm__ volatile("dsb ish; isb" ::: "memory");
    if (mistakes & INSTALL_SKIP_TLBI)
        return;
    tlbi_guest();
    tlbi_host();
}

static void clear(uint64_t *table)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        table[i] = 0;
}

/* Maps one page below 1 GiB in the tables whose level 2 is given. 0 if the pool is used up. */
static int map_page(uint64_t *l2, uint64_t address, uint64_t attributes)
{
    uint64_t *slot = &l2[address >> 21 & (ENTRIES - 1)];

    if (!*slot) {
        if (pool_used == POOL)
            return 0;
        clear(pool[pool_used]);
        *slot = (uint64_t)pool[pool_used++] | TABLE;
    }
    uint64_t *l3 = (uint64_t *)(*slot & ~0xfffull);
    l3[address >> 12 & (ENTRIES - 1)] = address | attributes;
    return 1;
}

static void start_host(void)
{
    const uint64_t leaf = VALID | AP_USER | ACCESS_FLAG | INNER_SHAREABLE;

    host_l1[0] = leaf | ATTR_INDEX(INDEX_DEVICE) | XN;
    host_l1[1] = RAM_BASE | leaf | ATTR_INDEX(INDEX_WRITE_BACK);
    host_l1[256] = 256 * GIB | leaf | ATTR_INDEX(INDEX_DEVICE) | XN; /* the ECAM, when it is not below 1 GiB */
    host_l1[HOST_WINDOW / GIB] = (uint64_t)host_l2 | TABLE;
    write_sysreg(mair_el2, mair());
    write_sysreg(tcr_el2, 25 | 1 << 8 | 1 << 10 | 3 << 12 | physical_range() << 16 | 1 << 23 | 1ull << 31);
    write_sysreg(TTBR0_EL2, host_l1);
    tlbi_all();
    write_sysreg(sctlr_el2, SCTLR_EL2_RES1 | SCTLR_M | SCTLR_C | SCTLR_I);
    __asm__ volatile("isb");
}

/* Stage 2 with RAM alone, of a type that lets stage 1 decide. */
static void start_stage2(int fwb)
{
    clear(s2_l2);
    s2_l1[0] = (uint64_t)s2_l2 | TABLE;
    s2_l1[1] = RAM_BASE | VALID | ACCESS_FLAG | INNER_SHAREABLE | S2_READ_WRITE | S2_MEMATTR(fwb ? 7 : 15);
    write_sysreg(VTTBR_EL2, s2_l1);
    write_sysreg(vtcr_el2, 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | physical_range() << 16 | 1ull << 31);
    write_sysreg(hcr_el2, HCR_VM | HCR_RW | HCR_APK | HCR_API | HCR_ATA | (fwb ? HCR_FWB : 0) |
                              (timer_available() ? HCR_IMO : 0));
}

void mmu_start(void)
{
    start_host();
    write_sysreg(vbar_el1, vectors_el1);
    write_sysreg(sp_el1, stack_el1 + sizeof stack_el1);
    write_sysreg(sp_el0, stack_el0 + sizeof stack_el0);
    stage1_start();
    start_stage2(0);
    tlbi_all();
}

static enum refusal install_range(const struct install_entry *entry)
{
    uint64_t length = entry->pages * PAGE, start = place(entry->bar, entry->offset, length);

    if (!entry->valid || !start || start % PAGE || entry->memattr > 15 || entry->host > 7)
        return REFUSAL_ENTRY;
    for (uint64_t page = start; page < start + length; page += PAGE) {
        if (!map_page(s2_l2, page, LEAF | ACCESS_FLAG | S2_READ_WRITE | S2_MEMATTR(entry->memattr) | S2_XN))
            return REFUSAL_TABLES;
        if (!map_page(host_l2, page, LEAF | ACCESS_FLAG | INNER_SHAREABLE | AP_USER | XN | ATTR_INDEX(entry->host)))
            return REFUSAL_TABLES;
    }
    return REFUSAL_NONE;
}

enum refusal mmu_install(const struct install_entry *entries, uint32_t count, uint32_t argument, uint32_t *bad)
{
    enum refusal refusal = REFUSAL_NONE;
    int fwb = !!(argument & INSTALL_FWB);

    if (fwb && !(read_sysreg(id_aa64mmfr2_el1) >> 40 & 15))
        return REFUSAL_NO_FWB;
    mistakes = argument & (INSTALL_WRONG_MAIR | INSTALL_SKIP_TLBI | INSTALL_EL1_AT_EL2);
    write_sysreg(mair_el1, mair());
    write_sysreg(mair_el2, mair());
    start_stage2(fwb);
    clear(host_l2);
    pool_used = 0;
    for (*bad = 0; *bad < count; ++*bad) {
        refusal = install_range(&entries[*bad]);
        if (refusal)
            break;
    }
    tlbi_all();
    return refusal;
}

void mmu_context(struct context *context)
{
    context->mair_el1 = read_sysreg(mair_el1);
    context->mair_el2 = read_sysreg(mair_el2);
    context->hcr_el2 = read_sysreg(hcr_el2);
    context->vtcr_el2 = read_sysreg(vtcr_el2);
    context->tcr_el1 = read_sysreg(tcr_el1);
    context->sctlr_el1 = read_sysreg(sctlr_el1);
    context->sctlr_el2 = read_sysreg(sctlr_el2);
    context->current_el = read_sysreg(CurrentEL) >> 2;
}

uint64_t dma_address(const void *buffer)
{
    return (uint64_t)buffer;
}
