/* The device as sysfs has it: its BARs mapped in each way that there is, where the bare-metal guest would have them. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"
#include "probe.h"
#include "process.h"

#define DEVICES "/sys/bus/pci/devices"
#define DEVICE_NGNRE 1u /* indexes of guest/plan.py's MAIR */
#define NORMAL_NC 4u
#define COMMAND_MEMORY_AND_MASTER 6

uint64_t ecam;
struct function functions[32];
uint32_t function_count;
int under_test = -1;

static void map(const char *device, const char *suffix, unsigned bar, uint64_t at)
{
    char path[512];
    uint64_t size = functions[0].sizes[bar];

    snprintf(path, sizeof path, DEVICES "/%s/resource%u%s", device, bar, suffix);
    int file = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
    if (file < 0)
        return; /* a BAR that is not prefetchable has no resourceN_wc */
    if (mmap((void *)at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, file, 0) != (void *)at)
        fail(EXIT_TRANSPORT, path);
    close(file);
}

static void use(const char *device)
{
    char path[512];
    uint64_t start, end, flags;
    uint16_t command = 0;

    snprintf(path, sizeof path, DEVICES "/%s/resource", device);
    FILE *resources = fopen(path, "re");
    for (unsigned bar = 0; resources && bar < BARS; bar++)
        if (fscanf(resources, "%" SCNx64 " %" SCNx64 " %" SCNx64, &start, &end, &flags) == 3 && end) {
            functions[0].bars[bar] = start;
            functions[0].sizes[bar] = end - start + 1;
        }
    if (!resources)
        fail(EXIT_NO_TRANSPORT, path);
    fclose(resources);
    snprintf(path, sizeof path, DEVICES "/%s/config", device);
    int config = open(path, O_RDWR | O_CLOEXEC);
    if (pread(config, &command, 2, 4) != 2)
        fail(EXIT_NO_TRANSPORT, path);
    command |= COMMAND_MEMORY_AND_MASTER;
    if (pwrite(config, &command, 2, 4) != 2)
        fail(EXIT_NO_TRANSPORT, path);
    close(config);
    functions[0].vendor = PROBE_VENDOR;
    functions[0].device = PROBE_DEVICE;
    functions[0].address = (uint32_t)strtoul(device + 8, NULL, 16) << 15; /* of 0000:00:DD.0 */
    function_count = 1;
    under_test = 0;
    driver_start();
    for (unsigned bar = 0; bar < BARS; bar++) {
        uint64_t at = functions[0].bars[bar];

        if (!at)
            continue;
        map(device, "", bar, at); /* for single accesses, by the physical address */
        map(device, "", bar, GUEST_WINDOW(DEVICE_NGNRE) + at);
        map(device, "_wc", bar, GUEST_WINDOW(NORMAL_NC) + at);
    }
}

void pci_start(void)
{
    DIR *folder = opendir(DEVICES);
    struct dirent *entry;

    while (folder && (entry = readdir(folder))) {
        char path[512];
        unsigned vendor = 0, device = 0;

        for (int which = 0; which < 2; which++) {
            snprintf(path, sizeof path, DEVICES "/%s/%s", entry->d_name, which ? "device" : "vendor");
            FILE *file = fopen(path, "re");
            if (file && fscanf(file, "%x", which ? &device : &vendor) != 1)
                vendor = 0;
            if (file)
                fclose(file);
        }
        if (vendor == PROBE_VENDOR && device == PROBE_DEVICE)
            use(entry->d_name);
    }
    if (folder)
        closedir(folder);
}

int pci_find(uint16_t vendor, uint16_t device)
{
    return function_count && functions[0].vendor == vendor && functions[0].device == device ? 0 : -1;
}

uint64_t place(uint8_t bar, uint64_t offset, uint64_t length)
{
    if (bar >= BARS || under_test < 0 || !functions[0].bars[bar] || offset > functions[0].sizes[bar] ||
        length > functions[0].sizes[bar] - offset)
        return 0;
    return functions[0].bars[bar] + offset;
}
