/* What the parts of the VMM share: one virtual machine with one vCPU, and one PCI device given to it. */
#ifndef VMM_H
#define VMM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "hypervisor.h"
#include "plan.h"

#define BARS 6
#define PAGE 4096ull

/* The guest's RAM, in huge pages, so that each of its buffers is contiguous for the device. */
#define RAM_BASE 0x40000000ull
#define RAM_SIZE 0x01000000ull
#define HUGE_PAGE 0x200000ull

/* ioctl, whose second argument some C libraries have as an int. */
static inline int control(int file, unsigned long request, void *argument)
{
    return ioctl(file, (int)request, argument);
}

/* main.c */
extern const char *scheme; /* by its id, in whose way to ask for what an install_entry's field ask says; "": in none */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with what errno says. */
_Noreturn void fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* device.c: the device as vfio or sysfs gives it. */
struct device {
    int config, bars[BARS];        /* files; -1: none */
    uint64_t config_offset;        /* in its file */
    uint64_t offsets[BARS];        /* in theirs */
    uint64_t sizes[BARS];          /* 0: none, or no memory */
    uint32_t flags[BARS];          /* low bits of the BAR register: 64 bits, prefetchable */
    uint8_t *views[BARS];          /* the whole BAR, mapped for the VMM itself */
    int write_combining[BARS];     /* resourceN_wc; -1: none */
};
void vfio_open(struct device *device, const char *address);
/* Lets a device at this address reach the memory, which is contiguous there: by itself where there is no IOMMU. */
void vfio_allow(void *memory, uint64_t size, uint64_t address);
void sysfs_open(struct device *device, const char *address);
void device_view(struct device *device);
void device_config(const struct device *device, int write, unsigned offset, void *value, unsigned size);

/* pci.c: configuration space as the guest sees it, and where it placed the BARs. */
void pci_config(struct device *device, int write, uint64_t offset, void *value, unsigned size);
uint64_t pci_bar(unsigned bar); /* 0 until it is placed */

/* memory.c */
void memory_start(int vm);
void *memory_at(uint64_t address, uint64_t size); /* RAM; NULL if not all of it is */
uint64_t memory_dma(uint64_t address);
void memory_allow(void); /* all RAM to the device, by vfio */
uint64_t load_elf(const char *path);
void install(const struct device *device, struct install_request *request);
void uninstall(void);

/* failure.c: what KVM could not run. */
void failure_start(void);
uint64_t failure_esr(void); /* the ESR_EL2 that the kernel has logged since the last time; 0 if none */

#endif
