/* Stage 1 of EL1 and EL0: a window for each memory type onto all MMIO, and RAM.
 *
 * 4 KiB granule, 39-bit addresses, first lookup at level 1 (Arm ARM DDI 0487, D8.2). Whatever is MMIO lies below 1 GiB,
 * so that a window onto all of it is one level-1 block. */
#include "guest.h"
#include "mmu.h"

static const uint8_t types[8] = { 0x00, 0x04, 0x08, 0x0c, 0x44, 0xbb, 0xff, 0xf0 };

#define SCTLR_DZE (1ull << 14)
#define SCTLR_UCT (1ull << 15)
#define SCTLR_ATA0 (1ull << 42)
#define SCTLR_ATA (1ull << 43)
#define SCTLR_EL1_RES1 0x30d00800ull

static table l1, ram_l2;

uint32_t mistakes;

void tlbi_guest(void)
{
#if HOME_EL == 2
    __asm__ volatile("dsb ish; tlbi alle1; dsb ish; isb" ::: "memory");
#else
    __asm__ volatile("dsb ish; tlbi vmalle1; dsb ish; isb" ::: "memory");
#endif
}

uint64_t mair(void)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned type = i;
        if (mistakes & INSTALL_WRONG_MAIR)
            type = i == 1 ? 4 : i == 4 ? 1 : i;
        value |= (uint64_t)types[type] << 8 * i;
    }
    return value;
}

uint64_t physical_range(void)
{
    uint64_t range = read_sysreg(id_aa64mmfr0_el1) & 15;

    return range > 5 ? 5 : range; /* 52 bits need LPA2's tables */
}

/* What the guest itself needs where it runs at EL1: devices, and the RAM that user code may not have. */
static void map_home(uint64_t leaf)
{
    const uint64_t device = VALID | ACCESS_FLAG | ATTR_INDEX(INDEX_DEVICE) | PRIVILEGED_XN | XN;

    for (unsigned i = 3; i < 8; i++)
        ram_l2[i] = (RAM_BASE + i * 0x200000ull) | leaf | PRIVILEGED_XN | XN;
    l1[0] = device;
    l1[256] = 256 * GIB | device; /* the ECAM, when it is not below 1 GiB */
}

void stage1_start(void)
{
    const uint64_t leaf = VALID | ACCESS_FLAG | INNER_SHAREABLE | ATTR_INDEX(INDEX_WRITE_BACK);
    uint64_t sctlr = SCTLR_EL1_RES1 | SCTLR_M | SCTLR_C | SCTLR_I | SCTLR_DZE | SCTLR_UCT;

    l1[1] = (uint64_t)ram_l2 | TABLE;
    ram_l2[1] = (RAM_BASE + 0x200000) | leaf | AP_USER | AP_READ_ONLY;
    ram_l2[2] = (RAM_BASE + 0x400000) | leaf | AP_USER | PRIVILEGED_XN | XN;
    if (HOME_EL == 1)
        map_home(leaf);
    for (unsigned type = 0; type < 8; type++)
        l1[GUEST_WINDOW(type) / GIB] =
            VALID | ACCESS_FLAG | INNER_SHAREABLE | ATTR_INDEX(type) | AP_USER | PRIVILEGED_XN | XN;
    l1[CODE_WINDOW / GIB] = VALID | ACCESS_FLAG | INNER_SHAREABLE | ATTR_INDEX(INDEX_NON_CACHEABLE) | XN;
    if ((read_sysreg(id_aa64pfr1_el1) >> 8 & 15) >= 2)
        sctlr |= SCTLR_ATA | SCTLR_ATA0;
    write_sysreg(mair_el1, mair());
    write_sysreg(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | physical_range() << 32 | 1ull << 37);
    write_sysreg(ttbr0_el1, l1);
    write_sysreg(cpacr_el1, 3 << 20);
    tlbi_guest();
    write_sysreg(sctlr_el1, sctlr);
    __asm__ volatile("isb");
}
