/* Configuration space as the guest sees it, by ECAM: each device is function 0 of a device on bus 0. The BAR registers
 * are the VMM's own, so that the guest may size and place them without the device's moving. */
#include <string.h>

#include "vmm.h"

#define PCI_BAR0 0x10u
#define FUNCTION_SIZE 4096u
#define DEVICE_SIZE (8 * FUNCTION_SIZE)

static uint32_t mask(const struct device *device, unsigned bar)
{
    if (device->sizes[bar])
        return (uint32_t)~(device->sizes[bar] - 1) & ~15u;
    /* the upper half of a 64-bit BAR */
    return bar && device->sizes[bar - 1] && device->flags[bar - 1] & 4 ? (uint32_t)(~(device->sizes[bar - 1] - 1) >> 32)
                                                                       : 0;
}

uint64_t pci_bar(const struct device *device, unsigned bar)
{
    return device->registers[bar] & ~15u; /* the guest places all BARs below 1 GiB */
}

struct device *pci_find(uint64_t address, unsigned *bar, uint64_t *offset)
{
    for (struct device *device = devices; device < devices + device_count; device++)
        for (*bar = 0; *bar < BARS; ++*bar) {
            uint64_t start = pci_bar(device, *bar);

            *offset = address - start;
            if (start && address >= start && *offset < device->sizes[*bar])
                return device;
        }
    return NULL;
}

void pci_config(int write, uint64_t offset, void *value, unsigned size)
{
    struct device *device = devices + offset / DEVICE_SIZE;
    unsigned at = (unsigned)(offset % DEVICE_SIZE), bar = (at - PCI_BAR0) / 4;

    if (offset / DEVICE_SIZE >= device_count || at + size > FUNCTION_SIZE) {
        if (!write)
            memset(value, 0xff, size);
    } else if (at < PCI_BAR0 || bar >= BARS || size != 4) {
        msix_config(device, write, at, value, size);
    } else if (write) {
        memcpy(&device->registers[bar], value, 4);
        device->registers[bar] = (device->registers[bar] & mask(device, bar)) | device->flags[bar];
    } else {
        memcpy(value, &device->registers[bar], 4);
    }
}
