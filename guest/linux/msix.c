/* MSI-X as the guest sees it (PCIe 7.7.2): the VMM keeps table and control word, since those of the device are the
 * host's. A vector is an eventfd: vfio signals it, and KVM turns that into the message that the guest wrote. */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "vmm.h"

#define PCI_STATUS 0x06u
#define PCI_CAPABILITIES 0x34u
#define STATUS_CAPABILITIES 0x10u
#define CAPABILITY_MSIX 0x11u
#define CONTROL_MASKED 0x4000u
#define CONTROL_ENABLED 0x8000u
#define ENTRY_SIZE 16u
#define VECTOR_MASKED 1u

void msix_start(struct device *device)
{
    uint16_t status = 0, control = 0;
    uint32_t table = 0;
    uint8_t at = 0, id = 0;

    device_config(device, 0, PCI_STATUS, &status, 2);
    if (device->file < 0 || !(status & STATUS_CAPABILITIES))
        return;
    device_config(device, 0, PCI_CAPABILITIES, &at, 1);
    for (unsigned tries = 0; at && tries < 48; tries++, device_config(device, 0, at + 1u, &at, 1)) {
        device_config(device, 0, at, &id, 1);
        if (id != CAPABILITY_MSIX)
            continue;
        device_config(device, 0, at + 2u, &control, 2);
        device_config(device, 0, at + 4u, &table, 4);
        device->vector_count = (control & 0x7ff) + 1u;
        if (device->vector_count > VECTORS)
            fail("a device must have at most %u vectors, not %u", VECTORS, device->vector_count);
        device->msix = at;
        device->table_bar = table & 7;
        device->table = table & ~7u;
        for (unsigned i = 0; i < device->vector_count; i++)
            device->vectors[i].control = VECTOR_MASKED;
        return;
    }
}

/* Has vfio signal the eventfds, or nothing any more. 0, or -1 when it does not. */
static int signal_events(struct device *device)
{
    union {
        struct vfio_irq_set set;
        uint8_t room[sizeof(struct vfio_irq_set) + VECTORS * sizeof(int)];
    } request = { { .argsz = sizeof request.set, .index = VFIO_PCI_MSIX_IRQ_INDEX } };
    int *events = (int *)(void *)request.set.data;

    request.set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    if (device->enabled) {
        request.set.argsz += device->vector_count * (unsigned)sizeof(int);
        request.set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        request.set.count = device->vector_count;
        for (unsigned i = 0; i < device->vector_count; i++) {
            if (device->vectors[i].event <= 0)
                device->vectors[i].event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
            if (device->vectors[i].event < 0)
                fail_errno("there is no eventfd for a vector");
            events[i] = device->vectors[i].event;
        }
    }
    return control(device->file, VFIO_DEVICE_SET_IRQS, &request);
}

static uint16_t control_word(const struct device *device)
{
    return (uint16_t)((device->vector_count - 1) | (device->enabled ? CONTROL_ENABLED : 0) |
                      (device->masked ? CONTROL_MASKED : 0));
}

static void set_control(struct device *device, uint16_t value)
{
    int enabled = !!(value & CONTROL_ENABLED);

    device->masked = !!(value & CONTROL_MASKED);
    if (enabled != device->enabled) {
        device->enabled = enabled;
        if (!enabled)
            vgic_route(); /* KVM lets go of the eventfds before vfio does */
        if (signal_events(device)) { /* the guest finds that it is not enabled */
            printf("pyvfio-user vmm: vfio does not change MSI-X: %s\n", strerror(errno));
            device->enabled = 0;
        }
    }
    vgic_route();
}

void msix_config(struct device *device, int write, unsigned offset, void *value, unsigned size)
{
    unsigned word = device->msix + 2;
    uint16_t own;

    if (!device->msix || offset > word || offset + size < word + 2) {
        device_config(device, write, offset, value, size);
    } else if (write) {
        memcpy(&own, (uint8_t *)value + (word - offset), 2);
        set_control(device, own);
    } else {
        device_config(device, 0, offset, value, size);
        own = control_word(device);
        memcpy((uint8_t *)value + (word - offset), &own, 2);
    }
}

int msix_table(struct device *device, unsigned bar, uint64_t offset, int write, unsigned size, uint64_t *value)
{
    uint64_t at = offset - device->table;

    if (!device->msix || bar != device->table_bar || offset < device->table ||
        at + size > device->vector_count * ENTRY_SIZE)
        return 0;
    /* A vector starts with the 16 bytes of its entry. */
    uint8_t *entry = (uint8_t *)&device->vectors[at / ENTRY_SIZE];
    if (!write)
        *value = 0;
    memcpy(write ? (void *)(entry + at % ENTRY_SIZE) : (void *)value,
           write ? (void *)value : (void *)(entry + at % ENTRY_SIZE), size);
    if (write)
        vgic_route();
    return 1;
}

void msix_pages(const struct device *device, unsigned bar, uint64_t *start, uint64_t *end)
{
    *start = *end = 0;
    if (device->msix && bar == device->table_bar) {
        *start = device->table & ~(PAGE - 1);
        *end = (device->table + device->vector_count * ENTRY_SIZE + PAGE - 1) & ~(PAGE - 1);
    }
}
