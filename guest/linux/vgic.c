/* KVM's own GICv3 with an ITS, where the machine `virt` has them (Documentation/virt/kvm/devices/arm-vgic-v3.rst and
 * arm-vgic-its.rst), and the routes by which a device's eventfds become messages to it. Where the host has a GICv2, one of
 * those (arm-vgic.rst), whose CPU interface KVM maps from the host's. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#include "vmm.h"

#define DISTRIBUTOR 0x08000000ull
#define ITS 0x08080000ull
#define REDISTRIBUTOR 0x080a0000ull
#define CPU_INTERFACE 0x08010000ull /* of a GICv2 */

static int machine, gic = -1, gicv2 = -1;

static int create(unsigned type)
{
    struct kvm_create_device device = { .type = type };

    return control(machine, KVM_CREATE_DEVICE, &device) ? -1 : (int)device.fd;
}

static void set(int file, unsigned group, uint64_t attribute, uint64_t *value, const char *what)
{
    struct kvm_device_attr attr = { .group = group, .attr = attribute, .addr = (uintptr_t)value };

    if (control(file, KVM_SET_DEVICE_ATTR, &attr))
        fail_errno("KVM does not %s", what);
}

void vgic_create(int vm)
{
    uint64_t distributor = DISTRIBUTOR, redistributor = REDISTRIBUTOR, interface = CPU_INTERFACE;

    machine = vm;
    gic = create(KVM_DEV_TYPE_ARM_VGIC_V3);
    if (gic < 0)
        gicv2 = create(KVM_DEV_TYPE_ARM_VGIC_V2);
    if (gicv2 >= 0) {
        set(gicv2, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_DIST, &distributor, "place the distributor");
        set(gicv2, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V2_ADDR_TYPE_CPU, &interface, "place the CPU interface");
        return;
    }
    if (gic < 0) {
        printf("pyvfio-user vmm: no interrupts: KVM creates no GICv3: %s\n", strerror(errno));
        return;
    }
    set(gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &distributor, "place the distributor");
    set(gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &redistributor, "place the redistributor");
}

void vgic_start(void)
{
    uint64_t address = ITS;
    int its;

    if (gicv2 >= 0)
        set(gicv2, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL, "start the GICv2");
    if (gic < 0)
        return;
    set(gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL, "start the GIC");
    its = create(KVM_DEV_TYPE_ARM_VGIC_ITS);
    if (its < 0)
        fail_errno("KVM creates no ITS");
    set(its, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, &address, "place the ITS");
    set(its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL, "start the ITS");
}

static int wanted(const struct device *device, const struct vector *vector)
{
    return gic >= 0 && device->enabled && !device->masked && !(vector->control & 1);
}

static void listen(struct vector *vector, unsigned gsi, int attach)
{
    struct kvm_irqfd request = {
        .fd = (unsigned)vector->event, .gsi = gsi, .flags = attach ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };

    if (vector->attached == attach)
        return;
    if (control(machine, KVM_IRQFD, &request))
        fail_errno("KVM does not %s a vector's eventfd", attach ? "take" : "let go of");
    vector->attached = attach;
}

/* A vector that is masked is not listened to: its eventfd keeps what is pending until it is. */
void vgic_route(void)
{
    union {
        struct kvm_irq_routing table;
        uint8_t room[sizeof(struct kvm_irq_routing) + DEVICES * VECTORS * sizeof(struct kvm_irq_routing_entry)];
    } request = { { 0 } };

    for (struct device *device = devices; device < devices + device_count; device++)
        for (unsigned i = 0; i < device->vector_count; i++) {
            struct vector *vector = &device->vectors[i];
            unsigned gsi = device->number * VECTORS + i;

            if (!wanted(device, vector)) {
                listen(vector, gsi, 0);
                continue;
            }
            request.table.entries[request.table.nr++] = (struct kvm_irq_routing_entry){
                .gsi = gsi,
                .type = KVM_IRQ_ROUTING_MSI,
                .flags = KVM_MSI_VALID_DEVID,
                .u.msi = {
                    .address_lo = (uint32_t)vector->address,
                    .address_hi = (uint32_t)(vector->address >> 32),
                    .data = vector->data,
                    .devid = device->number << 3,
                },
            };
        }
    if (gic < 0)
        return;
    if (control(machine, KVM_SET_GSI_ROUTING, &request))
        fail_errno("KVM does not take routes of interrupts");
    for (struct device *device = devices; device < devices + device_count; device++)
        for (unsigned i = 0; i < device->vector_count; i++)
            if (wanted(device, &device->vectors[i]))
                listen(&device->vectors[i], device->number * VECTORS + i, 1);
}
