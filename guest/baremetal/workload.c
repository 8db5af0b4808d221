/* WORKLOAD: a poll-mode driver's push loop, at EL1 (a kernel driver) or EL0 (a DPDK process). */
#include "guest.h"
#include "hypervisor.h"

#define WORDS 8
#define PUSH __attribute__((section(".push"), noinline))

struct push {
    uint64_t window, doorbell, pages_at, pages;
    uint32_t count, slots, stride, first;
    uint32_t idiom, barrier, wish, wish_at;
    volatile uint32_t pushed;
    uint64_t entry[WORDS] __attribute__((aligned(64)));
};

static SHARED struct push push;

extern char stub_push[], push_start[], push_end[];

void push_loop(struct push *p);

/* One entry, as guest/workload.py describes it. Here and below: code that runs at EL1 or EL0. */
static inline __attribute__((always_inline)) void fill(struct push *p, uint32_t sequence)
{
    uint64_t checksum;

    p->entry[0] = sequence | (uint64_t)~sequence << 32;
    checksum = p->entry[0];
    for (unsigned w = 0; w < 6; w++) {
        p->entry[1 + w] = (sequence + 1ull) * 0x9e3779b97f4a7c15ull + w;
        checksum ^= p->entry[1 + w];
    }
    p->entry[7] = checksum;
}

static inline __attribute__((always_inline)) void copy(uint64_t to, const uint64_t *from, uint32_t idiom)
{
    switch (idiom) {
    case IDIOM_IOWRITE64:
        for (unsigned i = 0; i < WORDS; i++)
            __asm__ volatile("str %0, [%1]" ::"r"(from[i]), "r"(to + 8 * i) : "memory");
        __asm__ volatile("hint #6" ::: "memory");
        break;
    case IDIOM_IOWRITE32:
        for (unsigned i = 0; i < 2 * WORDS; i++)
            __asm__ volatile("str %w0, [%1]" ::"r"(from[i / 2] >> 32 * (i % 2)), "r"(to + 4 * i) : "memory");
        __asm__ volatile("hint #6" ::: "memory");
        break;
    case IDIOM_ST1:
        __asm__ volatile("ld1 {v0.16b-v3.16b}, [%0]; st1 {v0.16b-v3.16b}, [%1]" ::"r"(from), "r"(to) : "memory");
        break;
    case IDIOM_STP:
        for (unsigned i = 0; i < WORDS; i += 2)
            __asm__ volatile("stp %0, %1, [%2]" ::"r"(from[i]), "r"(from[i + 1]), "r"(to + 8 * i) : "memory");
        break;
    default:
        __asm__ volatile("ldr q0, [%0]; str q0, [%1]; ldur q0, [%0, #13]; stur q0, [%1, #13];"
                         "ldur q0, [%0, #29]; stur q0, [%1, #29]; ldur q0, [%0, #45]; stur q0, [%1, #45];"
                         "ldr q0, [%0, #48]; str q0, [%1, #48]" ::"r"(from), "r"(to) : "memory");
    }
}

/* As mmu_install() does; whether it was granted. */
static inline __attribute__((always_inline)) int ask_for_pages(const struct push *p)
{
    register uint64_t x0 __asm__("x0") = MEMORY_TYPE_CALL;
    register uint64_t x1 __asm__("x1") = p->pages_at;
    register uint64_t x2 __asm__("x2") = p->pages;
    register uint64_t x3 __asm__("x3") = p->wish == WISH_NORMAL;

    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)::"memory");
    return x0 == 0;
}

/* It ends early when a wish is not granted. */
PUSH void push_loop(struct push *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t sequence = p->first + i;

        if (p->wish != WISH_NONE && i == p->wish_at && !ask_for_pages(p))
            return;
        fill(p, sequence);
        copy(p->window + (uint64_t)(sequence % p->slots) * p->stride, p->entry, p->idiom);
        if (p->barrier == BARRIER_DMB)
            __asm__ volatile("dmb oshst" ::: "memory");
        else if (p->barrier == BARRIER_DSB)
            __asm__ volatile("dsb st" ::: "memory");
        else if (p->barrier == BARRIER_DGH)
            __asm__ volatile("hint #6" ::: "memory");
        write32(p->doorbell, sequence + 1);
        p->pushed = i + 1;
    }
}

uint32_t workload(const struct workload *w, struct pushed *pushed)
{
    struct call call = { .pc = (uint64_t)stub_push, .spsr = SPSR_EL(w->el), .x = { (uint64_t)&push } };
    uint64_t window = place(w->window_bar, w->window_offset, (uint64_t)w->slots * w->stride);
    uint64_t doorbell = place(w->doorbell_bar, w->doorbell_offset, 4), start;

    *pushed = (struct pushed){ .status = STATUS_BAD_ENTRY };
    if (!window || !doorbell || !w->slots || w->el > 1 || w->window_s1 > 7 || w->doorbell_s1 > 7)
        return sizeof *pushed;
    push.window = GUEST_WINDOW(w->window_s1) + window;
    push.doorbell = GUEST_WINDOW(w->doorbell_s1) + doorbell;
    push.count = w->count;
    push.slots = w->slots;
    push.stride = w->stride;
    push.first = w->first;
    push.idiom = w->idiom;
    push.barrier = w->barrier;
    push.wish = w->wish;
    push.wish_at = w->wish_at;
    push.pages_at = window;
    push.pages = ((uint64_t)w->slots * w->stride + 4095) / 4096;
    push.pushed = 0;
    start = read_sysreg(cntvct_el0);
    watchdog_arm(30000 + (w->count < 100000 ? w->count : 100000) * 10);
    enter(&call);
    watchdog_off();
    *pushed = (struct pushed){
        .pushed = push.pushed,
        .ran_at = (uint16_t)EL_OF_SPSR(call.from_spsr),
        .ticks = read_sysreg(cntvct_el0) - start,
    };
    int synchronous = call.vector == 4 || call.vector == 8;
    if (synchronous && EC_OF(call.esr) == EC_SVC)
        return sizeof *pushed;
    int not_run = HOME_EL == 1 && call.level == 2; /* by a hypervisor that may know no syndrome */
    if (!synchronous || call.elr < (uint64_t)push_start || call.elr >= (uint64_t)push_end ||
        (EC_OF(call.esr) != EC_DABT_LOWER && EC_OF(call.esr) != EC_DABT_SAME && !not_run))
        unexpected(&call, call.vector % 4 == 1 ? "the push loop does not end" : "exception in the push loop");
    pushed->status = STATUS_FAULT;
    pushed->level = (uint8_t)call.level;
    pushed->esr = call.esr;
    pushed->far = call.far;
    return sizeof *pushed;
}
