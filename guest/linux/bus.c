/* What the guest does outside of its memslots: its console, the VMM's own registers, configuration space, and BARs, by
 * an access of the VMM's. */
#include <stdio.h>
#include <unistd.h>

#include "vmm.h"

#define UART 0x09000000ull
#define UART_SIZE 0x1000ull
#define ECAM 0x3f000000ull
#define ECAM_SIZE 0x01000000ull

static uint64_t dma, tried;

static void hypervisor(int write, uint64_t offset, uint64_t *value)
{
    void *request;

    if (!write) {
        *value = offset == HYPERVISOR_DMA ? dma : offset == HYPERVISOR_TRY ? tried : 0;
        return;
    }
    switch (offset) {
    case HYPERVISOR_INSTALL:
        request = memory_at(*value, sizeof(struct install_request));
        if (request)
            install(request);
        break;
    case HYPERVISOR_DMA:
        dma = memory_dma(*value);
        break;
    case HYPERVISOR_PAUSE:
        usleep((useconds_t)*value);
        break;
    case HYPERVISOR_WATCHDOG:
        vcpu_watch(*value);
        break;
    case HYPERVISOR_FAILED:
        vcpu_recover(*value);
        break;
    case HYPERVISOR_REMAP:
        request = memory_at(*value, sizeof(struct remap_request));
        if (request)
            remap(request);
        break;
    case HYPERVISOR_TRY:
        tried = (uint64_t)try_slot((enum trial)*value);
        break;
    case HYPERVISOR_PRINT:
        request = memory_at(*value, HYPERVISOR_LINE);
        if (request)
            printf("%.*s", (int)HYPERVISOR_LINE - 1, (const char *)request);
        break;
    }
}

/* One access of the size that the guest made. */
static void access_bar(volatile uint8_t *at, int write, unsigned size, uint64_t *value)
{
    switch (size) {
    case 1:
        if (write) *at = (uint8_t)*value; else *value = *at;
        break;
    case 2:
        if (write) *(volatile uint16_t *)at = (uint16_t)*value; else *value = *(volatile uint16_t *)at;
        break;
    case 4:
        if (write) *(volatile uint32_t *)at = (uint32_t)*value; else *value = *(volatile uint32_t *)at;
        break;
    default:
        if (write) *(volatile uint64_t *)at = *value; else *value = *(volatile uint64_t *)at;
        break;
    }
}

void bus_access(uint64_t address, int write, unsigned size, uint64_t *value)
{
    struct device *device;
    unsigned bar;
    uint64_t offset;

    if (!write)
        *value = ~0ull;
    if (address >= UART && address < UART + UART_SIZE) {
        if (!write)
            *value = 0; /* its flags: neither full nor busy */
        else if (address == UART)
            putchar((int)(*value & 0xff));
    } else if (address >= HYPERVISOR_BASE && address < HYPERVISOR_BASE + HYPERVISOR_SIZE) {
        hypervisor(write, address - HYPERVISOR_BASE, value);
    } else if (address >= ECAM && address < ECAM + ECAM_SIZE) {
        pci_config(write, address - ECAM, value, size);
    } else if ((device = pci_find(address, &bar, &offset)) && !msix_table(device, bar, offset, write, size, value)) {
        access_bar(device->views[bar] + offset, write, size, value);
    }
}
