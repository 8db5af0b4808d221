/* Configuration space as the guest sees it, by ECAM: the device is function 0 of device 0, alone on its bus. The BAR
 * registers are the VMM's own, so that the guest may size and place them without the device's moving. */
#include <string.h>

#include "vmm.h"

#define PCI_BAR0 0x10u
#define FUNCTION_SIZE 4096u

static uint32_t registers[BARS];

static uint32_t mask(const struct device *device, unsigned bar)
{
    if (device->sizes[bar])
        return (uint32_t)~(device->sizes[bar] - 1) & ~15u;
    /* the upper half of a 64-bit BAR */
    return bar && device->sizes[bar - 1] && device->flags[bar - 1] & 4 ? (uint32_t)(~(device->sizes[bar - 1] - 1) >> 32)
                                                                       : 0;
}

uint64_t pci_bar(unsigned bar)
{
    return registers[bar] & ~15u; /* the guest places all BARs below 1 GiB */
}

void pci_config(struct device *device, int write, uint64_t offset, void *value, unsigned size)
{
    unsigned bar = (unsigned)(offset - PCI_BAR0) / 4;

    if (offset + size > FUNCTION_SIZE) {
        if (!write)
            memset(value, 0xff, size);
    } else if (offset < PCI_BAR0 || bar >= BARS || size != 4) {
        device_config(device, write, (unsigned)offset, value, size);
    } else if (write) {
        memcpy(&registers[bar], value, 4);
        registers[bar] = (registers[bar] & mask(device, bar)) | device->flags[bar];
    } else {
        memcpy(value, &registers[bar], 4);
    }
}
