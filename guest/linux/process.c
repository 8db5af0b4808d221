/* The first process of a Linux that is itself a guest of the VMM: does what the bare-metal guest does, at EL0, on the BARs as
 * sysfs maps them: resourceN is Device-nGnRE, resourceN_wc Normal Non-cacheable. It stands in for start.S, mmu.c, pci.c and
 * hypervisor.c; a signal is what an exception is there. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "guest.h"
#include "hypervisor.h"

#define APART (16ull << 30)
#define PFN ((1ull << 55) - 1)      /* Documentation/admin-guide/mm/pagemap.rst */

uint32_t mistakes;

static volatile uint8_t *apart; /* an address range, of which the first and the last page are used */
static volatile uint64_t *hypervisor;
static uint64_t buffers_at; /* the guest's physical address of buffers */
static sigjmp_buf back;
static struct call *running;

void print(const char *format, ...)
{
    char text[512];
    va_list list;
    int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

    va_start(list, format);
    int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (log >= 0 && write(log, text, (size_t)length) < 0)
        close(log);
    close(log);
}

_Noreturn void leave(enum exit_code code)
{
    (void)code;
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

_Noreturn void fail(enum exit_code code, const char *message)
{
    print("<2>pyvfio-user process: FAILED: %s: %s\n", message, strerror(errno));
    leave(code);
}

_Noreturn void unexpected(const struct call *call, const char *what)
{
    print("<2>pyvfio-user process: FAILED: %s: ESR %llx at %llx, FAR %llx\n", what, (unsigned long long)call->esr,
          (unsigned long long)call->elr, (unsigned long long)call->far);
    leave(EXIT_PANIC);
}

/* Accesses, and what ends them. */

static uint64_t syndrome(const ucontext_t *context)
{
    const uint8_t *at = (const uint8_t *)context->uc_mcontext.__reserved;
    struct esr_context record = { 0 };

    for (unsigned records = 0; records < 16; records++, at += record.head.size) {
        memcpy(&record, at, sizeof record);
        if (!record.head.magic || record.head.magic == ESR_MAGIC)
            break;
    }
    return record.head.magic == ESR_MAGIC ? record.esr : 0;
}

/* ESR's upper half, which is zero, has the signal and its code. */
static void on_signal(int number, siginfo_t *info, void *argument)
{
    const ucontext_t *context = argument;
    struct call *call = running;

    if (!call)
        fail(EXIT_PANIC, strsignal(number));
    call->elr = context->uc_mcontext.pc;
    call->from_spsr = context->uc_mcontext.pstate;
    call->far = context->uc_mcontext.fault_address;
    call->level = 1;
    call->vector = number == SIGALRM ? 9 : 8;
    call->esr = syndrome(context) | (uint64_t)((unsigned)number << 8 | (uint8_t)info->si_code) << 32;
    if (number == SIGTRAP) { /* the operation's end: as if by SVC */
        call->elr += 4;
        call->esr = (uint64_t)EC_SVC << 26;
    }
    siglongjmp(back, 1);
}

_Noreturn void go(struct call *call);
__asm__(".text\n"
        "go: ldr x4, [x0]\n"
        "ldp x29, x30, [x0, #40]\n"
        "ldr x2, [x0, #32]\n"
        "ldp x0, x1, [x0, #16]\n"
        "br x4\n");

void enter(struct call *call)
{
    running = call;
    if (!sigsetjmp(back, 1))
        go(call);
    running = NULL;
}

static void access_one(uint64_t address, unsigned size, int write, uint64_t *value)
{
#define ONE(type)                               \
    if (write)                                  \
        *(volatile type *)address = (type)*value; \
    else                                        \
        *value = *(volatile type *)address
    if (size == 1) {
        ONE(uint8_t);
    } else if (size == 2) {
        ONE(uint16_t);
    } else if (size == 4) {
        ONE(uint32_t);
    } else {
        ONE(uint64_t);
    }
}

static uint64_t guarded(uint64_t address, unsigned size, int write, uint64_t *value)
{
    struct call call = { 0 };

    running = &call;
    if (!sigsetjmp(back, 1))
        access_one(address, size, write, value);
    running = NULL;
    return call.esr;
}

uint64_t guarded_read(uint64_t address, unsigned size, uint64_t *value)
{
    *value = 0;
    return guarded(address, size, 0, value);
}

uint64_t guarded_write(uint64_t address, unsigned size, uint64_t value)
{
    return guarded(address, size, 1, &value);
}

/* The clock. */

void timer_start(void)
{
    static const int numbers[] = { SIGBUS, SIGSEGV, SIGILL, SIGTRAP, SIGALRM };
    struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
}

void watchdog_arm(uint32_t milliseconds)
{
    struct itimerval timer = { .it_value = { (time_t)(milliseconds / 1000), (suseconds_t)(milliseconds % 1000 * 1000) } };

    setitimer(ITIMER_REAL, &timer, NULL);
}

void watchdog_off(void)
{
    watchdog_arm(0);
}

void sleep_for(uint32_t microseconds)
{
    usleep(microseconds);
}

int interrupt_wait(uint32_t microseconds, uint64_t *number)
{
    (void)microseconds;
    *number = 0;
    return 0; /* interrupts are Linux' own */
}

/* Memory. */

/* Empties the TLB of this process. Linux does that when it takes away pages so far apart that it cannot name them one by one,
 * not even by ranges (8 GiB). To change the BARs' own mappings would have their next stores fault in Linux first. */
void tlbi_guest(void)
{
    apart[0] = apart[APART - 1] = 1;
    if (madvise((void *)apart, APART, MADV_DONTNEED))
        fail(EXIT_PANIC, "pages cannot be given back");
}

void tlbi_host(void)
{
}

void mmu_start(void)
{
    uint64_t entry = 0;
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int memory = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
    void *page = mmap(NULL, HYPERVISOR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, (off_t)HYPERVISOR_BASE);
    const int huge = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE;

    void *range = mmap(NULL, APART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (range == MAP_FAILED)
        fail(EXIT_TRANSPORT, "there is no address range of 16 GiB");
    apart = range;
    if (page == MAP_FAILED)
        fail(EXIT_TRANSPORT, "the VMM's registers cannot be mapped");
    hypervisor = page;
    if (mmap(buffers, sizeof buffers, PROT_READ | PROT_WRITE, huge, -1, 0) == MAP_FAILED)
        fail(EXIT_TRANSPORT, "there is no huge page");
    if (pread(file, &entry, 8, (off_t)((uintptr_t)buffers / PAGE * 8)) != 8 || !(entry & PFN))
        fail(EXIT_TRANSPORT, "/proc/self/pagemap does not tell where memory is");
    close(file);
    close(memory);
    buffers_at = (entry & PFN) * PAGE;
}

static uint64_t physical(const void *buffer)
{
    return buffers_at + (uint64_t)((const uint8_t *)buffer - &buffers[0][0]);
}

uint64_t dma_address(const void *buffer)
{
    hypervisor[HYPERVISOR_DMA / 8] = physical(buffer);
    return hypervisor[HYPERVISOR_DMA / 8];
}

/* The request is put behind the answers, for the VMM to find it in the guest's RAM. */
enum refusal mmu_install(const struct install_entry *entries, uint32_t count, uint32_t argument, uint32_t *bad)
{
    struct install_request *request = (struct install_request *)(void *)(buffers[1] + BUFFER_SIZE - sizeof *request);

    (void)argument;
    *request = (struct install_request){
        .entries = physical(entries), .count = count, .function = functions[under_test].address >> 15,
    };
    hypervisor[HYPERVISOR_INSTALL / 8] = physical(request);
    tlbi_guest();
    *bad = request->bad;
    return request->refusal;
}

void mmu_context(struct context *context)
{
    *context = (struct context){ 0 };
}

const struct transport *files_open(void)
{
    return NULL;
}

uint32_t workload(const struct workload *workload, struct pushed *pushed)
{
    (void)workload;
    *pushed = (struct pushed){ .status = STATUS_BAD_ENTRY };
    return sizeof *pushed;
}

int main(void)
{
    static const struct {
        const char *type, *where;
    } mounts[] = { { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" } };

    for (unsigned i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        mkdir(mounts[i].where, 0755);
        mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL); /* what uses it says if it is not there */
    }
    guest_main();
}
