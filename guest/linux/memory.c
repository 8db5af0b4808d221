/* The guest's memory: RAM in huge pages whose physical addresses are known, the guest's image in it, and a memslot for
 * each contiguous run of BAR pages that the guest has asked for. What lies in a memslot may be mapped anew later. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm.h"

#define SLOTS 32u
#define PFN ((1ull << 55) - 1) /* Documentation/admin-guide/mm/pagemap.rst */

static int vm;
static uint8_t *ram;
static uint64_t ram_size;
static uint64_t physical[LINUX_RAM_SIZE / HUGE_PAGE];
static uint8_t *areas[DEVICES + 1][BARS]; /* the VMM's address range for each BAR, as large as it; the platform device's */
static unsigned slots = 1;
static struct {
    uint64_t start, end;
} grants[SLOTS]; /* what the guest may have as Normal Non-cacheable if it asks by itself */
static unsigned grant_count;

static int set_slot(unsigned slot, uint64_t address, uint64_t size, void *memory, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot, .flags = flags, .guest_phys_addr = address, .memory_size = size, .userspace_addr = (uintptr_t)memory,
    };

    return control(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* The physical address of a page that is there. */
static uint64_t physical_address(const void *page)
{
    uint64_t entry = 0;
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    if (file < 0 || pread(file, &entry, 8, (off_t)((uintptr_t)page / PAGE * 8)) != 8 || !(entry & PFN))
        fail_errno("/proc/self/pagemap does not tell where RAM is");
    close(file);
    return (entry & PFN) * PAGE;
}

void memory_start(int of, uint64_t size)
{
    vm = of;
    ram_size = size;
    ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    if (ram == MAP_FAILED)
        fail_errno("the kernel has no huge pages of 2 MiB");
    for (uint64_t at = 0; at < ram_size; at += HUGE_PAGE)
        physical[at / HUGE_PAGE] = physical_address(ram + at);
    if (set_slot(0, RAM_BASE, ram_size, ram, 0))
        fail_errno("KVM does not take RAM");
}

void *memory_at(uint64_t address, uint64_t size)
{
    if (address < RAM_BASE || address - RAM_BASE > ram_size || size > ram_size - (address - RAM_BASE))
        return NULL;
    return ram + (address - RAM_BASE);
}

uint64_t memory_dma(uint64_t address)
{
    if (!memory_at(address, 1))
        return 0;
    return physical[(address - RAM_BASE) / HUGE_PAGE] + (address - RAM_BASE) % HUGE_PAGE;
}

void memory_allow(void)
{
    for (uint64_t at = 0; at < ram_size; at += HUGE_PAGE)
        vfio_allow(ram + at, HUGE_PAGE, physical[at / HUGE_PAGE]);
}

uint64_t load_elf(const char *path)
{
    Elf64_Ehdr header;
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0 || pread(file, &header, sizeof header, 0) != sizeof header)
        fail_errno("%s cannot be read", path);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        off_t at = (off_t)(header.e_phoff + i * sizeof segment);

        if (pread(file, &segment, sizeof segment, at) != sizeof segment)
            fail_errno("%s ends within its headers", path);
        if (segment.p_type != PT_LOAD)
            continue;
        void *memory = memory_at(segment.p_paddr, segment.p_memsz);
        if (!memory)
            fail("%s does not fit into RAM", path);
        if (pread(file, memory, segment.p_filesz, (off_t)segment.p_offset) != (ssize_t)segment.p_filesz)
            fail_errno("%s ends within a segment", path);
    }
    close(file);
    return header.e_entry;
}

void load_file(const char *path, uint64_t address)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;

    if (file < 0 || fstat(file, &status))
        fail_errno("%s cannot be read", path);
    uint8_t *memory = memory_at(address, (uint64_t)status.st_size);
    if (!memory)
        fail("%s does not fit into RAM", path);
    for (off_t at = 0; at < status.st_size;) {
        ssize_t done = pread(file, memory + at, (size_t)(status.st_size - at), at);

        if (done <= 0)
            fail_errno("%s ends early", path);
        at += done;
    }
    close(file);
}

/* The device that an entry is of, the entry's own or the platform device; the entry is then as if that were a PCI device. */
static const struct device *owner(const struct device *device, struct install_entry *entry)
{
    if (entry->bar != PLAN_PLATFORM)
        return device;
    entry->bar = 0;
    entry->offset -= HYPERVISOR_PLATFORM;
    return &platform;
}

