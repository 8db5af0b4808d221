/* Memslots that KVM takes or refuses, each tried in a virtual machine of its own. */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm.h"

#define SIZE (4 * PAGE)

static int kvm;

void rules_start(int of)
{
    kvm = of;
}

/* RAM, or the first of the devices' BARs that is large enough over it. */
static int map(void *at, uint64_t size, int ram)
{
    const struct device *device = devices;
    unsigned bar = 0;

    while (bar < BARS && device->sizes[bar] < SIZE)
        bar++;
    if (bar == BARS)
        return ENODEV;
    void *done = ram ? mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                     : mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, device->bars[bar],
                            (off_t)device->offsets[bar]);
    return done == MAP_FAILED ? errno : 0;
}

static int ask(int vm, enum trial trial, void *area)
{
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = RAM_BASE, .memory_size = SIZE, .userspace_addr = (uintptr_t)area,
    };
    struct kvm_enable_cap tags = { .cap = KVM_CAP_ARM_MTE };
    int ram = trial == TRIAL_LOGGED_RAM || trial == TRIAL_TAGGED_RAM;
    int error = map(area, SIZE, ram);

    if (!error && trial == TRIAL_PIECES)
        error = map((uint8_t *)area + PAGE, PAGE, 1);
    if (error)
        return error;
    if (trial == TRIAL_LOGGED_BAR || trial == TRIAL_LOGGED_RAM)
        region.flags = KVM_MEM_LOG_DIRTY_PAGES;
    if ((trial == TRIAL_TAGGED_BAR || trial == TRIAL_TAGGED_RAM) && control(vm, KVM_ENABLE_CAP, &tags))
        return ENOTSUP;
    return control(vm, KVM_SET_USER_MEMORY_REGION, &region) ? errno : 0;
}

int try_slot(enum trial trial)
{
    int vm = control(kvm, KVM_CREATE_VM, NULL), error;
    void *area = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (vm < 0 || area == MAP_FAILED)
        fail_errno("there is no virtual machine to try a memslot in");
    error = ask(vm, trial, area);
    close(vm);
    munmap(area, SIZE);
    return error;
}
