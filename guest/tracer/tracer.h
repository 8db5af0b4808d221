/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-or-later */
/* What the parts of the tracer share. See guest/tracing.py for what it is for. */
#ifndef TRACER_H
#define TRACER_H

#include "event.h"
#include "qemu_api.h"

#define HCR_TGE (1ull << 27)
#define HCR_RW (1ull << 31)
#define PAGE 4096ull
#define PAGES 256 /* that a vCPU remembers */
#define WINDOWS 8
#define AHEAD 16 /* events: their lines come from the reader's cache, or from memory */
#define BARRIERS 81 /* kinds of them: five with sixteen options each, and DGH */

/* What an instruction does that matters here, by its encoding. */
enum action {
    DO_NOTHING,
    DO_ACCESS,      /* QEMU reports its accesses */
    DO_ZERO,        /* DC ZVA and its kin, tag accesses, MOPS: QEMU does not */
    DO_TAG,
    DO_MOPS,
    DO_BARRIER,
    DO_DGH,
    DO_DROP,        /* what is known of this vCPU's translations may be wrong after it */
    DO_DROP_ALL,    /* of all vCPUs' */
    DO_RETURN,      /* from an exception, perhaps to AArch32 state */
};

struct meaning {
    uint8_t action;
    uint8_t kind;    /* of the events; 0: QEMU says whether it loads or stores */
    uint8_t element; /* bytes, where the instruction has several in one access of QEMU's; 0: as it comes */
    uint8_t barrier; /* as in the event */
    uint16_t flags;
    uint8_t total; /* bytes, where QEMU may report several accesses of one execution; 0: one */
};

/* One instruction of translated code. */
struct site {
    uint64_t pc;
    uint32_t word;
    bool simple; /* one access of known kind that is one event, unless it crosses into another page */
    struct meaning meaning;
};

/* Where a physical address leads. */
struct place {
    uint64_t offset; /* in the BAR, in configuration space, or the physical address itself */
    uint16_t peripheral;
    uint8_t bar;
};

/* What the guest's translation tables say of an address. */
struct label {
    uint8_t stage1, stage2, type, known, el;
    bool fwb;
};

/* Virtual addresses that mean the same while `stamp` is the vCPU's: at most one page of them. */
struct page {
    uint64_t start, length, stamp;
    bool window; /* recorded; else ordinary memory */
    bool config; /* of the recorded: configuration space */
    struct event event; /* what all events here have in common; its offset is that of `start` */
};

/* Addresses from low up to, not including, high. */
struct extent {
    uint64_t low, high;
};

/* An instruction whose accesses QEMU does not report, from before it is executed until it is known what it did. */
struct hidden {
    bool pending;
    struct site site;
    struct extent to, from; /* what is left to do; from: of CPY* */
    uint8_t fill;
};

enum system_register {
    CPSR, SCTLR_EL1, TCR_EL1, TCR2_EL1, TTBR0_EL1, TTBR1_EL1, MAIR_EL1, SCTLR_EL2, TCR_EL2, TCR2_EL2, TTBR0_EL2,
    TTBR1_EL2, MAIR_EL2, HCR_EL2, VTCR_EL2, VTTBR_EL2, SPSR_EL1, SPSR_EL2, VBAR_EL2, SYSTEM_REGISTERS,
};

struct vcpu {
    uint64_t drops;
    uint64_t lost;  /* events since the last that found room */
    uint64_t limit; /* of the ring's head, as far as is known: there is room before it */
    uint32_t index;
    uint32_t barriers; /* how many there are below, */
    uint32_t told;     /* and of these already in the ring */
    bool all_dropped;  /* by a TLBI that no DSB has completed yet */
    bool aarch32;      /* it is in AArch32 state, */
    bool el1_aarch32;  /* and so would be its EL1 */
    uint8_t elements; /* events of the instruction that was recorded last, */
    uint8_t done;     /* and its bytes, if there may be more of it */
    const struct site *open;
    struct hidden hidden;
    GByteArray *buffer;
    struct qemu_plugin_register *x[32]; /* x[31] is SP */
    struct qemu_plugin_register *system[SYSTEM_REGISTERS];
    struct page pages[PAGES];
    /* Barriers since the last access that was recorded, each kind once, where it was seen last (eager: first). */
    const struct site *barrier[BARRIERS];
};

