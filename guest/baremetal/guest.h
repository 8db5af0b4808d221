/* What the parts of the guest share. All of it runs at HOME_EL, except where a comment says otherwise: at EL2 as its own
 * hypervisor, or at EL1 in a virtual machine (of KVM's), where another one does what stage2.c and timer.c do. At EL0 it is a
 * process of a Linux guest, whose part is linux/process.c. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

#include "plan.h"

#define GIB (1ull << 30)
#define PAGE 4096ull

/* The machine `virt`: RAM, its first GiB below which all MMIO lies, and the area that scripts may write. */
#define RAM_BASE 0x40000000ull
#define RAM_SIZE 0x10000000ull
#if HOME_EL == 2
#define SCRATCH_BASE 0x48000000ull
#define SCRATCH_SIZE 0x01000000ull
#else
#define SCRATCH_BASE 0x40e00000ull
#define SCRATCH_SIZE 0x00200000ull
#endif

/* Exit codes, given to the host by semihosting where it is on. */
enum exit_code { EXIT_OK, EXIT_PANIC = 3, EXIT_NO_TRANSPORT = 4, EXIT_TRANSPORT = 5, EXIT_NOT_EL2 = 6 };

#define STRING_OF(name) #name
#define STRING(name) STRING_OF(name)
#define read_sysreg(name)                                          \
    ({                                                             \
        uint64_t value_;                                           \
        __asm__ volatile("mrs %0, " STRING(name) : "=r"(value_)::"memory"); \
        value_;                                                    \
    })
#if HOME_EL == 2
#define HOME(name) name##_el2
#else
#define HOME(name) name##_el1
#endif
#define write_sysreg(name, value) __asm__ volatile("msr " STRING(name) ", %0" ::"r"((uint64_t)(value)) : "memory")

/* console.c */
void print(const char *format, ...) __attribute__((format(printf, 1, 2))); /* %s %u %x %lx %c %% only */
_Noreturn void leave(enum exit_code code);
_Noreturn void fail(enum exit_code code, const char *message);

/* start.S */

/* One excursion: the code at pc runs at the exception level of spsr until its first exception, which comes back here.
 * Code that ends as intended ends with SVC. */
struct call {
    uint64_t pc, spsr, x[3], warm[2];  /* in; warm: x29 and x30 */
    uint64_t esr, far, elr, from_spsr; /* out: of the level that took the exception */
    uint64_t level, vector;            /* out: 1 or 2, and the vector's number (offset / 0x80) */
};
void enter(struct call *call);
_Noreturn void psci_off(void);

/* EL0t, EL1h or EL2h with D, A and F masked. IRQs are the watchdog's. */
#define SPSR_EL(el) (0x340u | ((el) == 0 ? 0u : (unsigned)(el) << 2 | 1u))
#define SPSR_NO_IRQ 0x80u
#define EL_OF_SPSR(spsr) ((unsigned)((spsr) >> 2 & 3))
#define EC_OF(esr) ((unsigned)((esr) >> 26 & 0x3f))
#define EC_UNKNOWN 0x00
#define EC_FP 0x07
#define EC_LS64 0x0a
#define EC_SVC 0x15
#define EC_SYSREG 0x18
#define EC_IABT_LOWER 0x20
#define EC_IABT_SAME 0x21
#define EC_DABT_LOWER 0x24
#define EC_DABT_SAME 0x25

/* panic.c */
_Noreturn void unexpected(const struct call *call, const char *what);

/* Accesses that may fault: 0, or the ESR of the fault. Size 1, 2, 4 or 8, address aligned to it. */
uint64_t guarded_read(uint64_t address, unsigned size, uint64_t *value);
uint64_t guarded_write(uint64_t address, unsigned size, uint64_t value);
/* -1 if semihosting is off. */
int64_t semihost(uint64_t operation, const void *arguments);

/* Accesses that must not fault (a fault is a panic). */
static inline uint32_t read32(uint64_t address)
{
    uint32_t value;
    __asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(address) : "memory");
    return value;
}

static inline void write32(uint64_t address, uint32_t value)
{
    __asm__ volatile("str %w0, [%1]" ::"r"(value), "r"(address) : "memory");
}

/* timer.c, or hypervisor.c */
void timer_start(void);
int timer_available(void);
void watchdog_arm(uint32_t milliseconds); /* an excursion that is still going on then is a panic */
void watchdog_off(void);
void sleep_for(uint32_t microseconds);

/* interrupt.c */
int interrupt_wait(uint32_t microseconds, uint64_t *number); /* 1: it came and was acknowledged */

/* mmu.c: stage 1 of EL1 and EL0 */
void stage1_start(void);
uint64_t mair(void);
uint64_t physical_range(void);
void tlbi_guest(void); /* every EL1&0 entry */
#define GUEST_WINDOW(s1) (((uint64_t)(s1) + 1) << 32)
#define HOST_WINDOW (9ull << 32)
#define CODE_WINDOW (10ull << 32) /* Normal-NC, for instructions of EL1 */
extern uint32_t mistakes; /* the INSTALL_* bits of ways to go wrong */

/* stage2.c, or hypervisor.c */
void mmu_start(void);
enum refusal mmu_install(const struct install_entry *entries, uint32_t count, uint32_t argument, uint32_t *bad);
void mmu_context(struct context *context);
void tlbi_host(void); /* every EL2 entry */
uint64_t dma_address(const void *buffer); /* by which a device reaches it */
void hypervisor_print(const char *text); /* hypervisor.c */

/* main.c: after start.S, or the process's own beginning. */
_Noreturn void guest_main(void);

/* linux/process.c: where a driver of Linux's has mapped the probe; 0 if none has. */
extern uint64_t driver_mapping;

/* pci.c */
extern uint64_t ecam;
extern struct function functions[32];
extern uint32_t function_count;
extern int under_test; /* index in functions, or -1 */
void pci_start(void);
int pci_find(uint16_t vendor, uint16_t device);
/* The physical address of a place in a BAR of the device under test, or of the platform range; 0 if there is none,
 * or if the length bytes there are not all inside. */
uint64_t place(uint8_t bar, uint64_t offset, uint64_t length);

/* mailbox.c, files.c: where messages come from and answers go to. */
#define BUFFER_SIZE (1u << 20)
extern uint8_t buffers[2][BUFFER_SIZE];
struct transport {
    uint32_t (*fetch)(void *buffer);                 /* the next message's length; 0 when there will be no more */
    void (*submit)(const void *buffer, uint32_t length);
};
const struct transport *mailbox_open(void);
const struct transport *files_open(void);
void mailbox_mark(uint32_t mark);

/* run.c, script.c, workload.c: the answer's body; its length is returned. */
uint32_t run(const struct run_entry *entries, uint32_t count, void *answer);
uint32_t script(const struct step *steps, uint32_t count, struct outcome *outcomes);
uint32_t workload(const struct workload *workload, struct pushed *pushed);

/* RAM that EL1 and EL0 may write, too. */
#define SHARED __attribute__((section(".shared"), aligned(64)))

#endif