static int map_part(const struct device *device, const struct install_entry *entry)
{
    uint64_t size = entry->pages * PAGE;
    uint8_t *at;

    if (entry->memattr < BACKING_DEVICE || entry->memattr > BACKING_NONE || entry->bar >= BARS)
        return -1;
    if (entry->offset > device->sizes[entry->bar] || size > device->sizes[entry->bar] - entry->offset)
        return -1;
    int file = entry->memattr == BACKING_RESOURCE_WC ? device->write_combining[entry->bar] : device->bars[entry->bar];
    at = areas[device->number][entry->bar] + entry->offset;
    if (entry->memattr == BACKING_RAM || entry->memattr == BACKING_NONE) {
        void *done = mmap(at, size, entry->memattr == BACKING_RAM ? PROT_READ | PROT_WRITE : PROT_NONE,
                          MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return done == MAP_FAILED ? -1 : 0;
    }
    if (ask_mapping(at, size, file, device->offsets[entry->bar] + entry->offset, entry->ask))
        return -1;
    return ask_permission(vm, pci_bar(device, entry->bar) + entry->offset, size, entry->ask);
}

int map_piece(const struct device *device, const struct install_entry *entry)
{
    struct install_entry own = *entry;

    device = owner(device, &own);
    return map_part(device, &own);
}

int memory_grant(uint64_t address, uint64_t pages, int granted)
{
    for (unsigned i = 0; i < grant_count; i++)
        if (address >= grants[i].start && address < grants[i].end && pages <= (grants[i].end - address) / PAGE)
            return ask_grant(vm, address, pages * PAGE, granted);
    return -1;
}

static void clear_areas(const struct device *device)
{
    for (unsigned bar = 0; bar < BARS; bar++) {
        uint8_t **area = &areas[device->number][bar];

        if (!device->sizes[bar])
            continue;
        void *range = mmap((void *)HYPERVISOR_AREA(device->number, bar), device->sizes[bar], PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (range == MAP_FAILED)
            fail_errno("no address range for BAR %u", bar);
        *area = range;
    }
}

/* A memslot over part of a BAR. */
static int set_part(const struct device *device, unsigned bar, uint64_t start, uint64_t end, uint32_t flags)
{
    if (start >= end)
        return 0;
    if (slots == SLOTS) {
        errno = ENOSPC;
        return -1;
    }
    return set_slot(slots++, pci_bar(device, bar) + start, end - start, areas[device->number][bar] + start, flags);
}

/* A memslot over part of a BAR; two, or less, where the MSI-X table is in it. */
static int set_parts(const struct device *device, unsigned bar, uint64_t start, uint64_t end, uint32_t flags)
{
    uint64_t table, behind;

    msix_pages(device, bar, &table, &behind);
    if (behind <= start || table >= end)
        return set_part(device, bar, start, end, flags);
    return set_part(device, bar, start, table, flags) || set_part(device, bar, behind, end, flags);
}

void install(struct install_request *request)
{
    const struct install_entry *entries = memory_at(request->entries, request->count * sizeof *entries);
    const struct device *device = &devices[request->function];

    while (slots > 1)
        set_slot(--slots, 0, 0, NULL, 0);
    grant_count = 0;
    request->bad = 0;
    request->refusal = REFUSAL_LENGTH;
    if (!entries || request->function >= device_count)
        return;
    clear_areas(device);
    clear_areas(&platform);
    for (uint32_t i = 0; i < request->count; i++) {
        struct install_entry entry = entries[i];
        const struct device *of = owner(device, &entry);

        if (map_part(of, &entry)) {
            request->bad = i;
            request->refusal = REFUSAL_ENTRY;
            return;
        }
        uint64_t start = pci_bar(of, entry.bar) + entry.offset;
        if (entry.ask & ASK_WRITE_COMBINE && grant_count < SLOTS) {
            grants[grant_count].start = start;
            grants[grant_count++].end = start + entry.pages * PAGE;
        }
    }
    /* Entries that follow one another in a BAR are one memslot over several mappings, unless the slots' flags differ. */
    for (uint32_t i = 0, next; i < request->count; i = next) {
        struct install_entry first = entries[i];
        uint64_t size = first.pages * PAGE;

        for (next = i + 1; next < request->count; next++) {
            if (entries[next].bar != first.bar || entries[next].offset != first.offset + size ||
                ask_slot(entries[next].ask) != ask_slot(first.ask))
                break;
            size += entries[next].pages * PAGE;
        }
        const struct device *of = owner(device, &first);
        if (set_parts(of, first.bar, first.offset, first.offset + size, ask_slot(first.ask))) {
            request->bad = (uint32_t)errno;
            request->refusal = REFUSAL_MEMSLOT;
            return;
        }
    }
    request->refusal = REFUSAL_NONE;
}