struct window {
    uint64_t base, size;
    bool config; /* configuration space (ECAM), not memory */
};

extern struct window windows[WINDOWS];
extern unsigned window_count;
extern struct vcpu *vcpus;
extern unsigned vcpu_count;
extern struct ring *ring;
extern bool eager; /* barriers are in the ring when they are executed, not when an access follows */

/* decode.c */
struct meaning decode(uint32_t word);
struct meaning decode_aarch32(uint32_t word, size_t size);
bool stores_operand(uint32_t word);

/* state.c */
void state_return(struct vcpu *vcpu);
void state_exception(struct vcpu *vcpu, uint64_t to);
bool translates_aarch32(void);

/* site.c */
struct site *site_new(uint64_t pc, uint32_t word, struct meaning meaning);
void sites_clear(void);

/* ring.c */
bool ring_open(const char *path);
void ring_lose(struct vcpu *vcpu);
struct event *ring_begin_slowly(struct vcpu *vcpu, uint64_t *sequence);

/* Where to write the next event, all but its number, before ring_end; or NULL: there is no room, and it is counted. */
static inline struct event *ring_begin(struct vcpu *vcpu, uint64_t *sequence)
{
    uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);

    if (head >= vcpu->limit || vcpu->lost)
        return ring_begin_slowly(vcpu, sequence);
    if (vcpu_count == 1)
        __atomic_store_n(&ring->head, head + 1, __ATOMIC_RELAXED);
    else if (!__atomic_compare_exchange_n(&ring->head, &head, head + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return ring_begin_slowly(vcpu, sequence);
    __builtin_prefetch(&ring->events[(head + AHEAD) & (ring->capacity - 1)], 1);
    *sequence = head + 1;
    return &ring->events[head & (ring->capacity - 1)];
}

static inline void ring_end(struct event *event, uint64_t sequence)
{
    __atomic_store_n(&event->sequence, sequence, __ATOMIC_RELEASE);
}

/* pages.c */
extern uint64_t all_drops;
void drop_all(void);
struct page *page_find(struct vcpu *vcpu, uint64_t address, const qemu_plugin_meminfo_t *info);

static inline uint64_t stamp(const struct vcpu *vcpu)
{
    return vcpu->drops + __atomic_load_n(&all_drops, __ATOMIC_RELAXED) + 1;
}

static inline bool page_holds(const struct vcpu *vcpu, const struct page *page, uint64_t address, uint64_t size)
{
    uint64_t in = address - page->start;

    return page->stamp == stamp(vcpu) && in < page->length && size <= page->length - in;
}

/* pci.c */
void pci_access(uint64_t offset, unsigned size, uint64_t value, bool write);
uint64_t pci_resolve(uint64_t physical, struct place *place);

/* walk.c */
void vcpu_registers(struct vcpu *vcpu);
uint64_t read_x(struct vcpu *vcpu, unsigned number);
uint64_t read_system(struct vcpu *vcpu, enum system_register which);
struct label label_of(struct vcpu *vcpu, uint64_t address, uint64_t physical);

/* record.c */
void record(struct vcpu *vcpu, const struct site *site, uint64_t address, const uint8_t *data, uint64_t size,
            uint8_t kind, uint16_t flags, const qemu_plugin_meminfo_t *info);
void tell_barriers(struct vcpu *vcpu);
void record_barriers(struct vcpu *vcpu);

/* access.c */
void on_access(unsigned index, qemu_plugin_meminfo_t info, uint64_t address, void *userdata);

/* hidden.c */
void hidden_begin(struct vcpu *vcpu, const struct site *site);
void hidden_settle(struct vcpu *vcpu);
void hidden_interrupted(struct vcpu *vcpu, uint64_t from, bool exception);
void hidden_give_up(struct vcpu *vcpu);

#endif
