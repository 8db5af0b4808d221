/* The guest at EL1: stage 2, the clock and the way to go on after a failure are the hypervisor's. */
#include "hypervisor.h"
#include "guest.h"
#include "mmu.h"

extern char hypervisor_failed[];
static SHARED uint8_t stack_el0[4096];

static void ask(enum hypervisor_register which, uint64_t value)
{
    __asm__ volatile("dsb sy; str %0, [%1]" ::"r"(value), "r"(HYPERVISOR_BASE + which) : "memory");
}

void mmu_start(void)
{
    write_sysreg(sp_el0, stack_el0 + sizeof stack_el0);
    stage1_start();
    ask(HYPERVISOR_FAILED, (uint64_t)hypervisor_failed);
}

static int64_t ask_for_type(uint64_t address, uint64_t pages, uint64_t normal)
{
    register uint64_t x0 __asm__("x0") = MEMORY_TYPE_CALL;
    register uint64_t x1 __asm__("x1") = address;
    register uint64_t x2 __asm__("x2") = pages;
    register uint64_t x3 __asm__("x3") = normal;

    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)::"memory");
    return (int64_t)x0;
}

enum refusal mmu_install(const struct install_entry *entries, uint32_t count, uint32_t argument, uint32_t *bad)
{
    struct install_request request = {
        .entries = (uint64_t)entries, .count = count, .function = functions[under_test].address >> 15,
    };

    mistakes = argument & (INSTALL_WRONG_MAIR | INSTALL_SKIP_TLBI);
    write_sysreg(mair_el1, mair());
    ask(HYPERVISOR_INSTALL, (uint64_t)&request);
    for (uint32_t i = 0; request.refusal == REFUSAL_NONE && i < count; i++)
        if (entries[i].ask & ASK_WRITE_COMBINE)
            (void)ask_for_type(place(entries[i].bar, entries[i].offset, 0), entries[i].pages, 1);
    tlbi_guest();
    *bad = request.bad;
    return request.refusal;
}

void mmu_context(struct context *context)
{
    *context = (struct context){
        .mair_el1 = read_sysreg(mair_el1),
        .tcr_el1 = read_sysreg(tcr_el1),
        .sctlr_el1 = read_sysreg(sctlr_el1),
        .current_el = read_sysreg(CurrentEL) >> 2,
    };
}

void tlbi_host(void)
{
}

uint64_t dma_address(const void *buffer)
{
    uint64_t address;

    ask(HYPERVISOR_DMA, (uint64_t)buffer);
    __asm__ volatile("ldr %0, [%1]" : "=r"(address) : "r"(HYPERVISOR_BASE + HYPERVISOR_DMA) : "memory");
    return address;
}

void timer_start(void)
{
}

int timer_available(void)
{
    return 1;
}

void watchdog_arm(uint32_t milliseconds)
{
    ask(HYPERVISOR_WATCHDOG, milliseconds);
}

void watchdog_off(void)
{
    ask(HYPERVISOR_WATCHDOG, 0);
}

void sleep_for(uint32_t microseconds)
{
    ask(HYPERVISOR_PAUSE, microseconds);
}

void hypervisor_print(const char *text)
{
    ask(HYPERVISOR_PRINT, (uint64_t)text);
}
