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

static int container = -1;
static int iommu;

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

static int open_group(const char *address)
{
    char path[512], link[512];
    ssize_t length;
    int group;

    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", address);
    length = readlink(path, link, sizeof link - 1);
    if (length < 0)
        fail_errno("the device has no IOMMU group");
    link[length] = 0;
    const char *number = strrchr(link, '/') + 1;
    snprintf(path, sizeof path, "/dev/vfio/%s", number);
    group = open(path, O_RDWR | O_CLOEXEC);
    if (group < 0 && errno == ENOENT) {
        snprintf(path, sizeof path, "/dev/vfio/noiommu-%s", number);
        group = open(path, O_RDWR | O_CLOEXEC);
        iommu = VFIO_NOIOMMU_IOMMU;
    } else {
        iommu = VFIO_TYPE1v2_IOMMU;
    }
    if (group < 0)
        fail_errno("%s cannot be opened", path);
    return group;
}

void vfio_open(struct device *device, const char *address)
{
    int group = open_group(address), file, first = container < 0;

    if (first)
        container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (container < 0)
        fail_errno("/dev/vfio/vfio cannot be opened");
    if (control(group, VFIO_GROUP_SET_CONTAINER, &container))
        fail_errno("vfio does not let the group of %s into the container", address);
    if (first && control(container, VFIO_SET_IOMMU, (void *)(intptr_t)iommu))
        fail_errno("vfio has no IOMMU of type %d", iommu);
    file = control(group, VFIO_GROUP_GET_DEVICE_FD, (void *)(uintptr_t)address);
    if (file < 0)
        fail_errno("vfio does not give the device");
    device->file = device->config = file;
    for (unsigned region = 0; region <= VFIO_PCI_CONFIG_REGION_INDEX; region++) {
        struct vfio_region_info info = { .argsz = sizeof info, .index = region };

        if (control(file, VFIO_DEVICE_GET_REGION_INFO, &info))
            fail_errno("vfio does not describe region %u", region);
        if (region == VFIO_PCI_CONFIG_REGION_INDEX)
            device->config_offset = info.offset;
        if (region >= BARS)
            continue;
        device->bars[region] = file;
        device->offsets[region] = info.offset;
        device->sizes[region] = !(info.flags & VFIO_REGION_INFO_FLAG_MMAP) ? 0 : info.size < LARGEST ? info.size : LARGEST;
    }
    read_flags(device);
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

    if (iommu != VFIO_NOIOMMU_IOMMU && control(container, VFIO_IOMMU_MAP_DMA, &map))
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
