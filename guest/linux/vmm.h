/* What the parts of the VMM share: one virtual machine with one vCPU, and the PCI devices given to it. */
#ifndef VMM_H
#define VMM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "hypervisor.h"
#include "plan.h"

#define BARS 6
#define DEVICES 4u
#define VECTORS 64u /* of one device, at most */
#define PAGE 4096ull

/* The guest's RAM, in huge pages, so that each of its buffers is contiguous for the device. */
#define RAM_BASE 0x40000000ull
#define RAM_SIZE 0x01000000ull
#define LINUX_RAM_SIZE 0x08000000ull
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

/* device.c: a device as vfio or sysfs gives it. */
struct vector {
    uint64_t address;       /* as the guest wrote them */
    uint32_t data, control;
    int event, attached;    /* its eventfd, and whether KVM listens to it */
};
struct device {
    unsigned number;               /* on its bus, in the guest */
    int file;                      /* vfio's; -1: none */
    int config, bars[BARS];        /* files; -1: none */
    uint64_t config_offset;        /* in its file */
    uint64_t offsets[BARS];        /* in theirs */
    uint64_t sizes[BARS];          /* 0: none, or no memory */
    uint32_t flags[BARS];          /* low bits of the BAR register: 64 bits, prefetchable */
    uint32_t registers[BARS];      /* the BAR registers as the guest wrote them */
    uint8_t *views[BARS];          /* the whole BAR, mapped for the VMM itself */
    int write_combining[BARS];     /* resourceN_wc; -1: none */
    unsigned msix, vector_count;   /* the capability's offset, 0: none */
    unsigned table_bar;
    uint32_t table;
    int enabled, masked;           /* MSI-X as a whole */
    struct vector vectors[VECTORS];
};
extern struct device devices[DEVICES];
extern unsigned device_count;
/* One that is no PCI device: its registers are BAR 0, which is where HYPERVISOR_PLATFORM says. */
extern struct device platform;
void vfio_open(struct device *device, const char *address);
void vfio_open_platform(struct device *device, const char *name);
/* Lets a device at this address reach the memory, which is contiguous there: by itself where there is no IOMMU. */
void vfio_allow(void *memory, uint64_t size, uint64_t address);
void sysfs_open(struct device *device, const char *address);
void device_view(struct device *device);
void device_config(const struct device *device, int write, unsigned offset, void *value, unsigned size);

/* pci.c: configuration space as the guest sees it, and where it placed the BARs. */
void pci_config(int write, uint64_t offset, void *value, unsigned size);
uint64_t pci_bar(const struct device *device, unsigned bar); /* 0 until it is placed */
/* The device whose BAR is at this address, and where in it; NULL if none is. */
struct device *pci_find(uint64_t address, unsigned *bar, uint64_t *offset);

/* msix.c: MSI-X as the guest sees it; each vector is an eventfd of vfio's that KVM injects by itself. */
void msix_start(struct device *device);
void msix_config(struct device *device, int write, unsigned offset, void *value, unsigned size);
int msix_table(struct device *device, unsigned bar, uint64_t offset, int write, unsigned size, uint64_t *value);
/* The pages of the BAR that hold the table, which no memslot may have: start and end, both 0 if there are none. */
void msix_pages(const struct device *device, unsigned bar, uint64_t *start, uint64_t *end);

/* vgic.c: KVM's GICv3 with an ITS. */
void vgic_create(int vm);
void vgic_start(void);
void vgic_route(void); /* after a vector has changed */

/* memory.c */
void memory_start(int vm, uint64_t size);
void *memory_at(uint64_t address, uint64_t size); /* RAM; NULL if not all of it is */
uint64_t memory_dma(uint64_t address);
void memory_allow(void); /* all RAM to the devices, by vfio */
uint64_t load_elf(const char *path);
void load_file(const char *path, uint64_t address);
void install(struct install_request *request);

/* The guest asks for pages of a BAR to be Normal Non-cacheable, or Device again: 0 if it may, -1 if not. */
int memory_grant(uint64_t address, uint64_t pages, int granted);

/* asking.c: what an install_entry's field ask says, asked of the kernel in the scheme's way; 0, or -1 with errno. */
int ask_mapping(uint8_t *at, uint64_t size, int file, uint64_t offset, uint32_t ask);
uint32_t ask_slot(uint32_t ask); /* flags of a memslot */
int ask_permission(int vm, uint64_t address, uint64_t size, uint32_t ask);
int ask_grant(int vm, uint64_t address, uint64_t size, int granted);

/* remap.c: pages of a BAR mapped anew while the guest runs. */
void remap(struct remap_request *request);
/* memory.c: one entry of either request; 0, or -1 when the device has no such pages. */
int map_piece(const struct device *device, const struct install_entry *entry);

/* rules.c: what KVM says of a memslot; an errno, 0 if it takes it. */
void rules_start(int kvm);
int try_slot(enum trial trial);

/* bus.c: what the guest did outside of its memslots. */
void bus_access(uint64_t address, int write, unsigned size, uint64_t *value);

/* vcpu.c */
enum image { IMAGE_GUEST, IMAGE_LINUX }; /* the bare-metal guest, or a Linux */
void vcpu_start(enum image image);
void vcpu_watch(uint64_t milliseconds);   /* until the instruction then running is given up; 0: never */
void vcpu_recover(uint64_t address);      /* where the guest goes on after that, and after what could not be run */
void vcpu_run(void);                      /* until the guest turns itself off */

/* failure.c: what KVM could not run. */
void failure_start(void);
uint64_t failure_esr(void); /* the ESR_EL2 that the kernel has logged since the last time; 0 if none */

#endif
