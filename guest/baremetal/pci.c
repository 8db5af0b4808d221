/* PCI functions of bus 0, by ECAM: found, their BARs sized and placed below 4 GiB, memory and bus mastering enabled. */
#include "guest.h"
#include "probe.h"

#define ECAM_HIGH 0x4010000000ull
#define ECAM_LOW 0x3f000000ull
#define MMIO_BASE 0x10000000ull
#define MMIO_END 0x3eff0000ull

#define PCI_COMMAND 0x04
#define PCI_CLASS 0x08
#define PCI_HEADER_TYPE 0x0c
#define PCI_BAR0 0x10
#define COMMAND_MEMORY 2
#define COMMAND_MASTER 4
#define BAR_IO 1
#define BAR_64 4

uint64_t ecam;
struct function functions[32];
uint32_t function_count;
int under_test = -1;

static uint64_t next_free = MMIO_BASE;

static uint64_t allocate(uint64_t size)
{
    uint64_t start = (next_free + size - 1) & ~(size - 1);

    if (size < PAGE)
        start = (next_free + PAGE - 1) & ~(PAGE - 1); /* a page of its own: types are set by pages */
    if (start + size > MMIO_END)
        return 0;
    next_free = start + size;
    return start;
}

static void place_bars(struct function *function, uint64_t config)
{
    for (unsigned i = 0; i < 6; i++) {
        uint64_t bar = config + PCI_BAR0 + 4 * i, mask;
        uint32_t old = read32(bar);

        write32(bar, 0xffffffff);
        uint32_t low = read32(bar);
        write32(bar, old);
        if (!low || low & BAR_IO)
            continue;
        mask = 0xffffffff00000000ull | (low & ~15u);
        if (old & BAR_64) {
            write32(bar + 4, 0xffffffff);
            mask = (uint64_t)read32(bar + 4) << 32 | (low & ~15u);
            write32(bar + 4, 0);
        }
        function->sizes[i] = ~mask + 1;
        function->bars[i] = allocate(function->sizes[i]);
        if (!function->bars[i])
            print("pyvfio-user guest: BAR %u of %x:%x, %lx bytes, does not fit below 1 GiB: not placed\n", i,
                  function->vendor, function->device, function->sizes[i]);
        write32(bar, (uint32_t)function->bars[i]);
        if (old & BAR_64)
            i++;
    }
}

static void add(uint64_t config, uint32_t id)
{
    struct function *function = &functions[function_count++];

    function->vendor = id & 0xffff;
    function->device = id >> 16;
    function->class_code = read32(config + PCI_CLASS) >> 8;
    function->address = (uint32_t)(config - ecam);
    if ((read32(config + PCI_HEADER_TYPE) >> 16 & 0x7f) != 0)
        return; /* a bridge: what lies behind it is not looked for */
    write32(config + PCI_COMMAND, 0);
    place_bars(function, config);
    write32(config + PCI_COMMAND, COMMAND_MEMORY | COMMAND_MASTER);
    print("pyvfio-user guest: PCI %x:%x at 0:%x.%x, BAR 0 %lx, BAR 2 %lx\n", function->vendor, function->device,
          function->address >> 15, function->address >> 12 & 7, function->bars[0], function->bars[2]);
}

void pci_start(void)
{
    uint64_t value;

    ecam = ECAM_HIGH;
    if (guarded_read(ecam, 4, &value) || (uint32_t)value == 0xffffffff)
        ecam = ECAM_LOW;
    if (guarded_read(ecam, 4, &value) || (uint32_t)value == 0xffffffff) {
        print("pyvfio-user guest: no PCI host bridge at %lx or %lx\n", (unsigned long)ECAM_HIGH,
              (unsigned long)ECAM_LOW);
        return;
    }
    for (unsigned device = 0; device < 32; device++) {
        uint64_t config = ecam + (device << 15);
        unsigned last = 0;

        if (read32(config) != 0xffffffff && read32(config + PCI_HEADER_TYPE) & 0x800000)
            last = 7;
        for (unsigned number = 0; number <= last && function_count < 32; number++, config += PAGE)
            if (read32(config) != 0xffffffff)
                add(config, read32(config));
    }
    under_test = pci_find(PROBE_VENDOR, PROBE_DEVICE);
}

int pci_find(uint16_t vendor, uint16_t device)
{
    for (unsigned i = 0; i < function_count; i++)
        if (functions[i].vendor == vendor && functions[i].device == device)
            return (int)i;
    return -1;
}

uint64_t place(uint8_t bar, uint64_t offset, uint64_t length)
{
    uint64_t start = 0, size = GIB;

    if (bar != PLAN_PLATFORM) {
        if (under_test < 0 || bar > 5 || !functions[under_test].bars[bar])
            return 0;
        start = functions[under_test].bars[bar];
        size = functions[under_test].sizes[bar];
    }
    if (offset > size || length > size - offset)
        return 0;
    return start + offset;
}
