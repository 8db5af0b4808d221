/* EL2's physical timer and just enough of the GICv3 to hear it: a watchdog over what runs at EL1 and EL0 (and, with
 * IRQs unmasked, over experiments at EL2), and a sleep that leaves the host's CPU alone.
 * Without a GICv3 there is no watchdog, and waiting is busy. */
#include "guest.h"

#define GICD_CTLR 0x08000000ull
#define GICR_WAKER 0x080a0014ull
#define GICR_IGROUPR0 0x080b0080ull
#define GICR_ISENABLER0 0x080b0100ull
#define GICD_CTLR_GROUP1 (1u << 1)
#define GICD_CTLR_AFFINITY (1u << 4)
#define TIMER_PPI (1u << 26) /* CNTHP */

#define ICC_SRE_EL2 S3_4_C12_C9_5
#define ICC_PMR_EL1 S3_0_C4_C6_0
#define ICC_IGRPEN1_EL1 S3_0_C12_C12_7

static int available;

void timer_start(void)
{
    if ((read_sysreg(id_aa64pfr0_el1) >> 24 & 15) == 0)
        return; /* no system registers of a GIC */
    write_sysreg(ICC_SRE_EL2, 0xf);
    __asm__ volatile("isb");
    write32(GICR_WAKER, 0);
    write32(GICR_IGROUPR0, 0xffffffff);
    write32(GICR_ISENABLER0, TIMER_PPI);
    write32(GICD_CTLR, GICD_CTLR_AFFINITY | GICD_CTLR_GROUP1);
    write_sysreg(ICC_PMR_EL1, 0xff);
    write_sysreg(ICC_IGRPEN1_EL1, 1);
    __asm__ volatile("isb");
    available = 1;
}

int timer_available(void)
{
    return available;
}

void watchdog_arm(uint32_t milliseconds)
{
    uint64_t ticks = read_sysreg(cntfrq_el0) / 1000 * milliseconds;

    if (!available)
        return;
    write_sysreg(cnthp_cval_el2, read_sysreg(cntpct_el0) + ticks);
    write_sysreg(cnthp_ctl_el2, 1);
    __asm__ volatile("isb");
}

void watchdog_off(void)
{
    write_sysreg(cnthp_ctl_el2, 0);
    __asm__ volatile("isb");
}

void sleep_for(uint32_t microseconds)
{
    uint64_t end = read_sysreg(cntpct_el0) + microseconds * (read_sysreg(cntfrq_el0) / 1000) / 1000;

    if (!available) {
        while (read_sysreg(cntpct_el0) < end)
            __asm__ volatile("yield");
        return;
    }
    write_sysreg(cnthp_cval_el2, end);
    write_sysreg(cnthp_ctl_el2, 1);
    while (read_sysreg(cntpct_el0) < end)
        __asm__ volatile("isb; wfi"); /* IRQs are masked: the timer's only ends the wait */
    watchdog_off();
}
