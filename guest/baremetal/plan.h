/* The messages between host and guest: the C side of guest/plan.py, hello.py, script.py and workload.py. */
#ifndef PLAN_H
#define PLAN_H

#include <stdint.h>

#define PLAN_MAGIC 0x4e414c50u
#define PLAN_VERSION 1
#define PLAN_PLATFORM 0xff
#define PLAN_REVISION 1

enum command { COMMAND_INSTALL = 1, COMMAND_RUN, COMMAND_WORKLOAD, COMMAND_SCRIPT, COMMAND_HELLO, COMMAND_OFF };

enum refusal {
    REFUSAL_NONE,
    REFUSAL_FORMAT,
    REFUSAL_COMMAND,
    REFUSAL_LENGTH,
    REFUSAL_ENTRY,
    REFUSAL_NO_FWB,
    REFUSAL_TABLES,
    REFUSAL_NO_DEVICE,
    REFUSAL_MEMSLOT,
};

enum status { STATUS_DONE, STATUS_FAULT, STATUS_UNDEFINED, STATUS_BAD_ENTRY };

/* The argument of INSTALL: FWB, and ways to go wrong on purpose. */
#define INSTALL_FWB (1u << 0)
#define INSTALL_WRONG_MAIR (1u << 8)
#define INSTALL_SKIP_TLBI (1u << 9)
#define INSTALL_EL1_AT_EL2 (1u << 10)

#define RUN_WARM 1
#define RUN_SKIP_TLBI 2
#define RUN_UNMARKED 4

#define RESULT_WARM 4
#define RESULT_TLBI 8
#define RESULT_IN_WARM_UP 16

struct header {
    uint32_t magic;
    uint16_t command, version;
    uint32_t count, argument;
};

struct install_entry {
    uint8_t bar, memattr, host, valid;
    uint32_t pages;
    uint64_t offset;
    uint32_t ask; /* enum ask of hypervisor.h, for a hypervisor that is not the guest itself */
    uint32_t reserved;
};

struct context {
    uint64_t mair_el1, mair_el2, hcr_el2, vtcr_el2, tcr_el1, sctlr_el1, sctlr_el2, current_el;
};

struct run_entry {
    uint32_t mark;
    uint16_t op;
    uint8_t el, s1, flags, bar, bar2, s1_2;
    uint32_t offset2;
    uint64_t offset;
};

struct result {
    uint32_t mark;
    uint8_t status, level;
    uint16_t flags;
    uint64_t esr, far, value[2];
};

enum action { ACTION_READ, ACTION_WRITE, ACTION_WAIT, ACTION_INTERRUPT, ACTION_EXECUTE };
enum space { SPACE_CONFIG, SPACE_MMIO, SPACE_RAM };
enum step_status { STEP_DONE, STEP_FAULT, STEP_TIMEOUT, STEP_BAD };

struct step {
    uint8_t action, size, space, reserved;
    uint32_t timeout_us;
    uint64_t address, value, mask;
};

struct outcome {
    uint32_t status, esr;
    uint64_t value;
};

enum idiom { IDIOM_IOWRITE64, IDIOM_IOWRITE32, IDIOM_ST1, IDIOM_STP, IDIOM_MEMCPY };
enum barrier { BARRIER_NONE, BARRIER_DMB, BARRIER_DSB, BARRIER_DGH };
enum wish { WISH_NONE, WISH_DEVICE, WISH_NORMAL };

struct workload {
    uint8_t el, idiom, barrier, window_s1, window_bar, doorbell_s1, doorbell_bar;
    uint8_t wish; /* what the guest asks for the window's pages from its hypervisor, before the entry wish_at */
    uint64_t window_offset, doorbell_offset;
    uint32_t count, slots, stride, first, wish_at, reserved;
};

struct pushed {
    uint32_t pushed;
    uint8_t status, level;
    uint16_t ran_at;
    uint64_t esr, far, ticks;
};

struct hello {
    uint64_t midr, mmfr0, mmfr1, mmfr2, pfr0, pfr1, isar0, isar1, isar2, ctr, dczid, counter_hz;
    uint64_t scratch, scratch_size;
    uint32_t under_test, revision;
    uint64_t mapping; /* where a driver of the guest's has mapped the device under test; 0: none has */
};

struct function {
    uint16_t vendor, device;
    uint32_t class_code, address, reserved;
    uint64_t bars[6], sizes[6];
};

_Static_assert(sizeof(struct header) == 16, "header");
_Static_assert(sizeof(struct install_entry) == 24, "install_entry");
_Static_assert(sizeof(struct context) == 64, "context");
_Static_assert(sizeof(struct run_entry) == 24, "run_entry");
_Static_assert(sizeof(struct result) == 40, "result");
_Static_assert(sizeof(struct step) == 32, "step");
_Static_assert(sizeof(struct outcome) == 16, "outcome");
_Static_assert(sizeof(struct workload) == 48, "workload");
_Static_assert(sizeof(struct pushed) == 32, "pushed");
_Static_assert(sizeof(struct hello) == 128, "hello");
_Static_assert(sizeof(struct function) == 112, "function");

#endif
