/*
 * The first process of a Linux guest: a driver in user space, of the device in slot 16. Copies 32-byte entries into its
 * BAR 2, which sysfs maps for write combining, and rings the doorbell in BAR 0 for each.
 */
#include "process.h"

static long map(const char *resource)
{
    long file = open(resource, READ_WRITE | SYNC);

    return file < 0 ? file : call(MMAP, 0, 4096, MAP_READ_WRITE, MAP_SHARED, file);
}

_Noreturn void _start(void)
{
    mount("sysfs", "/sys");
    call(WRITE, open("/sys/bus/pci/devices/0000:00:10.0/enable", READ_WRITE), (long)"1", 1, 0, 0);
    long window = map("/sys/bus/pci/devices/0000:00:10.0/resource2_wc");
    long registers = map("/sys/bus/pci/devices/0000:00:10.0/resource0");
    if (window < 0 || registers < 0)
        power_off();
    for (uint64_t number = 1; number <= COUNT; number++) {
        __asm__ volatile("stp %0, %0, [%1]; stp %0, %0, [%1, #16]" ::"r"(number), "r"(window) : "memory");
        __asm__ volatile(BARRIER ::: "memory");
        *(volatile uint32_t *)registers = (uint32_t)number;
        __asm__ volatile(BARRIER ::: "memory"); /* the window is used again */
    }
    (void)((volatile uint32_t *)registers)[2];
    power_off();
}
