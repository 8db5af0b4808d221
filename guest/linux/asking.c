/* What the guest wants asked of the kernel, asked in the way of the scheme: by a flag of the mapping, of the memslot, or by
 * permissions, page by page. The interfaces are those of guest/linux/patches; no released kernel has them. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "vmm.h"

#define MAP_WRITECOMBINE 0x200000 /* with MAP_SHARED_VALIDATE */
#define MAP_CACHEABLE 0x400000
#define SLOT_NORMAL_NC (1u << 3)  /* KVM_MEM_NORMAL_NC */
#define ATTRIBUTE_WC (1ull << 4)  /* KVM_MEMORY_ATTRIBUTE_WC */
#define ATTRIBUTE_SPECULATE (1ull << 5)
#define SET_ATTRIBUTES _IOW(0xae, 0xd2, struct attributes) /* KVM_SET_MEMORY_ATTRIBUTES */

struct attributes {
    uint64_t address, size, attributes, flags;
};

static int is(const char *name)
{
    return !strcmp(scheme, name);
}

static void *map(void *at, uint64_t size, int flags, int file, uint64_t offset)
{
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | flags, file, (off_t)offset);
}

int ask_mapping(uint8_t *at, uint64_t size, int file, uint64_t offset, uint32_t ask)
{
    uint64_t half = size / PAGE / 2 * PAGE;

    if (ask & (ASK_WRITE_COMBINE | ASK_CACHEABLE) && (is("mmap-writecombine") || is("mmap-writecombine-vetted"))) {
        int flags = MAP_SHARED_VALIDATE | (ask & ASK_CACHEABLE ? MAP_CACHEABLE : MAP_WRITECOMBINE);

        if (map(at, size, flags, file, offset) != MAP_FAILED)
            return 0;
        if (errno != EPERM && errno != EOPNOTSUPP)
            return -1;
        /* A veto of the driver's, or one that cannot follow: the pages are mapped as if nothing had been asked. */
    }
    if (map(at, size, MAP_SHARED, file, offset) != MAP_FAILED)
        return 0;
    /* A driver that describes pages refuses a mapping of pages that differ: where they do, the VMM finds by trying. */
    if (errno != EINVAL || !half || !is("vfio-descriptor"))
        return -1;
    return ask_mapping(at, half, file, offset, ask) || ask_mapping(at + half, size - half, file, offset + half, ask);
}

uint32_t ask_slot(uint32_t ask)
{
    return ask & ASK_WRITE_COMBINE && is("vmm-opt-in") ? SLOT_NORMAL_NC : 0;
}

static int permit(int vm, uint64_t address, uint64_t size, uint64_t attributes)
{
    struct attributes request = { address, size, attributes, 0 };

    return control(vm, SET_ATTRIBUTES, &request);
}

int ask_permission(int vm, uint64_t address, uint64_t size, uint32_t ask)
{
    if (is("trap")) /* nothing until the guest asks */
        return permit(vm, address, size, 0);
    if (!is("permit-wc"))
        return 0;
    return permit(vm, address, size,
                  (ask & ASK_WRITE_COMBINE ? ATTRIBUTE_WC : 0) | (ask & ASK_SPECULATION ? ATTRIBUTE_SPECULATE : 0));
}

int ask_grant(int vm, uint64_t address, uint64_t size, int granted)
{
    return permit(vm, address, size, granted ? ATTRIBUTE_WC | ATTRIBUTE_SPECULATE : 0);
}
