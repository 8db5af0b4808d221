/* What the guest asks its hypervisor for when it runs at EL1: registers in a page of MMIO that the VMM emulates. */
#ifndef HYPERVISOR_H
#define HYPERVISOR_H

#include <stdint.h>

#define HYPERVISOR_BASE 0x0b000000ull
#define HYPERVISOR_SIZE 0x1000ull

/* Registers, 8 bytes each. */
enum hypervisor_register {
    HYPERVISOR_INSTALL = 0x00,  /* write: the address of a struct install_request, whose answer is there afterwards */
    HYPERVISOR_DMA = 0x08,      /* write an address in RAM, then read by which one devices reach it */
    HYPERVISOR_PAUSE = 0x10,    /* write: microseconds to sleep */
    HYPERVISOR_WATCHDOG = 0x18, /* write: milliseconds until the instruction then running is given up; 0: never */
    HYPERVISOR_FAILED = 0x20,   /* write: the address where to go on after an instruction that could not be run */
    HYPERVISOR_REMAP = 0x28,    /* write: the address of a struct remap_request */
    HYPERVISOR_TRY = 0x30,      /* write an enum trial, then read the errno that KVM gave, 0 if none */
    HYPERVISOR_PRINT = 0x38,    /* write: the address of text for the console, which ends with a zero */
};

/* Bytes that a text for the console may have, with its zero. */
#define HYPERVISOR_LINE 256u

/* What the pages of an INSTALL are backed by: its field memattr. */
enum backing {
    BACKING_DEVICE = 1,      /* the device's BAR, mapped as vfio, or sysfs resourceN, maps it */
    BACKING_RAM = 2,         /* anonymous memory, in the BAR's place */
    BACKING_RESOURCE_WC = 3, /* sysfs resourceN_wc */
    BACKING_NONE = 4,        /* nothing: KVM cannot run the access */
};

/* Where the VMM has a device's BAR in its own address space, so that its translation tables can be read from outside. */
#define HYPERVISOR_AREA(device, bar) (0x1000000000ull + (device) * 0x1000000000ull + (bar) * 0x100000000ull)

/* Where the guest finds the platform device's registers: entries whose bar is PLAN_PLATFORM have offsets from 0. */
#define HYPERVISOR_PLATFORM 0x09010000ull

/* What the VMM asks the kernel to permit on the pages of an INSTALL, in the words that every scheme has some of: bits of
 * its field ask. How it asks (a flag of the memslot, of the mapping, an ioctl) is the scheme's. */
enum ask {
    ASK_WRITE_COMBINE = 1,
    ASK_SPECULATION = 2,
    ASK_CACHEABLE = 4,
};

/* In the scheme `trap` the guest asks by itself: HVC with this in x0, the address of a page, how many, and 1 for Normal
 * Non-cacheable, 0 for Device; the answer is in x0, 0 if it was granted. Others answer -1, that they know no such call. */
#define MEMORY_TYPE_CALL 0xc6000042ull

struct install_request {
    uint64_t entries; /* the address of count struct install_entry */
    uint32_t count;
    uint32_t refusal, bad; /* out: enum refusal, and which entry it is about */
    uint32_t function;     /* whose BARs: its device number on bus 0 */
};

/* Pages that are mapped anew, while the guest runs, as soon as a register in a BAR has a value. */
struct remap_request {
    uint64_t entries;         /* the address of count struct install_entry */
    uint64_t trigger;         /* the register's address */
    uint32_t count, function; /* whose BARs the entries are about */
    uint32_t value;           /* what is waited for */
    uint32_t done, failed;    /* what the VMM writes into the register when it is done, or when it could not */
    uint32_t reserved;
};

/* Memslots that KVM is asked to take in virtual machines of their own. */
enum trial {
    TRIAL_BAR,            /* over a mapping of a BAR */
    TRIAL_PIECES,         /* over several mappings, a BAR's and RAM's */
    TRIAL_LOGGED_BAR,     /* over a mapping of a BAR, with logging of dirty pages */
    TRIAL_LOGGED_RAM,
    TRIAL_TAGGED_BAR,     /* the same, in a virtual machine with MTE; ENOTSUP: KVM has none */
    TRIAL_TAGGED_RAM,
};

_Static_assert(sizeof(struct install_request) == 24, "install_request");
_Static_assert(sizeof(struct remap_request) == 40, "remap_request");

#endif
