/* The guest's memory: RAM in huge pages whose physical addresses are known, the guest's image in it, and a memslot for
 * each contiguous run of BAR pages that the guest has asked for. */
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm.h"

#define SLOTS 32u
#define PFN ((1ull << 55) - 1) /* Documentation/admin-guide/mm/pagemap.rst */

static int vm;
static uint8_t *ram;
static uint64_t physical[RAM_SIZE / HUGE_PAGE];
static uint8_t *areas[BARS]; /* the VMM's address range for each BAR, as large as it */
static unsigned slots = 1;

static int set_slot(unsigned slot, uint64_t address, uint64_t size, void *memory)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot, .guest_phys_addr = address, .memory_size = size, .userspace_addr = (uintptr_t)memory,
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

void memory_start(int of)
{
    vm = of;
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    if (ram == MAP_FAILED)
        fail_errno("the kernel has no huge pages of 2 MiB");
    for (uint64_t at = 0; at < RAM_SIZE; at += HUGE_PAGE)
        physical[at / HUGE_PAGE] = physical_address(ram + at);
    if (set_slot(0, RAM_BASE, RAM_SIZE, ram))
        fail_errno("KVM does not take RAM");
}

void *memory_at(uint64_t address, uint64_t size)
{
    if (address < RAM_BASE || address - RAM_BASE > RAM_SIZE || size > RAM_SIZE - (address - RAM_BASE))
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
    for (uint64_t at = 0; at < RAM_SIZE; at += HUGE_PAGE)
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

void uninstall(void)
{
    while (slots > 1)
        set_slot(--slots, 0, 0, NULL);
}

/* Replaces pages of a BAR's area by what the entry says. */
static int map_piece(const struct device *device, const struct install_entry *entry)
{
    uint64_t size = entry->pages * PAGE;
    int file = entry->memattr == BACKING_RESOURCE_WC ? device->write_combining[entry->bar] : device->bars[entry->bar];
    void *at;

    if (entry->memattr < BACKING_DEVICE || entry->memattr > BACKING_RESOURCE_WC || entry->bar >= BARS)
        return -1;
    if (entry->offset > device->sizes[entry->bar] || size > device->sizes[entry->bar] - entry->offset)
        return -1;
    at = areas[entry->bar] + entry->offset;
    if (entry->memattr == BACKING_RAM)
        at = mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    else
        at = mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, file,
                  (off_t)(device->offsets[entry->bar] + entry->offset));
    return at == MAP_FAILED ? -1 : 0;
}

static void clear_areas(const struct device *device)
{
    for (unsigned bar = 0; bar < BARS; bar++) {
        if (!device->sizes[bar])
            continue;
        void *area = mmap(areas[bar], device->sizes[bar], PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | (areas[bar] ? MAP_FIXED : 0), -1, 0);
        if (area == MAP_FAILED)
            fail_errno("no address range for BAR %u", bar);
        areas[bar] = area;
    }
}

void install(const struct device *device, struct install_request *request)
{
    const struct install_entry *entries = memory_at(request->entries, request->count * sizeof *entries);

    uninstall();
    clear_areas(device);
    request->refusal = entries ? REFUSAL_NONE : REFUSAL_LENGTH;
    for (uint32_t i = 0; entries && i < request->count; i++) {
        request->bad = i;
        if (map_piece(device, &entries[i])) {
            request->refusal = REFUSAL_ENTRY;
            return;
        }
    }
    /* Entries that follow one another in a BAR are one memslot over several mappings. */
    for (uint32_t i = 0, next; entries && i < request->count; i = next) {
        const struct install_entry *first = &entries[i];
        uint64_t end = first->offset + first->pages * PAGE;

        for (next = i + 1; next < request->count; next++) {
            if (entries[next].bar != first->bar || entries[next].offset != end)
                break;
            end += entries[next].pages * PAGE;
        }
        uint64_t address = pci_bar(first->bar) + first->offset;
        if (slots == SLOTS || set_slot(slots++, address, end - first->offset, areas[first->bar] + first->offset)) {
            request->bad = i;
            request->refusal = REFUSAL_TABLES;
            return;
        }
    }
}
