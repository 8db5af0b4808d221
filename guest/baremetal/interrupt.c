/* An interrupt that a script waits for: taken by this level's own vector, acknowledged, and ended. The host has set up
 * the rest of the GICv3, its ITS and the device by a script, all of which are MMIO and RAM. */
#include "guest.h"

#define ICC_PMR_EL1 S3_0_C4_C6_0
#define ICC_IAR1_EL1 S3_0_C12_C12_0
#define ICC_EOIR1_EL1 S3_0_C12_C12_1
#define ICC_SRE_EL1 S3_0_C12_C12_5
#define ICC_IGRPEN1_EL1 S3_0_C12_C12_7

#define VECTOR_IRQ 5 /* from this level, on its own stack */
#define FIRST_PPI 16u
#define FIRST_SPI 32u

extern char stub_idle[];

/* Interrupts of this CPU are the watchdog's. */
static int is_watchdog(uint64_t number)
{
    return number >= FIRST_PPI && number < FIRST_SPI;
}

int interrupt_wait(uint32_t microseconds, uint64_t *number)
{
    struct call call = { .pc = (uint64_t)stub_idle, .spsr = SPSR_EL(HOME_EL) };

    *number = 0;
    if ((read_sysreg(id_aa64pfr0_el1) >> 24 & 15) == 0)
        return 0; /* no system registers of a GIC */
    write_sysreg(ICC_SRE_EL1, 7);
    __asm__ volatile("isb");
    write_sysreg(ICC_PMR_EL1, 0xff);
    write_sysreg(ICC_IGRPEN1_EL1, 1);
    __asm__ volatile("isb");
    watchdog_arm((microseconds + 999) / 1000);
    enter(&call);
    if (call.level == HOME_EL && call.vector == VECTOR_IRQ)
        *number = read_sysreg(ICC_IAR1_EL1);
    watchdog_off();
    if (call.level != HOME_EL)
        return 0; /* given up by the hypervisor's watchdog */
    if (call.vector != VECTOR_IRQ)
        unexpected(&call, "waiting for an interrupt");
    write_sysreg(ICC_EOIR1_EL1, *number);
    __asm__ volatile("isb");
    if (!is_watchdog(*number))
        return 1;
    *number = 0;
    return 0;
}
