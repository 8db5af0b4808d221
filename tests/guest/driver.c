/* A driver, run at EL2: copies 32-byte entries into a window that is Normal Non-cacheable, and rings a doorbell for each. */
#include "guest.h"

#define NC 4
#define NGNRE 1

_Noreturn void main_not_el2(void);

_Noreturn void main_not_el2(void)
{
    fail(EXIT_NOT_EL2, "started below EL2");
}

_Noreturn void guest_main(void)
{
    const struct install_entry entries[] = {
        { .bar = 2, .memattr = 5, .host = NC, .valid = 1, .pages = 1 },
        { .bar = 0, .memattr = 1, .host = NGNRE, .valid = 1, .pages = 1 },
    };
    uint32_t bad;

    timer_start();
    mmu_start();
    pci_start();
    under_test = pci_find(0x1234, 0x0001);
    if (under_test < 0 || mmu_install(entries, 2, 0, &bad))
        fail(EXIT_PANIC, "no device, or it cannot be mapped");
    uint64_t window = HOST_WINDOW + place(2, 0, PAGE), registers = HOST_WINDOW + place(0, 0, PAGE);
    for (uint64_t number = 1; number <= COUNT; number++) {
        __asm__ volatile("str %0, [%1]; str %0, [%1, #8]; str %0, [%1, #16]; str %0, [%1, #24]"
                         ::"r"(number), "r"(window) : "memory");
        __asm__ volatile(BARRIER ::: "memory");
        write32(registers, (uint32_t)number);
        __asm__ volatile(BARRIER ::: "memory"); /* the window is used again */
    }
    print("sent: %u\n", read32(registers + 8));
    leave(EXIT_OK);
}
