/* Devices: vfio's container, groups and devices (Documentation/driver-api/vfio.rst), or sysfs' files. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm.h"

#define PCI_BAR0 0x10
#define BAR_IO 1u
#define BAR_64 4u
#define LARGEST 0x1000000ull /* the guest has little room for BARs: of a larger one it gets the beginning */

/* One for devices behind an IOMMU, and one for those that have none before them. */
static int containers[2] = { -1, -1 };

/* The BAR registers' low bits, from configuration space as the kernel shows it. */
static void read_flags(struct device *device)
{
    for (unsigned bar = 0; bar < BARS; bar++) {
        uint32_t value = 0;

        device_config(device, 0, PCI_BAR0 + 4 * bar, &value, 4);
        if (!device->sizes[bar] || value & BAR_IO) {
            device->sizes[bar] = 0;
            continue;
        }
        device->flags[bar] = value & 15;
        if (value & BAR_64)
            bar++;
    }
}

/* The group of a device, and whether an IOMMU stands before it. */
static int open_group(const char *bus, const char *name, int *translated)
{
    char path[512], link[512];
    ssize_t length;
    int group;

    snprintf(path, sizeof path, "/sys/bus/%s/devices/%s/iommu_group", bus, name);
    length = readlink(path, link, sizeof link - 1);
    if (length < 0)
        fail_errno("%s has no IOMMU group", name);
    link[length] = 0;
    const char *number = strrchr(link, '/') + 1;
    snprintf(path, sizeof path, "/dev/vfio/%s", number);
    group = open(path, O_RDWR | O_CLOEXEC);
    if (group < 0 && errno == ENOENT) {
        snprintf(path, sizeof path, "/dev/vfio/noiommu-%s", number);
        group = open(path, O_RDWR | O_CLOEXEC);
        *translated = 0;
    } else {
        *translated = 1;
    }
    if (group < 0)
        fail_errno("%s cannot be opened", path);
    return group;
}

static int open_device(const char *bus, const char *name)
{
    int translated, group = open_group(bus, name, &translated), *container = &containers[translated];
    int first = *container < 0, iommu = translated ? VFIO_TYPE1v2_IOMMU : VFIO_NOIOMMU_IOMMU;

    if (first)
        *container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (*container < 0)
        fail_errno("/dev/vfio/vfio cannot be opened");
    if (control(group, VFIO_GROUP_SET_CONTAINER, container))
        fail_errno("vfio does not let the group of %s into the container", name);
    if (first && control(*container, VFIO_SET_IOMMU, (void *)(intptr_t)iommu))
        fail_errno("vfio has no IOMMU of type %d", iommu);
    int file = control(group, VFIO_GROUP_GET_DEVICE_FD, (void *)(uintptr_t)name);
    if (file < 0)
        fail_errno("vfio does not give the device");
    return file;
}

/* Where a region is in the device's file, and how much of it can be mapped, at its number in the device's lists. */
static void describe(struct device *device, unsigned region)
{
    struct vfio_region_info info = { .argsz = sizeof info, .index = region };

    if (control(device->file, VFIO_DEVICE_GET_REGION_INFO, &info))
        fail_errno("vfio does not describe region %u", region);
    if (region == VFIO_PCI_CONFIG_REGION_INDEX)
        device->config_offset = info.offset;
    if (region >= BARS)
        return;
    device->bars[region] = device->file;
    device->offsets[region] = info.offset;
    device->sizes[region] = !(info.flags & VFIO_REGION_INFO_FLAG_MMAP) ? 0 : info.size < LARGEST ? info.size : LARGEST;
}

void vfio_open(struct device *device, const char *address)
{
    device->file = device->config = open_device("pci", address);
    for (unsigned region = 0; region <= VFIO_PCI_CONFIG_REGION_INDEX; region++)
        describe(device, region);
    read_flags(device);
}

void vfio_open_platform(struct device *device, const char *name)
{
    device->file = open_device("platform", name);
    describe(device, 0);
    if (!device->sizes[0])
        fail("vfio does not map the registers of %s", name);
    device->registers[0] = (uint32_t)HYPERVISOR_PLATFORM;
}

void vfio_allow(void *memory, uint64_t size, uint64_t address)
{
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map,
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)memory,
        .iova = address,
        .size = size,
    };

    if (containers[1] >= 0 && control(containers[1], VFIO_IOMMU_MAP_DMA, &map))
        fail_errno("vfio does not map RAM for the device at %#llx", (unsigned long long)address);
}

static int open_attribute(const char *address, const char *name)
{
    char path[512];

    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", address, name);
    return open(path, O_RDWR | O_SYNC | O_CLOEXEC);
}

void sysfs_open(struct device *device, const char *address)
{
    device->config = open_attribute(address, "config");
    if (device->config < 0)
        fail_errno("the device's configuration space cannot be opened");
    for (unsigned bar = 0; bar < BARS; bar++) {
        char name[32];
        struct stat status;

        snprintf(name, sizeof name, "resource%u", bar);
        device->bars[bar] = open_attribute(address, name);
        if (device->bars[bar] >= 0 && !fstat(device->bars[bar], &status))
            device->sizes[bar] = (uint64_t)status.st_size;
        snprintf(name, sizeof name, "resource%u_wc", bar);
        device->write_combining[bar] = open_attribute(address, name);
    }
    read_flags(device);
}

void device_view(struct device *device)
{
    uint16_t command = 0;

    device_config(device, 0, 4, &command, 2);
    command |= 2; /* memory space: without it vfio has nothing to map */
    device_config(device, 1, 4, &command, 2);
    for (unsigned bar = 0; bar < BARS; bar++) {
        if (!device->sizes[bar])
            continue;
        void *view = mmap(NULL, device->sizes[bar], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (view == MAP_FAILED || ask_mapping(view, device->sizes[bar], device->bars[bar], device->offsets[bar], 0))
            fail_errno("BAR %u cannot be mapped", bar);
        device->views[bar] = view;
    }
}

void device_config(const struct device *device, int write, unsigned offset, void *value, unsigned size)
{
    off_t at = (off_t)(device->config_offset + offset);
    ssize_t done = write ? pwrite(device->config, value, size, at) : pread(device->config, value, size, at);

    if (done != (ssize_t)size)
        fail_errno("configuration space cannot be %s at %#x", write ? "written" : "read", offset);
}
